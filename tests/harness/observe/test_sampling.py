"""Steps that are not traced: few of a flat loop are, and what changes later is still seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Outcome, Record
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.observe.own_loop import choose_device
from memory_harness.harness.observe.sampling import MIN_REST, WARM_UP_STEPS
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.probes.detectors import detect


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def watched(loop: Callable[[], None]) -> RunLog:
    written: list[Record] = []
    device = choose_device("simulated", None, None)
    if device.heap_bytes() is None:
        pytest.skip("the C library does not tell how much memory is in use, so that each step is traced")
    observer = ScriptObserver(device, written.append, "loop.py")
    with observer.running():
        loop()
    observer.end_script()
    observer.end_log(Outcome.COMPLETED, "", 1.0)
    return collect(written)


def loop(steps: int, *, keep: Callable[[int], object] = lambda step: None, long_step: int = 0) -> Callable[[], None]:
    def run() -> None:
        model = nn.Linear(64, 64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        kept = []
        for step in range(1, steps + 1):
            batch = torch.ones(4096 if step == long_step else 8, 64)
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.append(keep(step))

    return run


@pytest.mark.slow
def test_few_steps_of_a_flat_loop_that_keeps_numbers_are_traced_and_nothing_is_found():
    log = watched(loop(500, keep=float))
    assert log.run.total_steps == 500
    assert WARM_UP_STEPS <= len(log.steps) < 200
    assert max(step.step for step in log.steps) > 500 - 2 * MIN_REST
    assert len({step.allocated_bytes for step in log.steps[2:]}) == 1
    assert detect(log) == []


@pytest.mark.slow
def test_a_leak_that_begins_during_a_rest_is_noticed_with_who_holds_it():
    log = watched(loop(320, keep=lambda step: torch.zeros(2**16) if step > 220 else None))
    (finding,) = [finding for finding in detect(log) if finding.severity != "info"]
    assert str(finding.where).startswith("tests/harness/observe/test_sampling.py:")
    assert finding.bytes > 16 * MIB
    assert {survivor.bytes_per_step for survivor in log.survivors} == {2**18}


@pytest.mark.slow
def test_the_peak_of_a_larger_batch_during_a_rest_is_there():
    highest = [watched(loop(240, long_step=step)).peak_allocated_bytes for step in (50, 230)]
    assert highest[0] > 4 * MIB
    assert highest[0] <= highest[1] <= highest[0] + 64 * 1024


@pytest.mark.slow
def test_the_weights_are_those_of_a_loop_that_nobody_watches():
    def train() -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(130):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).sum().backward()
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    found: list[torch.Tensor] = []
    watched(lambda: found.append(train()))
    assert torch.equal(found[0], train())
