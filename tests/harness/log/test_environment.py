"""What a log says of the machine: versions that decide what memory a run takes, and no more."""

import json

from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.records import record_to_dict, run_record_of


def test_nothing_else_of_the_environment_gets_into_a_log(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "PYTORCH_ALLOC_CONF_OF_MINE"):
        monkeypatch.setenv(name, "a-secret")
    record = run_record_of("simulated", "T4", 1, environment=environment())
    assert "a-secret" not in json.dumps(record_to_dict(record))
    assert "torch" in record.environment
