"""Building models from shapes."""

from __future__ import annotations

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.models import ModelShape, find_model, load_models
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.modeling import Layout, make_real, model_without_weights
from memory_harness.harness.strategies.qlora import QLoraStrategy


@pytest.mark.parametrize("shape", load_models().values(), ids=lambda shape: shape.name)
def test_a_saved_configuration_is_read_back_as_the_same_shape(tmp_path, shape: ModelShape):
    config = transformers_config(shape)
    config.eos_token_id, config.pad_token_id = list(shape.eos_token_ids), shape.pad_token_id
    config.bos_token_id = shape.bos_token_id
    config.save_pretrained(tmp_path)
    read = find_model(str(tmp_path))
    for name in ("vocab_size", "eos_token_ids", "pad_token_id", "bos_token_id", "max_position_embeddings"):
        assert getattr(read, name) == getattr(shape, name)
    assert layout(transformers_config(read)) == layout(transformers_config(shape))


def layout(config):
    """Return what decides the model's layers: all but where the configuration lies and its special tokens."""
    aside = {"_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id"}
    return {name: value for name, value in config.to_dict().items() if name not in aside}


def test_evaluating_on_a_cpu_with_avx512_leaves_the_quantised_weights_as_they_are(monkeypatch):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    device = SimulatedDevice(find_card("t4"), 2**30, computes=True)
    with device.active():
        config = transformers_config(find_model("tiny-llama"))
        layout = Layout(torch.float32)
        model = model_without_weights(config, layout).eval()
        make_real(model, device, layout)
        weight = model.model.layers[0].mlp.up_proj.weight
        before = weight.data.clone()
        with torch.no_grad():
            model(input_ids=torch.ones(1, 4, dtype=torch.int64))
        assert weight.data.shape == before.shape
        assert torch.equal(weight.data, before)
        assert not getattr(weight.quant_state, "packing_format_for_cpu", False)


def test_a_model_without_k_bit_weights_gets_no_k_bit_preparation() -> None:
    config = RunConfig().with_fields(model="tiny-llama", quantization="none", kbit_upcast=True, dtype="float16")
    device = SimulatedDevice(find_card("t4"), 2**34, computes=False)
    strategy = QLoraStrategy(config, device)
    with device.active():
        strategy.load()
    frozen = [parameter for parameter in strategy.model.parameters() if not parameter.requires_grad]
    assert {parameter.dtype for parameter in frozen} == {torch.float16}
    assert strategy.model.get_base_model().is_gradient_checkpointing
