"""The report on a pasted out-of-memory, as blocks and as JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from memory_harness.configs.printable import json_text
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import MemoryStats, Outcome
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.source_lines import SourceLine
from memory_harness.harness.log.traceback_text import HOST, Frame
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.traceback.diagnosis import Diagnosis
from memory_harness.probes.traceback.rules import Candidate
from memory_harness.reports.blocks import Banner, Block, Paragraph, Section, Table, facts
from memory_harness.reports.json import head
from memory_harness.reports.next_step import after_traceback, next_section
from memory_harness.reports.summary import NextStep, source_in_words
from memory_harness.reports.text import plural, wording

FROM_TEXT = "Read from the text of a traceback"
_OF_A_LIBRARY = re.compile(r"(?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python\d|^<(?!ipython)")
"""Paths of files that are not the user's, whatever machine they are on."""
MAX_FRAMES = 6
"""Frames that a terminal shows; a page shows all."""


def traceback_sections(diagnosis: Diagnosis) -> list[Section]:
    """Return the sections in the order in which they are shown."""
    makers = (_verdict, _why, _numbers, _where, _simulated, _next)
    return list(chain.from_iterable(make(diagnosis) for make in makers))


def traceback_banner(diagnosis: Diagnosis) -> Banner:
    """Return what happened, in a sentence."""
    reading, message = diagnosis.reading, diagnosis.reading.message
    phase = wording("phases")[reading.phase] if reading.phase else "the run"
    parts = [f"{phase[0].upper()}{phase[1:]} asked for {format_bytes(reading.requested)}"]
    if not reading.requested:
        parts = [f"{phase[0].upper()}{phase[1:]} got no memory; the message does not say how much was asked for"]
    if message.free_bytes is not None:
        parts.append(f"{format_bytes(message.free_bytes)} of the card was free")
    sentence = "; ".join(parts) + "."
    if diagnosis.cause is not None:
        sentence += f" Likely cause: {diagnosis.cause}."
    else:
        sentence += " The text is not enough to name a cause."
    title = "HOST OUT OF MEMORY" if message.device == HOST else "OUT OF MEMORY"
    gpu = f", GPU {message.gpu}" if message.gpu is not None else ""
    return Banner(title, sentence, "bad", f"from the text of a traceback{gpu}")


def _verdict(diagnosis: Diagnosis) -> Iterator[Section]:
    body: list[Block] = [traceback_banner(diagnosis)]
    others = diagnosis.reading.traceback.num_messages - 1
    if others:
        verb = "follows" if others == 1 else "follow"
        body.append(
            Paragraph(f"{plural(others, 'other message')} of an out-of-memory {verb} or precede it: not shown.")
        )
    yield Section("verdict", body=body)


def _why(diagnosis: Diagnosis) -> Iterator[Section]:
    yield causes_section(diagnosis.candidates)


def causes_section(candidates: Sequence[Candidate]) -> Section:
    """Return causes with what speaks for and against each; without any it has nothing to draw."""
    blocks = list(chain.from_iterable(map(_candidate, candidates)))
    is_likely = any(candidate.is_likely for candidate in candidates)
    return Section("causes", "Causes", aside="" if is_likely else "possible ones: none is shown", body=blocks)


def _candidate(candidate: Candidate) -> Iterator[Block]:
    cause = load_causes()[candidate.cause]
    yield Paragraph(f"{candidate.cause} ({'likely' if candidate.is_likely else 'possible'}): {cause.title}", "strong")
    rows = {
        "for it": "\n".join(candidate.speaks_for),
        "against it": "\n".join(candidate.speaks_against),
        "to be sure": cause.decisive_test,
        "helps": cause.fix,
    }
    yield facts(rows)


def _numbers(diagnosis: Diagnosis) -> Iterator[Section]:
    message, account = diagnosis.reading.message, diagnosis.reading.account
    sizes = {
        "asked for": message.requested_bytes,
        "free on the card": message.free_bytes,
        "the card has": message.total_bytes,
        "allowed to this process": message.allowed_bytes,
        "allocated by PyTorch": message.allocated_bytes,
        "reserved by PyTorch": message.reserved_bytes,
        "of it unused": message.unused_bytes,
        "in private pools": message.private_pool_bytes,
        "this process besides": account.outside_bytes,
        "other processes": account.others_bytes,
        "neither free nor PyTorch's": account.unknown_bytes,
    }
    rows = {name: "" if size is None else format_bytes(size) for name, size in sizes.items()}
    remarks = [Paragraph(remark, "warning") for remark in account.remarks]
    yield Section("numbers", "What the message says", aside="rounded as printed", body=[facts(rows), *remarks])


def _where(diagnosis: Diagnosis) -> Iterator[Section]:
    reading = diagnosis.reading
    frames = reading.traceback.frames
    shown = frames[:1] if reading.where is None else (reading.where,)
    own = [frame for frame in frames if not _OF_A_LIBRARY.search(frame.path) and frame not in shown]
    rows = {
        "phase": wording("phases")[reading.phase] if reading.phase else "",
        "doing": reading.place.words if reading.place else "",
        "helps": reading.place.helps if reading.place else "",
        "model": reading.family,
        "at": "\n".join(map(frame_in_words, shown)),
        "called from": "\n".join(map(frame_in_words, own[:MAX_FRAMES])),
        "size of": "\n".join(f"{product.what}: {product}" for product in reading.products),
        "may be": "\n".join(reading.guesses),
    }
    if not frames:
        rows["frames"] = "none: paste the text from `Traceback` on to learn more"
    table = Table(("frame, the innermost first", "code"), [[_place(frame), frame.code] for frame in frames])
    yield Section("where", "Where it happened", body=[facts(rows)], details=[table] if frames else [])


