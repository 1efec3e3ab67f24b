"""Which earlier probes let a training run in, and what training needs."""

from dataclasses import replace

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.errors import CheckpointError, LogError
from memory_harness.harness.log.manifest import LOG_FILE, MANIFEST_FILE, Manifest, Position
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import LogWriter, RunLog
from memory_harness.harness.train.checkpoint import write_checkpoint
from memory_harness.probes.session.gate import (
    check_num_gpus,
    check_trainable,
    find_passing_probe,
    gate_of,
    gate_of_run,
    run_of,
)
from memory_harness.probes.session.session import FIRST_LOG, session_of_folder
from tests.builders import AS_PUBLISHED, as_published_oom, make_log


def write_log(path, log: RunLog, source="simulated"):
    with LogWriter(path) as writer:
        writer.write(replace(log.run, source=source))
        for record in (*log.begins, *log.phases, *log.steps, *log.evals, *log.ooms, log.end):
            writer.write(record)


@pytest.fixture
def config(tmp_path):
    return AS_PUBLISHED.with_fields(output=str(tmp_path), eval_batch_size=1)


def test_a_probe_of_the_same_configuration_that_passed_lets_in(config, tmp_path):
    write_log(tmp_path / "20260101-000000-a" / FIRST_LOG, make_log(config))
    gate, _ = find_passing_probe(config, "simulated")
    assert gate.config == config
    assert gate.reason == f"the probe in {tmp_path / '20260101-000000-a'} passed"


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(lambda config: make_log(config.with_fields(max_length=1024)), id="another configuration"),
        pytest.param(lambda config: make_log(config, outcome=Outcome.STOPPED), id="stopped"),
        pytest.param(lambda config: replace(as_published_oom(), run=make_log(config).run), id="out of memory"),
    ],
)
def test_other_probes_let_nothing_in(config, tmp_path, log):
    write_log(tmp_path / "a" / FIRST_LOG, log(config))
    assert find_passing_probe(config, "simulated") is None


def test_a_simulated_pass_does_not_stand_for_a_measured_one(config, tmp_path):
    write_log(tmp_path / "a" / FIRST_LOG, make_log(config))
    assert find_passing_probe(config, "cuda") is None
    write_log(tmp_path / "b" / FIRST_LOG, make_log(config), source="cuda")
    assert find_passing_probe(config, "cuda") is not None


def test_the_configuration_that_passed_with_fixes_is_let_in_by_its_own_log(config, tmp_path):
    write_log(tmp_path / "a" / FIRST_LOG, as_published_oom())
    write_log(tmp_path / "a" / "1_eval-batch.jsonl", make_log(config))
    gate, _ = find_passing_probe(config, "simulated")
    assert gate.config == config


def test_what_trains_has_the_fixes_of_the_probe(tmp_path):
    config = AS_PUBLISHED.with_fields(output=str(tmp_path))
    write_log(tmp_path / "a" / FIRST_LOG, as_published_oom())
    session = session_of_folder(tmp_path / "a")
    assert gate_of(session, tmp_path / "a") is None
    fixed = make_log(config.with_fields(eval_batch_size=1))
    write_log(tmp_path / "a" / "1_eval-batch.jsonl", fixed)
    gate = gate_of(session_of_folder(tmp_path / "a"), tmp_path / "a")
    assert gate.config.eval.eval_batch_size == 1
    assert gate.reason.endswith("passed with eval-batch")
    found, _ = find_passing_probe(config, "simulated")
    assert found.config.with_fields(output="") == gate.config.with_fields(output="")


@pytest.mark.parametrize("name", [FIRST_LOG, "1_eval-batch.jsonl"])
def test_a_run_with_a_planted_fault_lets_nothing_in(config, tmp_path, name):
    log = make_log(config)
    write_log(tmp_path / "a" / name, replace(log, run=replace(log.run, fault="loss-kept")))
    if name != FIRST_LOG:
        write_log(tmp_path / "a" / FIRST_LOG, as_published_oom())
    assert find_passing_probe(config, "simulated") is None


def test_damaged_logs_let_nothing_in(config, tmp_path):
    write_log(tmp_path / "a" / FIRST_LOG, make_log(config))
    log = tmp_path / "a" / FIRST_LOG
    log.write_bytes(log.read_bytes()[:-60])
    (tmp_path / "a" / "other.jsonl").write_text("{half")
    assert find_passing_probe(config, "simulated") is None


def test_a_log_of_wrong_types_stops_no_training(config, tmp_path):
    for name, before, after in (("b", b'"step": 1', b'"step": {}'), ("c", b'"config": {', b'"config": 7, "x": {')):
        write_log(tmp_path / name / FIRST_LOG, make_log(config))
        log = tmp_path / name / FIRST_LOG
        log.write_bytes(log.read_bytes().replace(before, after))
    write_log(tmp_path / "a" / FIRST_LOG, make_log(config))
    gate, _ = find_passing_probe(config, "simulated")
    assert gate.reason.startswith("the probe in")


def refused(*flags, computes=True):
    with pytest.raises(ConfigError) as error:
        check_trainable("--train", parse_args(flags).config, computes)
    return error.value.problems


def test_training_needs_weights_a_tokenizer_and_a_device_that_computes(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("memory_harness.harness.data.tokenizer._llama_models_file", lambda: None)
    device, weights, tokenizer = refused(computes=False)
    assert "no CUDA GPU" in device
    assert all(word in weights for word in ("no weights of llama-3.1-8b", "--model DIR", "--random-weights"))
    assert "--tokenizer" in tokenizer
    check_trainable("--train", parse_args(["--random-weights"]).config, True)


def test_a_model_made_for_tests_trains_its_random_weights(monkeypatch):
    check_trainable("--train", parse_args(["--preset", "smoke_cpu"]).config, True)


def test_logs_that_cannot_be_read_let_nothing_in(config, tmp_path):
    (tmp_path / "a" / FIRST_LOG).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FIRST_LOG).write_text("[1]\n")
    assert find_passing_probe(config, "simulated") is None


def test_a_copied_checkpoint_is_no_run(tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / MANIFEST_FILE).touch()
    assert run_of(tmp_path / "run" / "best") == tmp_path / "run"
    assert run_of(tmp_path / "run") == tmp_path / "run"


def test_a_run_that_goes_on_needs_a_checkpoint(config, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        gate_of_run(tmp_path, config)


def test_an_empty_log_of_a_run_that_goes_on_names_the_flag_that_was_given(config, tmp_path):
    write_checkpoint(tmp_path, lambda folder: None, Manifest(Position(2), config.to_dict(), "", "", {}))
    (tmp_path / LOG_FILE).write_bytes(b"")
    with pytest.raises(LogError, match=f"--resume {tmp_path}.*: no run record"):
        gate_of_run(tmp_path, config)


def test_where_no_gpu_is_the_device_is_what_is_wrong(config, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match="--device cuda: there is no CUDA GPU here"):
        check_num_gpus(config.with_fields(num_gpus=2), "cuda")
