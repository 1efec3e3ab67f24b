"""What cannot be packed is one line that says so; what can is let through."""

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.step_graphs import reason_against_graphs
from memory_harness.configs.validation import validate

PACKED = RunConfig().with_fields(batching="packed")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objective": "dpo"}, "--objective dpo is of whole sequences"),
        ({"strategy": "unsloth", "device": "cuda"}, "--strategy unsloth makes its own masks"),
        ({"attention": "flash_attention_2", "gpu": "l4"}, "--attention flash_attention_2"),
        ({"use_cache": True}, "--use-cache: a cache keeps no samples apart"),
        ({"neftune_noise_alpha": 5.0}, "--neftune-noise-alpha 5.0"),
    ],
)
def test_what_is_of_whole_sequences_is_not_packed(fields, words):
    validate(RunConfig().with_fields(**fields))
    with pytest.raises(ConfigError) as refused:
        validate(PACKED.with_fields(**fields))
    (line,) = refused.value.problems
    assert line.startswith("--batching packed: ")
    assert words in line


def test_a_rotary_embedding_that_goes_by_the_longest_sample_is_packed_within_its_length(tmp_path):
    rope = '"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}'
    values = f'"model_type": "llama", "vocab_size": 99, "max_position_embeddings": 1024, {rope}'
    (tmp_path / "config.json").write_text("{" + values + "}")
    config = PACKED.with_fields(model=str(tmp_path), max_length=1024)
    validate(config)
    with pytest.raises(ConfigError, match="beyond 1024 tokens; lower --max-length 1088"):
        validate(config.with_fields(max_length=1088))


def test_packed_batches_take_a_cap_and_forbid_graphs():
    validate(PACKED.with_fields(max_batch_tokens=4096))
    fast = PACKED.with_fields(fast_path="torch", loss="liger", cuda_graphs="auto")
    validate(fast)
    assert "--batching packed" in (reason_against_graphs(fast) or "")
