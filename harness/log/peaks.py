"""What lived at the peak of a phase, added up into a record: by kind, by layer, and by the calls that made it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from memory_harness.configs.printable import inert
from memory_harness.harness.log.records import PeakRecord, Phase
from memory_harness.harness.log.source_lines import SourceLine, is_harness

KINDS = (
    "weights", "adapters", "gathered", "gradients", "optimizer", "activations", "logits", "kv cache", "inputs",
    "workspaces", "made before", "rounding", "did not fit",
)  # fmt: skip
"""What memory is for, in the order in which it is shown; lines of code take the place where nothing tells of it."""

MAX_STACKS = 200
"""Stacks of one record; the others are one."""
MAX_LAYERS = 256
MIN_REST_SHARE = 0.001
"""of the peak: less than that is by how much blocks are larger than what was asked for"""
OTHER_CALLS = "other calls"
OTHER_LAYERS = "other layers"
ROUNDING, REQUEST, BEFORE = "rounding", "did not fit", "made before"
UNKNOWN = "unknown"
"""category of what nobody has named"""

_CATEGORIES = {
    "parameter": "weights",
    "buffer": "weights",
    "gathered": "gathered",
    "gradient": "gradients",
    "optimizer_state": "optimizer",
    "logits": "logits",
    "kv_cache": "kv cache",
    "input": "inputs",
    "workspace": "workspaces",
}
_UNNAMED = {
    Phase.LOAD: "weights",
    Phase.DATA: "inputs",
    Phase.RESUME: "workspaces",
    Phase.OPTIMIZER: "workspaces",
    Phase.CHECKPOINT: "workspaces",
}
_LAYER = re.compile(r"(?:^|\.)(\w+\.\d+)(?=\.|$)")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def kind_of(category: str, name: str) -> str:
    """Return the kind of a tensor with a name; `category` as in `OomRecord.live_bytes`."""
    if category == "parameter" and ("lora_" in name or ".modules_to_save." in name):
        return "adapters"
    return _CATEGORIES.get(category, "activations")


def kind_in(phase: Phase) -> str:
    """Return the kind of what a phase makes that has no name."""
    return _UNNAMED.get(phase, "activations")


@lru_cache(maxsize=4096)  # the same weights live at the peak of each phase
def layer_of(name: str) -> str:
    """Return `layers.3` of a parameter's name, the module's own name where no layer is numbered, or nothing."""
    *modules, _ = name.split(".")
    return numbered_layer(name) or (modules[-1] if modules else "")


def numbered_layer(name: str) -> str:
    """Return `layers.3` of a name in which a layer is numbered, `3` of a model that is a list itself, or nothing."""
    match = _LAYER.search(name)
    first = name.partition(".")[0]
    return match[1] if match else first * first.isdigit()


class PeakSum:
    """Adds up what lived at one moment."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._layers: dict[str, Counter[str]] = {}
        self._stacks: Counter[str] = Counter()

    def add(
        self, kind: str, num_bytes: int, *, name: str = "", frames: Sequence[SourceLine] = (), layer: str = ""
    ) -> None:
        """Add memory of a kind.

        Args:
            kind: what it is for.
            num_bytes: of it.
            name: of the tensor, if it has one, which says of which layer it is.
            frames: else who made it, innermost first.
            layer: else the one that ran when it was made.
        """
        self._kinds[kind] += num_bytes
        own = [frame for frame in frames if not is_harness(frame.path)] or frames
        calls = [_folded(str(frame)) for frame in reversed(own)]
        if name:
            layer = layer_of(name)
            calls = [_of_all_layers(name)]
        if layer:
            self._layers.setdefault(layer, Counter())[kind] += num_bytes
        self._stacks[";".join([_folded(kind), *calls])] += num_bytes

    def record(self, phase: Phase, step: int, allocated_bytes: int, reserved_bytes: int) -> PeakRecord:
        """Return the sum; what is not known of `allocated_bytes` counts as made before."""
        rest = allocated_bytes - self._kinds.total()
        if rest > 0:
            self.add(BEFORE if rest >= MIN_REST_SHARE * allocated_bytes else ROUNDING, rest)
        return PeakRecord(
            phase,
            step,
            allocated_bytes,
            reserved_bytes,
            _in_order(self._kinds),
            {name: _in_order(sizes) for name, sizes in self._first_layers().items()},
            _largest(self._stacks),
        )

    def _first_layers(self) -> dict[str, Counter[str]]:
        """Return what layers hold; of very many, the last ones as one."""
        names = list(self._layers)
        found = {name: self._layers[name] for name in names[:MAX_LAYERS]}
        for name in names[MAX_LAYERS:]:
            found.setdefault(OTHER_LAYERS, Counter()).update(self._layers[name])
        return found


@lru_cache(maxsize=4096)
def _of_all_layers(name: str) -> str:
    return _folded(_NUMBER.sub("*", name))


@lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    """Return a text as one frame of a folded stack, in which semicolons part the frames."""
    return inert(text).replace(";", ",").strip() or "?"


def _in_order(sizes: Counter[str]) -> dict[str, int]:
    known = [kind for kind in KINDS if sizes[kind] > 0]
    others = [kind for kind, size in sizes.most_common() if kind not in KINDS and size > 0]
    return {kind: sizes[kind] for kind in (*known, *others)}


def _largest(stacks: Counter[str]) -> dict[str, int]:
    shown = dict(stacks.most_common(MAX_STACKS))
    rest = stacks.total() - sum(shown.values())
    if rest > 0:
        shown[OTHER_CALLS] = rest
    return shown
