"""Host memory that grows while the device does not: which line allocates it, and which container keeps it."""

import itertools
import tracemalloc

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import HOST_STEPS
from memory_harness.harness.observe.host_memory import HostWatch
from memory_harness.harness.observe.live_objects import summed_losses
from memory_harness.harness.observe.own_loop import Recorder
from tests.harness.observe.loops import Loop

MIB = 2**20


def watched(num_steps, work, allocated_bytes=lambda step: 0):
    records = []
    watch = HostWatch(records.append)
    for step in range(num_steps):
        work(step)
        watch.end_step(step, step * MIB, allocated_bytes(step))
    watch.stop()
    assert not tracemalloc.is_tracing()
    return records


def test_the_line_and_the_container_are_named():
    rows = []
    (record,) = watched(20, lambda step: rows.append(bytes(MIB)))
    assert record.unit == HOST_STEPS
    assert "`rows`" in record.holder
    assert record.bytes_per_step == pytest.approx(MIB, rel=0.01)
    assert record.kept_by == record.made_by
    assert "rows.append(bytes(MIB))" in record.made_by


def climbs(watch):
    for step in range(12):
        watch.end_step(step, step * MIB, 0)
    assert tracemalloc.is_tracing()


def test_a_run_that_is_dropped_leaves_no_tracing():
    watch = HostWatch(lambda record: None)
    climbs(watch)
    del watch
    assert not tracemalloc.is_tracing()


def test_a_loop_that_fails_leaves_no_tracing(tmp_path):
    def climb_and_fail():
        with Recorder.open(tmp_path / "run.jsonl", device="simulated") as recorder:
            climbs(recorder.phase_recorder.host)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        climb_and_fail()
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("runs", [True, False])
def test_only_where_phases_run_a_process_that_grows_is_looked_at(runs):
    """What is recorded of phases to be replayed grows, and would be recorded at half the speed."""

    class Device(SimulatedDevice):
        shows_peaks = runs

    loop, resident, traced = Loop(device=Device(find_card("t4"), 2**30, computes=True)), itertools.count(step=MIB), []
    loop.recorder._resident.num_bytes = lambda: next(resident)
    loop.run(lambda loop, loss: traced.append(tracemalloc.is_tracing()))
    loop.recorder.stop()
    assert any(traced) is runs


def test_what_python_did_not_allocate_is_not_named():
    assert watched(20, lambda step: None) == []


def test_growth_that_has_ended_when_it_is_looked_at_is_nobodys():
    """A cache that has filled up: a line that keeps a few bytes then is not what made the process grow."""
    notes, records = [], []
    watch = HostWatch(records.append)
    for step in range(20):
        notes.append(bytes(400))
        watch.end_step(step, min(step, 8) * MIB, 0)
    watch.stop()
    assert records == []


def test_a_device_that_grows_as_well_is_no_matter_of_the_host():
    rows = []
    assert watched(20, lambda step: rows.append(bytes(MIB)), lambda step: step * MIB) == []


def summed(num_steps, add):
    weight = torch.ones(4, requires_grad=True)
    total = torch.zeros(())
    for _ in range(num_steps):
        loss = (weight * 2).sum()
        loss.backward()
        total = add(total, loss)
    return summed_losses(10)


def test_a_sum_of_losses_with_their_graphs_is_found():
    holder, num_losses = summed(12, lambda total, loss: total + loss / 12)
    assert "`total`" in holder.words
    assert num_losses >= 11


@pytest.mark.parametrize("add", [lambda total, loss: total + loss.detach(), lambda total, loss: loss])
def test_numbers_and_the_last_loss_alone_are_none(add):
    assert summed(12, add) is None
