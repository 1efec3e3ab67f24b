"""On a GPU: what grows is found as on the simulated card, and PyTorch's own snapshots are read."""

import itertools
import json
import os
import statistics
import time
from pathlib import Path

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Outcome, Phase, RunRecord
from memory_harness.harness.log.snapshot import read_snapshot
from tests.harness.observe.loops import Loop

pytestmark = pytest.mark.gpu

BUDGET = 2**30


@pytest.fixture
def device():
    from memory_harness.harness.devices.cuda import CudaDevice

    return CudaDevice(find_card("h100"), BUDGET)


def out_of_memory(device, kept):
    """Keep ever more until nothing is left; return the error as the harness sees it."""
    loop = Loop(device=device)
    try:
        loop.run(lambda loop, loss: kept.append(torch.empty(40 * MIB, dtype=torch.uint8, device="cuda")), 100)
    except torch.OutOfMemoryError as error:
        return device.as_out_of_memory(error)
    raise AssertionError("the budget was not reached")


def test_a_list_that_grows_is_named(device):
    kept, seconds = [], []

    def step(loop, loss):
        loss.backward()
        kept.append(loop.batch())
        torch.cuda.synchronize()
        seconds.append(time.perf_counter())

    (record,) = Loop(device=device).run(step, 40)
    took = [b - a for a, b in itertools.pairwise(seconds)]
    print(json.dumps({"plain_ms": statistics.median(took[12:]) * 1e3, "watched_ms": [t * 1e3 for t in took[6:10]]}))
    assert record.phase is Phase.FORWARD
    assert record.bytes_per_step == 256 * 1024
    assert record.site.endswith(" batch")
    assert "tests/harness/observe/loops.py" in record.site
    assert "`kept`" in record.holder
    assert record.shape == (256, 256)


def test_a_kept_graph_is_traced_to_the_loss(device):
    losses = []
    records = Loop(device=device).run(lambda loop, loss: losses.append(loss))
    assert records
    assert all(record.has_grad_fn and "`losses`" in record.holder for record in records)


def test_pytorch_s_snapshot_of_an_out_of_memory_is_read(device, tmp_path):
    folder = Path(os.environ.get("OUT", tmp_path))
    device.record_history()
    kept = []
    error = out_of_memory(device, kept)
    run = RunRecord("cuda", {}, "", "", BUDGET, 0, 0, 0, 0, "", {}, "")
    device.write_history(folder / "cuda_oom.pickle", run)
    log = read_snapshot(folder / "cuda_oom.pickle").log
    oom = log.fatal_oom
    assert log.outcome is Outcome.OOM
    assert oom.requested_bytes == 40 * MIB
    assert oom.phase is Phase.FORWARD
    assert (oom.allocated_bytes, oom.reserved_bytes) == (error.allocated_bytes, error.reserved_bytes)
    assert oom.where.startswith("tests/gpu/test_cuda_memory_history.py:")
    largest = max(oom.live_bytes, key=oom.live_bytes.get)
    assert largest.startswith("tests/gpu/test_cuda_memory_history.py:")
    assert oom.live_bytes[largest] == len(kept) * 40 * MIB
    torch.cuda.memory._record_memory_history(None)
