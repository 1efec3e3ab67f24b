"""Mixed precision on meta tensors casts what CUDA's casts, when it does, and nothing else."""

import pytest
import torch
from torch.nn import functional

from memory_harness.harness.simulate.autocast import meta_autocast
from memory_harness.harness.simulate.trace import FREE
from tests.harness.simulate.test_tracing import recording

HALF, FULL = torch.bfloat16, torch.float32


@pytest.fixture
def autocast():
    with meta_autocast(), torch.autocast("cpu", dtype=HALF):
        yield


def meta(*shape, dtype=FULL):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.usefixtures("autocast")
@pytest.mark.parametrize(
    "multiply",
    [
        lambda a, b: a @ b,
        lambda a, b: torch.matmul(a, b),  # looked up when called
        lambda a, b: a.matmul(b),
        lambda a, b: functional.linear(a, b.t()),
        lambda a, b: torch.einsum("ij,jk->ik", a, b),
        lambda a, b: torch.addmm(meta(1), a, b),
        lambda a, b: torch.bmm(a[None], b[None]),
    ],
)
def test_products_are_in_16_bit(multiply):
    assert multiply(meta(4, 8), meta(8, 4)).dtype is HALF


@pytest.mark.usefixtures("autocast")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x**2,
        lambda x: x.pow(2),
        lambda x: torch.square(x),
        lambda x: torch.exp(x),
        lambda x: x.rsqrt(),
        lambda x: functional.layer_norm(x, (4,)),
        torch.nn.LayerNorm(4, device="meta", dtype=HALF),
        lambda x: functional.softmax(x, dim=-1),
        lambda x: x.log_softmax(-1),
        lambda x: x.sum(),
        lambda x: x.sum(-1),
        lambda x: x.norm(),
    ],
)
def test_what_needs_precision_is_in_float32(function):
    assert function(meta(4, 4, dtype=HALF)).dtype is FULL


@pytest.mark.usefixtures("autocast")
def test_what_autocast_does_not_list_keeps_its_type():
    x = meta(4, 4, dtype=HALF)
    assert (x + x).dtype is x.mean().dtype is functional.gelu(x).dtype is torch.cat([x, x]).dtype is HALF


def test_without_autocast_nothing_is_cast():
    with meta_autocast():
        assert (meta(4, 8) @ meta(8, 4)).dtype is FULL
        assert meta(4, 4, dtype=HALF).sum().dtype is HALF
    assert "__matmul__" not in vars(torch.Tensor), "everything is put back"


def test_a_trainable_weight_is_cast_once():
    with recording() as (device, events), torch.autocast("cpu", dtype=HALF):
        weight = torch.nn.Parameter(torch.empty(16, 8, device=device.torch_device))
        before = len(events)
        for _ in range(3):
            functional.linear(torch.empty(4, 8, dtype=HALF, device=device.torch_device), weight)
        casts = [size for _, size, _ in events[before:] if size == weight.numel() * 2]
    assert len(casts) == 1


def test_softmax_into_float32_makes_a_copy_of_its_input_where_that_is_no_float16():
    with recording() as (device, events):
        for dtype, is_copied in ((torch.float16, False), (torch.bfloat16, True)):
            scores = torch.empty(4, 64, dtype=dtype, device=device.torch_device)
            before = len(events)
            out = functional.softmax(scores, dim=-1, dtype=FULL)
            assert out.dtype is FULL
            sizes = [size for _, size, _ in events[before:] if size >= 0]
            assert sizes == [4 * 64 * 4] * (1 + is_copied)


def test_transformers_can_switch_it_off():
    from transformers.utils.generic import maybe_autocast

    with recording() as (device, _), torch.autocast("cpu", dtype=HALF):
        x = torch.empty(4, 4, device=device.torch_device)
        with maybe_autocast(device_type=x.device.type, enabled=False):
            assert (x @ x).dtype is FULL
        with torch.autocast("cuda", enabled=False):
            assert (x @ x).dtype is FULL
        assert (x @ x).dtype is HALF


def test_a_bias_takes_cublaslt_s_workspace_once():
    with recording() as (device, events):
        x, weight, bias = (torch.empty(*shape, device=device.torch_device) for shape in ((4, 8), (16, 8), (16,)))
        functional.linear(x, weight)
        without = workspaces(events)
        functional.linear(x, weight, bias)
    assert without == {("workspace", "main")}
    assert workspaces(events) - without == {("workspace", "main cuBLASLt")}


def workspaces(events):
    return {key for key, size, _ in events if isinstance(key, tuple) and key[0] == "workspace" and size != FREE}
