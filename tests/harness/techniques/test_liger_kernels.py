"""liger-kernel's norm and rotation as they run without a GPU: the model's own values and gradients, in place."""

from types import SimpleNamespace

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.techniques.liger_kernels import _norm, _rotate, use_liger_kernels
from tests.harness.techniques.driving import TINY, evaluated, micro_batch, uniform_batch
from tests.harness.techniques.test_expanded_heads import reply

DEVICE = SimulatedDevice(find_card("t4"), 2**30, computes=True)
LIGER = TINY.with_fields(fast_path="liger")


def heads(number):
    """Return queries or keys as a layer has them: heads of a token lie one beside the other."""
    return torch.randn(2, 7, number, 16).transpose(1, 2)


def assert_same(function, own, inputs):
    """Compare results and gradients; what the first writes over is its own."""
    found = []
    for run in (function, own):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        outputs = run(*[leaf * 1 for leaf in leaves])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outputs).backward()
        found.append([*outputs, *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_norm_is_the_models_own():
    torch.manual_seed(0)
    norm = LlamaRMSNorm(32)
    torch.nn.init.normal_(norm.weight)
    norm.weight.requires_grad = False
    assert_same(lambda values: _norm(norm, DEVICE, values), norm, [torch.randn(2, 5, 32)])


def test_a_rotation_is_the_models_own():
    torch.manual_seed(0)
    angles = torch.randn(1, 7, 8).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    assert_same(
        lambda query, key: _rotate(DEVICE, query, key, cos, sin),
        lambda query, key: apply_rotary_pos_emb(query, key, cos, sin),
        [heads(4), heads(2)],
    )


@pytest.mark.slow
def test_training_evaluation_and_replies_stay_the_same():
    batch = uniform_batch(2, 33, padding=5)
    torch.testing.assert_close(micro_batch(LIGER, batch), micro_batch(TINY, batch), rtol=1e-4, atol=1e-6)
    assert evaluated(LIGER, batch) == pytest.approx(evaluated(TINY, batch), rel=1e-6)
    prompts = [list(range(5, 45)), [9, 10]]
    assert reply(LIGER, prompts) == reply(TINY, prompts)


def test_a_model_of_another_run_keeps_its_own_rotation():
    from transformers.models.llama import modeling_llama

    own = modeling_llama.apply_rotary_pos_emb
    micro_batch(LIGER, uniform_batch(1, 8))
    assert modeling_llama.apply_rotary_pos_emb is own


def test_a_gpu_without_liger_kernel_is_told_so(monkeypatch):
    monkeypatch.setattr("memory_harness.harness.techniques.liger_kernels.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--fast-path torch"):
        use_liger_kernels(torch.nn.Linear(1, 1), SimpleNamespace(torch_device=torch.device("cuda")))


@pytest.mark.gpu
def test_the_kernels_are_the_models_own():
    torch.manual_seed(0)
    norm = LlamaRMSNorm(4096).half()
    norm.weight.requires_grad = False
    values = torch.randn(2, 5, 4096).half()
    found = []
    for device in ("cuda", "cpu"):
        leaf = values.to(device).requires_grad_()
        out = _norm(norm.to(device), DEVICE, leaf * 1)
        out.float().square().sum().backward()
        found.append([out.cpu(), leaf.grad.cpu()])
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-2)