def frame_in_words(frame: Frame) -> str:
    """Return a frame with its code, in a line."""
    return f"{_place(frame)}: {frame.code}" if frame.code else _place(frame)


def _place(frame: Frame) -> str:
    return str(SourceLine(frame.path, frame.line, frame.function))


def _simulated(diagnosis: Diagnosis) -> Iterator[Section]:
    """What the simulation of the same run came to, in the phase of the traceback."""
    reading = diagnosis.reading
    if reading.simulated is None:
        return
    log, message = reading.simulated.log, reading.message
    oom = log.fatal_oom
    peak = (log.peaks().get(reading.phase) if reading.phase else None) or MemoryStats()
    requested = oom.requested_bytes if oom is not None and oom.phase is reading.phase else 0
    rows = []
    sizes = {
        "asked for": (message.requested_bytes, requested),
        "allocated": (message.allocated_bytes, peak.peak_allocated_bytes),
        "reserved": (message.reserved_bytes, peak.peak_reserved_bytes),
    }
    for name, (said, simulated) in sizes.items():
        cells = [format_bytes(said) if said is not None else "–", format_bytes(simulated) if simulated else "–"]
        rows.append([name, *cells])
    table = Table(("", "the traceback", "simulated"), rows, right=("the traceback", "simulated"))
    aside = f"peaks in {reading.phase}" if reading.phase else ""
    yield Section("simulated", "The same run simulated", aside=aside, body=[table, Paragraph(_how_it_ends(log))])


def _how_it_ends(log: RunLog) -> str:
    where = source_in_words(log)
    budget = format_bytes(log.run.budget_bytes)
    if log.fatal_oom is None:
        end = "completes" if log.outcome is Outcome.COMPLETED else "does not end"
        return f"{where}, {budget} for PyTorch: the run {end}, so that the recipe alone does not explain the failure."
    oom = log.fatal_oom
    asked = f"asking for {format_bytes(oom.requested_bytes)}"
    return f"{where}, {budget} for PyTorch: it dies in {oom.phase} of step {oom.step}, {asked}."


def _step(diagnosis: Diagnosis) -> NextStep:
    simulated = diagnosis.reading.simulated
    return after_traceback(diagnosis.cause, None if simulated is None else simulated.log)


def _next(diagnosis: Diagnosis) -> Iterator[Section]:
    if diagnosis.cause is not None or diagnosis.reading.simulated is not None:
        yield next_section(_step(diagnosis))
        return
    words = (
        "To learn more: add --model NAME, --preset FILE or --import-recipe FILE, and the run is simulated beside it; "
        "or record the run with torch.cuda.memory._record_memory_history(), dump a snapshot, and give it to --replay."
    )
    yield next_section(_step(diagnosis), [Paragraph(words)])


def traceback_json(diagnosis: Diagnosis) -> str:
    """Return the content of the JSON file. Bytes are integers."""
    reading = diagnosis.reading
    content: dict[str, Any] = {
        **head("traceback", _step(diagnosis)),
        "source": "traceback",
        "verdict": "fail",
        "cause": diagnosis.cause,
        "causes": causes_json(diagnosis.candidates),
        "phase": reading.phase,
        "place": reading.place.id if reading.place else None,
        "where": _place(reading.where) if reading.where else None,
        "model_family": reading.family or None,
        "message": dataclasses.asdict(reading.message) | {"reserved_bytes": reading.message.reserved_bytes},
        "account": dataclasses.asdict(reading.account),
        "readings": [f"{product.what}: {product} ({product.legend})" for product in reading.products],
        "guesses": list(reading.guesses),
        "frames": [frame._asdict() for frame in reading.traceback.frames],
        "num_messages": reading.traceback.num_messages,
        "simulated": _simulated_json(diagnosis),
    }
    return json_text(content)


def causes_json(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return causes as plain data."""
    found = []
    for candidate in candidates:
        strength = "likely" if candidate.is_likely else "possible"
        reasons = {"for": list(candidate.speaks_for), "against": list(candidate.speaks_against)}
        found.append({"cause": candidate.cause, "strength": strength, **reasons})
    return found


def _simulated_json(diagnosis: Diagnosis) -> dict[str, Any] | None:
    simulated = diagnosis.reading.simulated
    if simulated is None:
        return None
    log, oom = simulated.log, simulated.log.fatal_oom
    phases = {phase: dataclasses.asdict(stats) for phase, stats in log.peaks().items()}
    failed = None if oom is None else {"phase": oom.phase, "step": oom.step, "requested_bytes": oom.requested_bytes}
    return {
        "configuration": log.run.config or None,
        "versions": log.run.environment,
        "budget_bytes": log.run.budget_bytes,
        "outcome": log.outcome,
        "cause": simulated.cause,
        "oom": failed,
        "phases": phases,
    }
