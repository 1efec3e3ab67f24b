"""A run over time as a trace of events: phases, steps and memory, for ui.perfetto.dev and chrome://tracing.

Source: the Trace Event Format of Chrome's about:tracing; times are microseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from typing import Any

from memory_harness.harness.log.records import IN_STEP, PhaseRecord, StepRecord
from memory_harness.harness.log.runlog import RunLog

PHASES, STEPS = 1, 2  # tracks

Event = dict[str, Any]


def perfetto_text(log: RunLog) -> str:
    """Return the content of the file; of steps whose phases the log leaves out, the step alone."""
    events = ",\n".join(json.dumps(event, ensure_ascii=False) for event in trace_events(log))
    return f'{{"traceEvents": [\n{events}\n]\n}}\n'


def trace_events(log: RunLog) -> Iterator[Event]:
    """Yield the events: names, then phases and steps one after another as long as they took, and memory with them."""
    yield _name("process_name", 0, f"{log.run.model.name if log.run.model else log.run.script or 'run'}")
    yield _name("thread_name", PHASES, "phases")
    yield _name("thread_name", STEPS, "steps")
    seconds = 0.0
    pending = {step.step: step for step in log.steps}
    begun: dict[int, float] = {}
    for record in log.phases:
        # an evaluation after a step has the step's number
        last = record.step - (record.phase in IN_STEP)
        for number in [number for number in pending if number <= last]:
            seconds = yield from _end_step(pending.pop(number), begun, seconds)
        begun.setdefault(record.step, seconds)
        yield from _phase(record, seconds)
        seconds += record.seconds
    for step in pending.values():
        seconds = yield from _end_step(step, begun, seconds)
    oom = log.fatal_oom
    if oom is not None:
        args = {"requested_bytes": oom.requested_bytes, "where": oom.where}
        yield {"name": "out of memory", "ph": "i", "s": "p", "pid": 0, "tid": PHASES, "ts": _us(seconds), "args": args}


def _phase(record: PhaseRecord, seconds: float) -> Iterator[Event]:
    after, end = record.after, seconds + record.seconds
    args = {"step": record.step, "peak_allocated_bytes": after.peak_allocated_bytes}
    args["peak_reserved_bytes"] = after.peak_reserved_bytes
    if record.batch is not None:
        args["padded_tokens"] = record.batch.padded_tokens
    yield _stretch(str(record.phase), PHASES, seconds, record.seconds, args)
    # the peak lies somewhere within; drawn at the middle, between what was there before and after
    yield _memory(seconds, record.allocated_before_bytes, record.reserved_before_bytes)
    yield _memory((seconds + end) / 2, after.peak_allocated_bytes, after.peak_reserved_bytes)
    yield _memory(end, after.allocated_bytes, after.reserved_bytes)


def _end_step(step: StepRecord, begun: dict[int, float], seconds: float) -> Generator[Event, None, float]:
    """Yield a step, whose phases end here where there are any; return the time after it."""
    begin = begun.get(step.step, seconds)
    end = seconds if step.step in begun else seconds + step.seconds
    loss = step.loss if step.loss is not None and math.isfinite(step.loss) else None  # JSON has no NaN
    yield _stretch(f"step {step.step}", STEPS, begin, end - begin, {"loss": loss, "epoch": step.epoch})
    if loss is not None:
        yield {"name": "loss", "ph": "C", "pid": 0, "ts": _us(end), "args": {"loss": loss}}
    if step.step not in begun:
        yield _memory(end, step.allocated_bytes, step.reserved_bytes)
    return end


def _stretch(name: str, track: int, seconds: float, length: float, args: Event) -> Event:
    place = {"pid": 0, "tid": track, "ts": _us(seconds), "dur": _us(length)}
    return {"name": name, "ph": "X", **place, "args": args}


def _memory(seconds: float, allocated: int, reserved: int) -> Event:
    args = {"allocated": allocated, "cached": max(0, reserved - allocated)}
    return {"name": "memory", "ph": "C", "pid": 0, "ts": _us(seconds), "args": args}


def _name(kind: str, track: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)
