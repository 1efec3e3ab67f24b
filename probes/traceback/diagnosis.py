"""A pasted out-of-memory taken apart: phase, place, who held the memory, and the causes that the text speaks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memory_harness.harness.log.records import BatchShape, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.traceback_text import HOST, OomTraceback
from memory_harness.probes.detectors import DETECTORS, detect
from memory_harness.probes.detectors.analysis import Product, factor_request
from memory_harness.probes.findings import UNEXPLAINED_GROWTH
from memory_harness.probes.traceback.account import account_of
from memory_harness.probes.traceback.guesses import guesses
from memory_harness.probes.traceback.places import family_of, phase_of, place_of
from memory_harness.probes.traceback.rules import HOST_RULES, RULES, Candidate, Reading, Simulated


@dataclass(frozen=True)
class Diagnosis:
    """What a traceback tells."""

    reading: Reading
    candidates: tuple[Candidate, ...]
    """the likely ones first"""

    @property
    def cause(self) -> str | None:
        """The cause that is likely; None where the text is not enough to name one."""
        first = next(iter(self.candidates), None)
        return first.cause if first is not None and first.is_likely else None


def diagnose(traceback: OomTraceback, simulated_log: RunLog | None = None) -> Diagnosis:
    """Return what a traceback tells; the log is that of a simulation of the same run, where one was made."""
    phase, found = phase_of(traceback.frames), place_of(traceback.frames)
    place, where = found or (None, None)
    simulated = None if simulated_log is None else _simulated(simulated_log)
    family, requested = family_of(traceback.frames), traceback.message.requested_bytes
    reading = Reading(
        traceback,
        account_of(traceback.message),
        phase,
        place,
        where,
        family,
        guesses(place.id, family, requested) if place and requested and simulated is None else (),
        () if simulated is None else _products(traceback, phase, simulated.log),
        simulated,
    )
    return Diagnosis(reading, _candidates(reading))


def _candidates(reading: Reading) -> tuple[Candidate, ...]:
    """Return what the rules find."""
    rules = HOST_RULES if reading.message.device == HOST else RULES
    return in_order(filter(None, (rule(reading) for rule in rules)))


def in_order(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return one candidate for each cause, the likely first, then in the order in which findings are shown."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        earlier = found.get(candidate.cause)
        found[candidate.cause] = candidate if earlier is None else earlier.joined(candidate)
    order = list(DETECTORS)
    return tuple(sorted(found.values(), key=lambda one: (not one.is_likely, order.index(one.cause))))


def _simulated(log: RunLog) -> Simulated:
    causes = [finding.cause for finding in detect(log) if finding.severity == "error"]
    known = [cause for cause in causes if cause != UNEXPLAINED_GROWTH]
    return Simulated(log, next(iter(known), None))


def _products(traceback: OomTraceback, phase: Phase | None, log: RunLog) -> tuple[Product, ...]:
    """Return what of the model has the size of the request, with the batches that the simulation had in that phase."""
    requested = traceback.message.requested_bytes
    if requested is None or log.run.model is None:
        return ()
    found: dict[str, Product] = {}
    for batch in _largest_batches(log, phase):
        for product in factor_request(requested, batch, log.run.model, rounded=True):
            found.setdefault(str(product), product)
    return tuple(found.values())


def _largest_batches(log: RunLog, phase: Phase | None) -> list[BatchShape | None]:
    """Return every shape of a batch that the simulation had in that phase, the largest first."""
    oom = log.fatal_oom
    records = [(record.phase, record.batch) for record in log.phases]
    if oom is not None:
        records.append((oom.phase, oom.batch))
    shapes: dict[tuple[int, int], BatchShape] = {}
    for of_phase, batch in records:
        if batch is not None and phase in (None, of_phase):
            shapes[batch.batch_size, batch.padded_length] = batch
    ordered = sorted(shapes.values(), key=lambda batch: -batch.padded_tokens)
    return [*ordered, None]
