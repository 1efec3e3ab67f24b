"""Long logs: small, and the detectors say the same of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import (
    BatchShape,
    EndRecord,
    MemoryStats,
    OomRecord,
    Outcome,
    Phase,
    PhaseBegin,
    PhaseRecord,
    Record,
    StepRecord,
    run_record_of,
)
from memory_harness.harness.log.runlog import LogWriter, RunLog, collect, read_run_log
from memory_harness.harness.observe.thinning import FULL_STEPS, INTERVAL, LogThinning
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.evidence import step_growth

Floor = Callable[[int], int]
RUN = dataclasses.replace(run_record_of("simulated", "T4", 2**34), script="train.py")
PHASES = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)


def records_of_step(step: int, floor: Floor, length: int = 64, peak: int = 0) -> list[Record]:
    """What a step whose floor is given writes, with a peak in its backward pass."""
    records: list[Record] = []
    for phase in PHASES:
        before = floor(step - 1) if phase is Phase.DATA else floor(step)
        top = floor(step) + 8 * MIB + peak * (phase is Phase.BACKWARD)
        after = MemoryStats(floor(step), 2 * top, floor(step), 0, top, 2 * top)
        batch = BatchShape(2, length, (), 0)
        records.append(PhaseBegin(phase, step, 0, 1))
        records.append(PhaseRecord(phase, step, 0, 1, 0.001234, before, top, after, 0, batch, 10**9))
    records.append(StepRecord(step, 1, 1, (), 1.0, 0, None, 1e-3, 0.005678, floor(step), 2 * MIB, 0, 10**9))
    return records


def logged(steps: int, floor: Floor, peaks: dict[int, int] | None = None, *, thinned: bool) -> RunLog:
    written: list[Record] = []
    write = LogThinning(written.append).write if thinned else written.append
    write(RUN)
    for step in range(1, steps + 1):
        for record in records_of_step(step, floor, peak=(peaks or {}).get(step, 0)):
            write(record)
    write(EndRecord(Outcome.COMPLETED, steps, 1.0))
    return collect(written)


def flat(step: int) -> int:
    return 32 * MIB


def every_step(step: int) -> int:
    return (32 + step) * MIB


def at_interval(step: int) -> int:
    return (32 + step // 70) * MIB


def late(step: int) -> int:
    return (32 + max(0, step - 2000)) * MIB


def late_and_at_interval(step: int) -> int:
    return (32 + max(0, step - 1500) // 70) * MIB


@pytest.mark.parametrize("floor", [flat, every_step, at_interval, late, late_and_at_interval])
def test_the_detectors_say_the_same(floor):
    whole, thin = logged(3000, floor, thinned=False), logged(3000, floor, thinned=True)
    assert len(thin.phases) < len(whole.phases) / 2
    assert step_growth(thin) == [
        dataclasses.replace(step, has_new_length=step.step == 1, has_new_longest=step.step == 1)
        for step in step_growth(whole)
    ]
    assert detect(thin) == detect(whole)


def test_every_peak_and_the_last_step_are_there():
    peaks = {1234: 5 * MIB, 1243: 4 * MIB, 1600: 6 * MIB, 1777: 6 * MIB + 512}
    whole, thin = logged(1990, flat, peaks, thinned=False), logged(1990, flat, peaks, thinned=True)
    assert thin.peaks() == whole.peaks()
    assert {1234, 1600, 1777} <= {record.step for record in thin.phases}
    assert [record.phase for record in thin.phases if record.step == 1990] == list(PHASES)
    assert [record.step for record in thin.steps] == list(range(1, 1991))


def test_a_new_length_and_what_ran_out_of_memory_are_there():
    written: list[Record] = []
    thinning = LogThinning(written.append)
    thinning.write(RUN)
    for step in range(1, FULL_STEPS + 20):
        for record in records_of_step(step, flat, length=32 if step == FULL_STEPS + 7 else 64):
            thinning.write(record)
    thinning.write(PhaseBegin(Phase.FORWARD, FULL_STEPS + 20, 0, 1))
    thinning.write(OomRecord(Phase.FORWARD, FULL_STEPS + 20, 0, 1, 1, 1, 1, 1, 1, 0))
    log = collect(written)
    shown = {record.step for record in log.phases}
    assert {FULL_STEPS + 7, FULL_STEPS + 19} <= shown
    assert FULL_STEPS + 12 not in shown
    assert log.outcome is Outcome.OOM


def test_the_log_of_fifty_thousand_steps_is_small(tmp_path: Path):
    """The size of the first 4000 steps tells that of all: beyond the first hundreds each takes the same."""
    sizes = {}
    for steps in (2000, 4000):
        path = tmp_path / f"{steps}.jsonl"
        with LogWriter(path) as writer:
            thinning = LogThinning(writer.write)
            thinning.write(RUN)
            for step in range(1, steps + 1):
                for record in records_of_step(step, every_step):
                    thinning.write(record)
        sizes[steps] = path.stat().st_size
    per_step = (sizes[4000] - sizes[2000]) / 2000
    assert sizes[2000] + 48_000 * per_step <= 20 * 10**6
    assert len(read_run_log(tmp_path / "4000.jsonl").steps) == 4000
    assert INTERVAL < FULL_STEPS
