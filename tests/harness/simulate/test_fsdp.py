"""FSDP2 of one rank among many that are not there takes what PyTorch's own takes where they are."""

import json
import subprocess
import sys
import textwrap
from itertools import pairwise

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from memory_harness.configs.cards import find_card
from memory_harness.configs.preset import load_preset
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import PhaseRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate.fsdp import mesh_of_absent, sharding_without_peers
from memory_harness.harness.simulate.trace import FREE, SWITCH, TraceRecorder
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.loop import evaluate_batch, load, train_step
from memory_harness.harness.train.run import simulate_card
from memory_harness.probes.plan.predict import uniform_batch

TINY = load_preset("smoke_cpu").with_fields(
    tensors="fake", device="simulated", dtype="bfloat16", gpu="l4", num_gpus=2, sharding="fsdp", gradient_accumulation=2
)
WIDTHS = (6, 5, 3)
"""of a model of two linear layers; neither 5 nor 3 rows are whole shares of two ranks"""


def padded_share(rows: int, columns: int, size: int) -> int:
    """Return the float32 bytes that each rank holds of a matrix."""
    return -(-rows // size) * columns * 4


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_holds_padded_shares_and_gathers_one_layer_after_the_other(size):
    device = SimulatedDevice(find_card("l4"), 2**30, computes=False)
    recorder = TraceRecorder()
    mesh = mesh_of_absent(size)
    with sharding_without_peers(device.tracer), device.tracer:
        layers = [torch.nn.Linear(a, b, bias=False, device="meta") for a, b in pairwise(WIDTHS)]
        model = torch.nn.Sequential(*layers)
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        device.tracer.sink = recorder
        model(torch.empty(2, WIDTHS[0], device="meta"))
    shares = [padded_share(rows, columns, size) for columns, rows in pairwise(WIDTHS)]
    gathered = [size * share for share in shares]
    made = [num_bytes for _, num_bytes, _ in recorder.events if num_bytes >= 0]
    activations = [2 * width * 4 for width in WIDTHS[:1]]
    assert [n for n in made if n in gathered] == [g for g in gathered for _ in ("buffer", "weight")]
    assert sum(made) == sum(activations) + 2 * sum(gathered) + sum(2 * rows * 4 for rows in WIDTHS[1:])
    # buffers come from a stream of their own, and each weight goes before the next comes
    streams = [place.stream for _, kind, place in recorder.events if kind == SWITCH]
    assert set(streams[::2]) - {0}
    assert set(streams[1::2]) == {0}
    assert sum(kind == FREE for _, kind, _ in recorder.events) >= 2 * len(layers)


def peaks(strategy, device):
    """Return what the phases of two steps, an evaluation and one more step take."""
    records = []
    recorder = PhaseRecorder(device, records.append)
    with device.active():
        load(strategy, recorder)
        step = [uniform_batch((1, 64), 2), uniform_batch((1, 64), 2)]
        for recorder.step in (1, 2):
            train_step(strategy, recorder, step, 0.0)
        evaluate_batch(strategy, recorder, uniform_batch((2, 64), 2))
        strategy.end_evaluation()
        recorder.step = 3
        train_step(strategy, recorder, step, 0.0)
    return [(str(r.phase), r.after) for r in records if isinstance(r, PhaseRecord)]


def test_phases_that_are_replayed_take_what_they_take_where_they_run():
    live = simulate_card(TINY, find_card("l4"))
    replayed = simulate_card(TINY, find_card("l4"))
    strategy = CompiledStrategy(QLoraStrategy(TINY, replayed), replayed)
    assert peaks(QLoraStrategy(TINY, live), live) == peaks(strategy, replayed)
    # the first batch of a step has a family of its own: with gradients and without
    assert strategy.num_traced < 10


def named_bytes(strategy, category, *, adapters=False):
    total = 0
    for key, num_bytes in strategy.memory.live():
        if isinstance(key, tuple) and key[0] == category and ("lora_" in key[1]) == adapters:
            total += num_bytes
    return total


@pytest.mark.slow
def test_ranks_share_weights_and_states_and_each_has_the_constants_of_the_quantisation():
    taken = {}
    for size in (2, 8):
        config = TINY.with_fields(num_gpus=size, gradient_accumulation=size)
        device = simulate_card(config, find_card("l4"))
        strategy = CompiledStrategy(QLoraStrategy(config, device), device)
        peaks(strategy, device)
        taken[size] = (
            named_bytes(strategy, "parameter"),
            named_bytes(strategy, "parameter", adapters=True),
            sum(n for key, n in strategy.memory.live() if isinstance(key, tuple) and key[0] == "optimizer_state"),
        )
    adapters = sum(shape[0] * shape[1] for shape in strategy.inner.linear_shapes)
    assert adapters
    weights, lora, states = zip(taken[2], taken[8], strict=True)
    assert lora[0] == 4 * lora[1]
    assert states[0] - states[1] == 2 * (lora[0] - lora[1])  # AdamW keeps two of each weight, and its steps
    constants = (4 * weights[1] - weights[0]) / 3
    assert 0 < constants < weights[1]  # what all have whole does not get less


REAL = """
import json, os, sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

widths = json.loads(sys.argv[1])
distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
layers = [torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
model = torch.nn.Sequential(*layers)
for layer in layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(2, widths[0])).sum().backward()
def memory(tensors):
    seen = {}
    for tensor in tensors:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())
found = [memory(model.parameters()), memory(p.grad for p in model.parameters())]
optimizer.step()
states = [value for state in optimizer.state.values() for value in state.values()]
print(json.dumps([*found, memory(states)]), flush=True)
distributed.destroy_process_group()
"""


def simulated_bytes(size: int, rank: int) -> list[int]:
    """Return what a rank holds after a step, of weights, gradients, and the optimizer's states."""
    device = SimulatedDevice(find_card("l4"), 2**30, computes=False)
    mesh = mesh_of_absent(size, rank)

    def memory(tensors):
        parts = [getattr(tensor, "_local_tensor", tensor).untyped_storage() for tensor in tensors]
        return sum({part._cdata: part.nbytes() for part in parts}.values())

    with sharding_without_peers(device.tracer), device.tracer:
        layers = [torch.nn.Linear(a, b, device="meta") for a, b in pairwise(WIDTHS)]
        model = torch.nn.Sequential(*layers)
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.empty(2, WIDTHS[0], device="meta")).sum().backward()
        found = [memory(model.parameters()), memory(p.grad for p in model.parameters())]
        optimizer.step()
        states = [value for state in optimizer.state.values() for value in state.values()]
        return [*found, memory(states)]


@pytest.mark.slow
def test_two_processes_that_are_there_hold_as_much(tmp_path):
    script = tmp_path / "real.py"
    script.write_text(textwrap.dedent(REAL), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    output = subprocess.run([*command, json.dumps(WIDTHS)], capture_output=True, text=True, check=True, timeout=120)
    ranks = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("[")]
    assert sorted(ranks) == sorted([simulated_bytes(2, 0), simulated_bytes(2, 1)])
    assert max(ranks) == simulated_bytes(2, 0)  # the first rank's shares are padded least
