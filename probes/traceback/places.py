"""Where a traceback ended: the phase of the run, and what the innermost frame that is known was doing."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_harness.configs.tables import read_toml
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.snapshot import PHASE_OF_FUNCTION
from memory_harness.harness.log.traceback_text import Frame

ENCLOSING = (Phase.EVAL, Phase.GENERATE, Phase.CHECKPOINT, Phase.RESUME, Phase.LOAD)
"""Phases with forward passes, copies or states of their own: whatever runs inside belongs to them."""
AFTER_STEPS = ("_maybe_log_save_evaluate", "on_advance_end", "run_training_epoch")
"""Around an evaluation they say that steps of training have passed before; `train` and `fit` may begin with one."""

_PHASES_OF_CODE = (
    (re.compile(r"optim\w*\.load_(?:state_dict|opt)|load_opt\w*\(|load\(.*optim"), Phase.RESUME),
    (re.compile(r"\.backward\("), Phase.BACKWARD),
    (re.compile(r"\boptim\w*\.step\("), Phase.OPTIMIZER),
)
_FAMILY = re.compile(r"modeling_(?:flash_)?(\w+?)\.py$|unsloth/models/(\w+)\.py$|/(llama)/model\.py$")
_NO_FAMILIES = (
    "utils",
    "outputs",
    "layers",
    "_utils",
    "loader",
    "flash_attention_utils",
    "attn_mask_utils",
    "rope_utils",
)


@dataclass(frozen=True)
class Place:
    """What a frame was doing; see places.toml."""

    id: str
    words: str
    helps: str
    functions: tuple[str, ...] = ()
    code: str = ""
    path: str = ""

    def fits(self, frame: Frame) -> bool:
        """Return whether the frame is in this place."""
        if self.path and not re.search(self.path, frame.path):
            return False
        if not self.functions and not self.code:
            return True
        return frame.function in self.functions or bool(self.code and re.search(self.code, frame.code))


@functools.cache
def _tables() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("places.toml"))


@functools.cache
def _places() -> tuple[Place, ...]:
    found = []
    for table in _tables()["places"]:
        functions = tuple(table.get("functions", ()))
        found.append(Place(**{**table, "functions": functions}))
    return tuple(found)


@functools.cache
def _phase_of_function() -> dict[str, Phase]:
    found = dict(PHASE_OF_FUNCTION)
    for phase, names in _tables()["phases"].items():
        found.update(dict.fromkeys(names, Phase(phase)))
    return found


def place_of(frames: Sequence[Frame]) -> tuple[Place, Frame] | None:
    """Return what the innermost frame that is known was doing, and that frame; the frames are innermost first."""
    for frame in frames:
        for place in _places():
            if place.fits(frame):
                return place, frame
    return None


def phase_of(frames: Sequence[Frame]) -> Phase | None:
    """Return the phase that the frames, innermost first, were in; None where they do not tell."""
    phases = [phase for phase in map(_phase_of_frame, reversed(frames)) if phase is not None]
    enclosing = [phase for phase in phases if phase in ENCLOSING]
    if enclosing:  # a function that loads a model may restore its optimizer too
        return Phase.RESUME if Phase.RESUME in enclosing and enclosing[0] is Phase.LOAD else enclosing[0]
    if Phase.BACKWARD in phases:  # which runs forward passes again where gradients are checkpointed
        return Phase.BACKWARD
    # lightning calls the forward pass from the optimizer's step; a batch is moved before either
    return phases[-1] if phases else None


def _phase_of_frame(frame: Frame) -> Phase | None:
    path = frame.path.replace("\\", "/")
    if frame.function == "step" and "optim" in path:
        return Phase.OPTIMIZER
    if frame.function in ("to", "cuda") and path.endswith("torch/nn/modules/module.py"):
        return Phase.LOAD
    for pattern, phase in _PHASES_OF_CODE:
        if pattern.search(frame.code):
            return phase
    if frame.function == "load_state_dict":
        return Phase.RESUME if "optim" in path else Phase.LOAD
    return _phase_of_function().get(frame.function)


def family_of(frames: Sequence[Frame]) -> str:
    """Return the family of the model whose code the frames ran, such as `llama`; nothing where none did."""
    for frame in frames:
        match = _FAMILY.search(frame.path.replace("\\", "/"))
        names = [name for name in match.groups() if name] if match else []
        if names and names[0] not in _NO_FAMILIES:
            return names[0]
    return ""
