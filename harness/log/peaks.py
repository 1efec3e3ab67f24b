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
ROUNDING, REQUEST, BEFORE = "rounding", "did not fit", "made before"

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
    match = _LAYER.search(name)
    if match:
        return match[1]
    modules = name.split(".")[:-1]
    return modules[-1] if modules and not modules[-1].isdigit() else ""


class PeakSum:
    """Adds up what lived at one moment."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._layers: dict[str, Counter[str]] = {}
        self._stacks: Counter[str] = Counter()

    def add(self, kind: str, num_bytes: int, *, name: str = "", frames: Sequence[SourceLine] = ()) -> None:
        """Add memory of a kind; `name` is a tensor's, else `frames`, innermost first, tell who made it."""
        self._kinds[kind] += num_bytes
        own = [frame for frame in frames if not is_harness(frame.path)] or frames
        calls = [_folded(str(frame)) for frame in reversed(own)]
        if name:
            layer = layer_of(name)
            if layer:
                self._layers.setdefault(layer, Counter())[kind] += num_bytes
            calls = [_of_all_layers(name)]
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
            {name: _in_order(self._layers[name]) for name in list(self._layers)[:MAX_LAYERS]},
            _largest(self._stacks),
        )


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
