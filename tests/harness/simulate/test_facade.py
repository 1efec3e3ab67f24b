"""A card that is not there, as a script sees it."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import MIB
from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.records import PeakRecord, Phase
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate.facade.values import UnknownValue


@pytest.fixture
def device():
    opened = DryRunDevice(find_card("t4"), 2**30)
    with opened.active():
        yield opened


def test_a_module_that_moves_keeps_its_parameters(device):
    layer = torch.nn.Linear(4, 4)
    weight = layer.weight
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    layer.to("cuda")
    assert layer.weight is weight
    assert weight.device == weight.grad.device == torch.device("cuda", 0)
    layer(torch.ones(2, 4).cuda()).sum().backward()
    optimizer.step()
    assert optimizer.state[weight]["exp_avg"].is_cuda
    layer.cpu()
    assert layer.weight is weight
    assert weight.device.type == "cpu"


def test_tied_weights_stay_tied_on_the_card(device):
    embedding, head = torch.nn.Embedding(64, 32), torch.nn.Linear(32, 64, bias=False)
    head.weight = embedding.weight
    torch.nn.ModuleList([embedding, head]).cuda()
    assert head.weight is embedding.weight
    assert device.stats().allocated_bytes == 64 * 32 * 4


def test_addresses_tell_shared_memory_from_other(device):
    first, second = torch.zeros(8, device="cuda"), torch.zeros(8, device="cuda")
    assert first.data_ptr() != second.data_ptr()
    assert first[2:].data_ptr() == first.data_ptr() + 8
    assert first.view(2, 4).untyped_storage().data_ptr() == first.data_ptr()


def test_lazy_layers_find_out_their_sizes_on_the_card(device):
    layers = [torch.nn.LazyConv2d(8, 3), torch.nn.LazyBatchNorm2d(), torch.nn.Flatten(), torch.nn.LazyLinear(4)]
    net = torch.nn.Sequential(*layers).to("cuda")
    assert net(torch.ones(2, 3, 6, 6, device="cuda")).shape == (2, 4)
    assert net[3].weight.shape == (4, 8 * 4 * 4)
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"cuda"}


def test_workspaces_are_told_of_as_such_in_the_phase_that_makes_them_and_later(device):
    records = []
    recorder = PhaseRecorder(device, records.append)
    x = torch.ones(64, 64, device="cuda")
    for phase in (Phase.FORWARD, Phase.EVAL):
        with recorder.phase(phase):
            y = x @ x
    recorder.end_run()
    peaks = [record for record in records if isinstance(record, PeakRecord)]
    assert [peak.phase for peak in peaks] == [Phase.FORWARD, Phase.EVAL]
    for peak in peaks:
        assert peak.kinds["workspaces"] >= 8 * MIB > peak.allocated_bytes - peak.kinds["workspaces"]
        assert peak.kinds["activations"] == y.nbytes


def test_a_buffer_that_is_filled_on_the_card_has_the_values_it_is_filled_with(device):
    buffer = torch.empty(3, dtype=torch.long, device="cuda")
    buffer.copy_(torch.tensor([4, 5, 6]))
    assert buffer.tolist() == [4, 5, 6]
    buffer.copy_(torch.randn(3, device="cuda"))
    with pytest.raises(UnknownValue):
        buffer.sum().item()


def test_a_deep_copy_of_a_module_takes_as_much_again_buffers_included(device):
    norm = torch.nn.BatchNorm1d(2**16).cuda()
    before = device.stats().allocated_bytes
    other = copy.deepcopy(norm)
    assert other.running_mean.is_cuda
    assert device.stats().allocated_bytes == 2 * before


def test_a_module_goes_to_a_card_by_its_bare_number(device):
    assert torch.nn.Linear(4, 4).to(0).weight.is_cuda
    assert torch.nn.Linear(4, 4).to(device=0).weight.is_cuda


def test_numbers_drawn_on_the_card_are_not_known_and_leave_the_hosts_generator_alone(device):
    before = torch.get_rng_state()
    drawn = torch.randn(4, device="cuda")
    torch.nn.init.normal_(torch.empty(4, device="cuda"))
    torch.randint(5, (4,), device="cuda")
    torch.nn.functional.dropout(torch.ones(4, device="cuda"))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UnknownValue, match=r"test_facade\.py:\d+: how many elements a mask selects"):
        drawn[drawn > 0]


def test_a_number_that_is_read_is_refused_to_hang_on(device):
    number = torch.randn(4, device="cuda").mean().item()
    assert f"{number:.1f} {number * 2}" == "1.0 2.0"
    assert number < float("inf")
    with pytest.raises(UnknownValue, match="branches on a number read from the card"):
        assert number < 0.5


def test_operators_made_of_others_allocate_in_inference_mode_what_they_do_without(device):
    x, y = torch.ones(8, 64, device="cuda"), torch.ones(8, 64, device="cuda")

    def peak() -> int:
        device.reset_peaks()
        before = device.stats().allocated_bytes
        torch.cosine_similarity(x, y)
        return device.stats().peak_allocated_bytes - before

    with torch.no_grad():
        without = peak()
    with torch.inference_mode():
        assert peak() == without > 512


@pytest.mark.parametrize("x", [torch.ones(2, 64, 8).transpose(1, 2), torch.ones(2, 2, 4, 64)])
def test_a_bias_is_added_to_the_product_itself_where_no_kernel_does_both(device, x):
    layer, x = torch.nn.Linear(64, 512).cuda(), x.cuda()
    layer(x)  # from the second on there is a workspace
    device.reset_peaks()
    before = device.stats().allocated_bytes
    with torch.no_grad():
        layer(x)
    product = 2 * 8 * 512 * 4
    input_as_a_matrix = 0 if x.is_contiguous() else x.nbytes
    assert device.stats().peak_allocated_bytes - before == product + input_as_a_matrix


def attended_by_plain_operators() -> torch.Tensor:
    query = torch.zeros(1, 32, 1024, 64, device="cuda", dtype=torch.float16, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(query, query, query)


def softmax_of(dtype: torch.dtype, wide: torch.dtype) -> torch.Tensor:
    scores = torch.zeros(64, 1024, 1024, device="cuda", dtype=dtype, requires_grad=True)
    return F.softmax(scores, -1, dtype=wide)


@pytest.mark.parametrize(
    ("program", "forward", "backward"),
    [
        (lambda: softmax_of(torch.float16, torch.float32), 402653184, 1073741824),
        (lambda: softmax_of(torch.float16, torch.float16), 268435456, 671088640),
        (lambda: softmax_of(torch.float32, torch.float32), 536870912, 1342177280),
        (attended_by_plain_operators, 381714944, 641728512),
    ],
)
def test_softmax_takes_what_it_took_on_an_h200(program, forward, backward):
    device = DryRunDevice(find_card("h200"), 2**40)
    with device.active():
        out = program()
        assert device.stats().peak_allocated_bytes == forward
        device.reset_peaks()
        out.backward(torch.ones_like(out))
        assert device.stats().peak_allocated_bytes == backward


def test_tensors_of_the_host_are_refused_where_cuda_refuses_them(device):
    on_card, on_host = torch.zeros(4, device="cuda"), torch.zeros(4)
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu"):
        on_card + on_host
    assert (on_card + torch.tensor(2.0)).is_cuda
    assert on_card[torch.tensor([0, 1])].shape == (2,)


def test_a_tensor_of_the_card_is_shown_with_its_device(device):
    assert repr(torch.ones(2, device="cuda")) == "tensor([1., 1.], device='cuda:0')"
    assert torch.arange(3, device="cuda").tolist() == [0, 1, 2]


def test_large_weights_on_the_host_have_no_values_there(device):
    layer = torch.nn.Linear(2048, 2048)
    assert layer(torch.ones(2, 2048)).device.type == "cpu"
    assert layer.weight.mean().item() == 1
    assert device.stats().allocated_bytes == 0


def test_what_is_made_on_the_card_by_default_is_followed(device):
    torch.set_default_device("cuda")
    try:
        ids = torch.zeros(4, dtype=torch.long)
        assert ids.is_cuda
        assert int(ids.sum()) == 0
    finally:
        torch.set_default_device(None)


def test_devices_given_by_context_hold_for_all_functions_afterwards():
    """PyTorch remembers which functions these are about from its first question on, which may come within."""
    torch.utils._device._device_constructors.cache_clear()
    with DryRunDevice(find_card("t4"), 2**30).active(), torch.device("cuda"):
        torch.zeros(2)
    with torch.device("meta"):
        assert {make([1.0]).device.type for make in (torch.tensor, torch.as_tensor, torch.asarray)} == {"meta"}


def test_what_a_script_writes_is_gone_in_the_end_and_what_was_there_stays(tmp_path):
    old = tmp_path / "old.txt"
    old.write_text("kept", encoding="utf-8")
    with DryRunDevice(find_card("t4"), 2**30).active():
        os.makedirs(tmp_path / "out" / "deep")
        (tmp_path / "out" / "deep" / "new.txt").write_text("new", encoding="utf-8")
        old.write_text("changed", encoding="utf-8")
        assert old.read_text(encoding="utf-8") == "changed"
        torch.save({"weight": torch.ones(2, device="cuda")}, tmp_path / "weights.pt")
        old.unlink()
    assert [path.name for path in Path(tmp_path).iterdir()] == ["old.txt"]
    assert old.read_text(encoding="utf-8") == "kept"
