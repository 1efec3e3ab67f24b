"""Products with their adapters as one function: what float64 gives, the same training, less memory."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import LINEAR_LAYERS, MLP_LAYERS
from memory_harness.configs.validation import validate
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.techniques.fused_products import PlainGate, Product, WeightBuffer, _Gated, _Products
from memory_harness.harness.techniques.liger_kernels import LigerGate
from tests.harness.techniques.driving import (
    LLAMA_8B,
    TINY,
    evaluated,
    micro_batch,
    opened,
    simulated_peak,
    uniform_batch,
)

FAST = TINY.with_fields(fast_path="torch")
DEVICE = SimulatedDevice(find_card("t4"), 2**30, computes=True)
INPUTS, OUTPUTS = 64, 128


@dataclasses.dataclass
class Layer:
    """A 4-bit product with what is trained of it, and its weight in float64."""

    product: Product
    trainable: list[Any]
    weight: torch.Tensor


def layer(inputs: int, outputs: int, rank: int, *, bias: bool, dtype: torch.dtype, dropout: float) -> Layer:
    packed, state = quantize_4bit(torch.randn(outputs, inputs), blocksize=64, compress_statistics=True)
    buffer = WeightBuffer(outputs * inputs, len(state.absmax), torch.float32, DEVICE)
    product = Product(packed, state, buffer, 1.7 / max(rank, 1) ** 0.5, dropout)
    trainable = [torch.randn(outputs) if bias else None, None, None]
    if rank:
        trainable[1:] = torch.randn(rank, inputs).to(dtype) * 0.3, torch.randn(outputs, rank).to(dtype) * 0.3
    trainable = [None if t is None else t.requires_grad_() for t in trainable]
    return Layer(product, trainable, product.weight().double().clone())


def reference(of: Layer, values: torch.Tensor, wide: list[Any]) -> torch.Tensor:
    """Return the same in float64, with dropout's next mask."""
    bias, a, b = wide
    out = values @ of.weight.T
    if bias is not None:
        out = out + bias
    if a is None:
        return out
    if of.product.dropout:
        mask = torch.native_dropout(values.float(), of.product.dropout, True)[1]
        values = values * mask / (1 - of.product.dropout)
    return out + of.product.scale * (values @ a.T) @ b.T


def widened(tensors: list[Any]) -> list[Any]:
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def assert_same_gradients(tensors: list[Any], wide: list[Any]) -> None:
    for tensor, expected in zip(tensors, wide, strict=True):
        if tensor is not None:
            rtol = 1e-2 if tensor.itemsize == 2 else 1e-4
            torch.testing.assert_close(tensor.grad.double(), expected.grad, rtol=rtol, atol=1e-3)


KINDS = {
    "rank": st.sampled_from([0, 1, 8]),
    "bias": st.booleans(),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
    "dropout": st.sampled_from([0.0, 0.3]),
    "tokens": st.integers(1, 9),
    "seed": st.integers(0, 2**31),
}


@settings(deadline=None, max_examples=25)
@given(**KINDS)
def test_a_product_and_its_gradients_are_those_of_float64(rank, bias, dtype, dropout, tokens, seed):
    torch.manual_seed(seed)
    one = layer(INPUTS, OUTPUTS, rank, bias=bias, dtype=dtype, dropout=dropout)
    values = torch.randn(2, tokens, INPUTS, requires_grad=True)
    (wide_values, *wide), weights = widened([values, *one.trainable]), torch.randn(2, tokens, OUTPUTS)
    torch.manual_seed(seed)
    (out,) = _Products.apply(values, [one.product], None, *one.trainable)
    torch.manual_seed(seed)
    expected = reference(one, wide_values, wide)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-1 if dtype is torch.bfloat16 else 1e-3)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_same_gradients([values, *one.trainable], [wide_values, *wide])


@settings(deadline=None, max_examples=25)
@given(ranks=st.lists(KINDS["rank"], min_size=3, max_size=3), **{kind: KINDS[kind] for kind in KINDS if kind != "rank"})
def test_products_of_one_input_and_their_gradients_are_those_of_float64(ranks, bias, dtype, dropout, tokens, seed):
    torch.manual_seed(seed)
    kind = {"bias": bias, "dtype": dtype}
    widths = (OUTPUTS, 64, 64)
    layers = [
        layer(INPUTS, width, rank, dropout=dropout if rank else 0.0, **kind)
        for width, rank in zip(widths, ranks, strict=True)
    ]
    values, weights = torch.randn(tokens, INPUTS, requires_grad=True), torch.randn(tokens, sum(widths))
    trainable = [tensor for one in layers for tensor in one.trainable]
    wide_values, *wide = widened([values, *trainable])
    torch.manual_seed(seed)
    out = torch.cat(_Products.apply(values, [one.product for one in layers], None, *trainable), 1)
    torch.manual_seed(seed)
    expected = torch.cat([reference(one, wide_values, wide[3 * at : 3 * at + 3]) for at, one in enumerate(layers)], 1)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-1 if dtype is torch.bfloat16 else 1e-3)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_same_gradients([values, *trainable], [wide_values, *wide])


