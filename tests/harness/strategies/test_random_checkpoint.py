"""A checkpoint with random weights is one that transformers loads: nothing missing, nothing made up."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import DeviceError
from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint
from memory_harness.harness.strategies.unsloth import UnslothStrategy
from memory_harness.harness.train.run import open_device

CPU = open_device(RunConfig().with_fields(model="tiny-llama", device="simulated", tensors="real"))
TINY = find_model("tiny-llama")


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_what_was_written(tmp_path, tied):
    shape = replace(TINY, values={**TINY.values, "tie_word_embeddings": tied})
    write_random_checkpoint(shape, tmp_path, torch.float16, CPU)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype is torch.float16
    assert model.config.num_hidden_layers == shape.values["num_hidden_layers"]
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert float(model.model.layers[1].mlp.up_proj.weight.detach().float().std()) == pytest.approx(0.02, rel=0.1)
    assert find_model(str(tmp_path)).values["hidden_size"] == shape.values["hidden_size"]


def test_its_tokenizer_knows_every_id_and_the_special_ones(tmp_path):
    write_random_checkpoint(TINY, tmp_path, torch.float16, CPU)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == TINY.vocab_size
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ids == (TINY.bos_token_id, TINY.eos_token_ids[0], TINY.pad_token_id)


def test_a_disk_too_small_is_one_line(tmp_path):
    huge = replace(TINY, values={**TINY.values, "vocab_size": 10**10})
    with pytest.raises(DeviceError, match=r"random weights need .* on disk, .* has .*; set TMPDIR to a larger disk"):
        write_random_checkpoint(huge, tmp_path, torch.float16, CPU)


def test_no_simulated_device_takes_unsloth():
    with pytest.raises(DeviceError, match="needs a CUDA GPU"):
        UnslothStrategy(RunConfig().with_fields(strategy="unsloth"), CPU)
