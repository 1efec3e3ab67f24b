"""Building models from shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.models import ModelShape, find_model, load_models
from harness.strategies.modeling import transformers_config


@pytest.mark.parametrize("shape", load_models().values(), ids=lambda shape: shape.name)
def test_a_saved_configuration_is_read_back_as_the_same_shape(tmp_path, shape: ModelShape):
    config = transformers_config(shape)
    config.eos_token_id, config.pad_token_id = list(shape.eos_token_ids), shape.pad_token_id
    config.bos_token_id = shape.bos_token_id
    config.save_pretrained(tmp_path)
    read = find_model(str(tmp_path))
    assert replace(read, name=shape.name, source=shape.source, rope_scaling=None) == replace(shape, rope_scaling=None)
    assert layout(transformers_config(read)) == layout(transformers_config(shape))


def layout(config):
    """Return what decides the model's layers: all but where the configuration lies and its special tokens."""
    aside = {"_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id"}
    return {name: value for name, value in config.to_dict().items() if name not in aside}