def siblings() -> tuple[list[Product], list[Any]]:
    """Return products of one input with adapters of different ranks, one of them without, and what is trained."""
    torch.manual_seed(0)
    layers = [layer(INPUTS, OUTPUTS, rank, bias=True, dtype=torch.float32, dropout=0.0) for rank in (4, 0, 2)]
    return [one.product for one in layers], [tensor for one in layers for tensor in one.trainable]


def test_gradients_come_where_they_are_wanted_and_stay_the_same():
    products, trainable = siblings()
    values = torch.randn(5, INPUTS)
    sum(out.sum() for out in _Products.apply(values.requires_grad_(), products, None, *trainable)).backward()
    everything = [None if tensor is None else tensor.grad for tensor in (values, *trainable)]
    frozen = (0, 1, 8)  # the input, the first bias, the last A
    some = [None if tensor is None else tensor.detach().clone() for tensor in (values, *trainable)]
    for at, tensor in enumerate(some):
        if tensor is not None and at not in frozen:
            tensor.requires_grad_()
    sum(out.sum() for out in _Products.apply(some[0], products, None, *some[1:])).backward()
    found = [None if tensor is None else tensor.grad for tensor in some]
    torch.testing.assert_close(found, [None if at in frozen else grad for at, grad in enumerate(everything)])


def test_an_input_that_is_computed_again_is_gone_before_its_gradient_comes():
    inputs, outputs = 4096, 64
    device = SimulatedDevice(find_card("t4"), 2**30, computes=False)
    with device.active():
        half = {"dtype": torch.float16, "device": device.torch_device}
        buffer = WeightBuffer(outputs * inputs, 1, torch.float16, device)
        product = Product(buffer.values, SimpleNamespace(shape=torch.Size([outputs, inputs])), buffer, 1.0, 0.0)
        values = torch.empty(2048, inputs, requires_grad=True, **half)
        shapes = ((8, inputs), (outputs, 8))
        adapters = [torch.empty(shape, requires_grad=True, **half) for shape in shapes]
        for _ in range(2):  # the first time cuBLAS takes its workspace
            (out,) = _Products.apply(values, [product], (torch.neg, values.detach()), None, *adapters)
            grad = torch.empty_like(out)
            before = device.stats().allocated_bytes
            device.reset_peaks()
            wanted = torch.autograd.grad(out, (values, *adapters), grad)
            needed = device.stats().peak_allocated_bytes - before
            del wanted, out
    assert needed < 1.2 * values.nbytes


@pytest.mark.parametrize("gate", [PlainGate(), LigerGate(DEVICE)])
@settings(deadline=None, max_examples=12)
@given(**KINDS)
def test_a_feed_forward_block_and_its_gradients_are_those_of_float64(gate, rank, bias, dtype, dropout, tokens, seed):
    torch.manual_seed(seed)
    kind = {"bias": bias, "dtype": torch.float32, "dropout": dropout}
    of_gate, of_up = (layer(INPUTS, OUTPUTS, rank, **kind) for _ in range(2))
    down = layer(OUTPUTS, INPUTS, rank, **kind)
    layers = (of_gate, of_up, down)
    values = torch.randn(tokens, INPUTS, requires_grad=True)
    trainable = [tensor for one in layers for tensor in one.trainable]
    wide_values, *wide = widened([values, *trainable])
    torch.manual_seed(seed)
    inner, *kept = _Gated.apply(values, gate, (of_gate.product, of_up.product), None, *trainable[:6])
    (out,) = _Products.apply(inner, [down.product], (gate.forward, *kept), *trainable[6:])
    torch.manual_seed(seed)
    both = [reference(one, wide_values, wide[at : at + 3]) for at, one in ((0, of_gate), (3, of_up))]
    expected = reference(down, torch.nn.functional.silu(both[0]) * both[1], wide[6:])
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-1)
    out.sum().backward()
    expected.sum().backward()
    for tensor, right in zip([values, *trainable], [wide_values, *wide], strict=True):
        if tensor is not None:
            scale = right.grad.abs().max()
            torch.testing.assert_close(tensor.grad.double(), right.grad, rtol=1e-3, atol=1e-5 * float(scale) + 1e-4)


