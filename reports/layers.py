"""What each layer of a model holds at the peaks of phases; layers that hold the same are told together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from memory_harness.harness.log.records import PeakRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports import blocks
from memory_harness.reports.blocks import Cell, Section, Table
from memory_harness.reports.contents import MAX_COLUMNS, highest_peaks, kinds_of, number
from memory_harness.reports.text import table_unit

OUTSIDE = "outside of layers"
_MADE_BY_LAYERS = ("activations", "logits")
"""kinds of what a pass through the model makes"""
_DIGITS = re.compile(r"(\d+)")

Sizes = Mapping[str, int]
"""bytes by kind"""


class AlikeLayers(NamedTuple):
    """Layers that follow one another and hold the same; the last one is the first where it is alone."""

    first: str
    last: str
    num_layers: int
    each: Any

    @property
    def title(self) -> str:
        """`layers.0–31, each`, or the layer's own name."""
        return self.first if self.num_layers == 1 else f"{self.first}–{self.last.rpartition('.')[2]}, each"


def alike(layers: Mapping[str, Any]) -> list[AlikeLayers]:
    """Return layers, by name, in their order; what they hold is anything that can be compared."""
    found: list[AlikeLayers] = []
    for name in sorted(layers, key=_natural):
        before = found[-1] if found else None
        if before is not None and _follows(before.last, name) and before.each == layers[name]:
            found[-1] = before._replace(last=name, num_layers=before.num_layers + 1)
        else:
            found.append(AlikeLayers(name, name, 1, layers[name]))
    return found


def _follows(before: str, name: str) -> bool:
    stem, _, digits = name.rpartition(".")
    stem_before, _, digits_before = before.rpartition(".")
    return (
        stem == stem_before and digits.isdigit() and digits_before.isdigit() and int(digits) == int(digits_before) + 1
    )


def _natural(layer: str) -> tuple[bool, list[str | int]]:
    """Return what sorts `layers.10` after `layers.9`, and what has no number after what has."""
    pieces = _DIGITS.split(layer)
    return len(pieces) == 1, [int(piece) if piece.isdigit() else piece for piece in pieces]


def layers_section(log: RunLog, part: str, *, in_terminal: bool) -> Section:
    """Return the section about a run: in a terminal what passes make in each layer, on a page all that each holds."""
    peaks = [record for record in highest_peaks(log).values() if record.layers]
    if not peaks:
        return Section("layers")
    marked = [record for record in peaks if _is_marked(record)]
    highest = sorted(marked, key=lambda record: -record.allocated_bytes)[:MAX_COLUMNS]
    columns = [record for record in marked if record in highest]
    unit, unit_bytes = table_unit(_middle(_each_layer(columns)))
    body = [_activations(columns, unit_bytes)] if columns and in_terminal else []
    intro = "What each layer holds at the highest moment of each phase, as far as tensors have names."
    if marked:
        intro = (
            "What each layer holds at the highest moment of each phase: by the names of tensors, and by the layer that "
            "made them."
        )
    if body:
        intro += f" The first table is of activations and logits alone, in {unit}."
    most = max(record.allocated_bytes for record in peaks)
    details = [_folded(record, part, is_open=record.allocated_bytes == most) for record in peaks]
    aside = f"activations and logits of each at the peaks, in {unit}"
    return Section("layers", "By layer", part, aside if columns else "", intro, body, details)


def _is_marked(record: PeakRecord) -> bool:
    """Return whether it was followed which layer ran; logs of before, and models that are compiled, do not say it."""
    return any(_made(sizes) for sizes in record.layers.values())


def _made(sizes: Sizes) -> int:
    return sum(sizes.get(kind, 0) for kind in _MADE_BY_LAYERS)


def _each_layer(peaks: Iterable[PeakRecord]) -> Iterator[int]:
    for record in peaks:
        yield from map(_made, record.layers.values())


def _middle(sizes: Iterable[int]) -> int:
    """Return the size of the middle one of layers: an output layer may hold a hundred times as much."""
    found = sorted(filter(None, sizes))
    return found[len(found) // 2] if found else 0


def _activations(peaks: Sequence[PeakRecord], unit_bytes: int) -> Table:
    """Return what passes made that lives at each phase's peak, by layer."""
    by_layer: dict[str, list[str]] = {}
    for layer in {name: None for record in peaks for name in record.layers}:
        sizes = [_made(record.layers.get(layer, {})) for record in peaks]
        if any(sizes):
            by_layer[layer] = [number(size, unit_bytes) for size in sizes]
    rows: list[list[str | Cell]] = [[layers.title, *layers.each] for layers in alike(by_layer)]
    totals = [_made(record.kinds) for record in peaks]
    outside = [total - sum(_each_layer([record])) for total, record in zip(totals, peaks, strict=True)]
    rows.append([OUTSIDE, *(number(max(0, size), unit_bytes) for size in outside)])
    rows.append([Cell("together", "strong"), *(Cell(number(total, unit_bytes), "strong") for total in totals)])
    names = [str(record.phase) for record in peaks]
    return Table(("", *names), rows, right=names)


def _folded(record: PeakRecord, part: str, *, is_open: bool) -> blocks.Folded:
    """Return all that each layer holds at a peak."""
    kinds = kinds_of_layers(record)
    unit, unit_bytes = table_unit(_middle(sum(sizes.values()) for sizes in record.layers.values()))
    rows: list[list[str | Cell]] = []
    for layers in alike(record.layers):
        rows.append([layers.title, *_cells(layers.each, kinds, unit_bytes)])
    if _is_marked(record):
        rows.append([OUTSIDE, *_cells(outside_of_layers(record), kinds, unit_bytes)])
    columns = (*kinds, "all")
    table = Table(("layer", *columns), rows, right=columns)
    return blocks.Folded(f"At the peak of {record.phase}, {part}, in {unit}", table, is_open=is_open)


def _cells(sizes: Sizes, kinds: Sequence[str], unit_bytes: int) -> list[str]:
    return [number(size, unit_bytes) for size in (*(sizes.get(kind, 0) for kind in kinds), sum(sizes.values()))]


def kinds_of_layers(record: PeakRecord) -> list[str]:
    """Return the kinds that layers hold at a peak."""
    held = {kind for sizes in record.layers.values() for kind in sizes}
    return [kind for kind in kinds_of([record]) if kind in held]


def outside_of_layers(record: PeakRecord) -> dict[str, int]:
    """Return what is left of those kinds."""
    rest = {}
    for kind in kinds_of_layers(record):
        in_layers = sum(sizes.get(kind, 0) for sizes in record.layers.values())
        rest[kind] = max(0, record.kinds[kind] - in_layers)
    return rest


def memory_to_json(log: RunLog) -> dict[str, Any]:
    """Return what lived at the peak of each phase, for programs."""
    found: dict[str, Any] = {}
    for phase, record in highest_peaks(log).items():
        layers = []
        for group in alike(record.layers):
            layers.append({"first": group.first, "last": group.last, "count": group.num_layers, "each": group.each})
        found[phase] = {
            "step": record.step,
            "allocated_bytes": record.allocated_bytes,
            "reserved_bytes": record.reserved_bytes,
            "kinds": record.kinds,
            "layers": layers,
        }
    return found