@pytest.mark.parametrize("gate", [PlainGate(), LigerGate(DEVICE)])
def test_a_graph_that_is_kept_gives_the_same_again(gate):
    torch.manual_seed(0)
    of_gate, of_up = (layer(INPUTS, OUTPUTS, 4, bias=False, dtype=torch.float32, dropout=0.0) for _ in range(2))
    values = torch.randn(5, INPUTS, requires_grad=True)
    inner, *_ = _Gated.apply(values, gate, (of_gate.product, of_up.product), None, *of_gate.trainable, *of_up.trainable)
    first = torch.autograd.grad(inner.sum(), values, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(inner.sum(), values)[0], first)


@pytest.mark.slow
def test_training_and_evaluation_stay_the_same():
    batch, fields = uniform_batch(2, 33, padding=5), {"lora_dropout": 0.1, "target_modules": LINEAR_LAYERS}
    fast, slow = (micro_batch(config.with_fields(**fields), batch) for config in (FAST, TINY))
    assert len(fast[1]) == len(slow[1]) > 0
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)
    assert evaluated(FAST, batch) == pytest.approx(evaluated(TINY, batch), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["torch", "liger"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"target_modules": LINEAR_LAYERS, "lora_rank": 4, "use_rslora": True, "lora_dropout": 0.1},
        {"target_modules": MLP_LAYERS, "recompute": "none"},
        {"target_modules": LINEAR_LAYERS, "recompute": "0+2", "lora_dropout": 0.1},
        {"recompute": "1+1"},
        {"target_modules": ("q_proj", "v_proj"), "recompute": "1", "attention": "eager"},
        {"gradient_checkpointing": False, "adapter_dtype": "auto"},
        {"tiled_mlp": True, "mlp_chunk_tokens": 16},
        {"use_reentrant": True},
    ],
)
def test_what_is_trained_and_how_makes_no_difference(path, fields):
    batch = uniform_batch(2, 33, padding=5)
    fast, slow = (micro_batch(c.with_fields(**fields), batch) for c in (FAST.with_fields(fast_path=path), TINY))
    assert len(fast[1]) == len(slow[1]) > 0
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["torch", "liger"])
def test_a_step_takes_less_memory(path):
    config = TINY.with_fields(tensors="fake", dtype="float16", max_length=512, recompute="none")
    fast, slow = (simulated_peak(c, uniform_batch(1, 512)) for c in (config.with_fields(fast_path=path), config))
    assert fast.peak_allocated_bytes < slow.peak_allocated_bytes


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["all", "1", "none"])
@pytest.mark.parametrize("path", ["torch", "liger"])
def test_a_derived_length_takes_what_a_run_of_it_takes(path, recompute):
    fields = {"fast_path": path, "recompute": recompute, "target_modules": LINEAR_LAYERS, "lora_dropout": 0.1}
    config = TINY.with_fields(tensors="fake", dtype="float16", max_length=256, **fields)
    assert peaks(config, CompiledStrategy) == peaks(config, lambda strategy, _: strategy)


def peaks(config, wrap):
    strategy, device = opened(config)
    strategy, found = wrap(strategy, device), []
    with device.active():
        strategy.load()
        for length in (256, 64, 128, 192, 32, 160, 224):
            device.reset_peaks()
            strategy.put(uniform_batch(1, length), training=True)
            strategy.forward(length - 1)
            strategy.backward()
            strategy.optimizer_step(1e-4)
            found.append(device.stats().peak_allocated_bytes)
    return found


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"quantization": "none", "kbit_upcast": False}, "--quantization"),
        ({"use_dora": True}, "--use-dora"),
        ({"model": "tiny-moe"}, "--fast-path torch: not for models"),
    ],
)
def test_what_it_does_not_know_is_refused(fields, flag):
    with pytest.raises(ConfigError, match=flag):
        validate(LLAMA_8B.with_fields(fast_path="torch", **fields))


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["torch", "liger"])
@pytest.mark.parametrize("modules", [("q_proj", "k_proj", "v_proj", "o_proj"), LINEAR_LAYERS])
def test_a_gpu_gives_the_losses_of_the_slow_path(path, modules):
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    def losses(config):
        torch.manual_seed(0)
        device = CudaDevice(None, None)
        strategy, found = QLoraStrategy(config, device), []
        with device.active():
            strategy.load()
            for _ in range(4):
                strategy.put(uniform_batch(2, 64, padding=5), training=True)
                strategy.forward(2 * 58)
                strategy.backward()
                found.append(strategy.optimizer_step(1e-3))
        return found

    config = TINY.with_fields(dtype="float16", random_weights=True, target_modules=modules, lora_dropout=0.0)
    fast = losses(config.with_fields(fast_path=path))
    for found, expected in zip(fast, losses(config), strict=True):
        assert found == pytest.approx(expected, rel=5e-3)
