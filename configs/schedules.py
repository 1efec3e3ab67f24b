"""What `--schedule-args` may say of the schedules that are transformers' own.

Source: transformers/optimization.py, the functions that `get_scheduler` calls, and their errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from memory_harness.configs.optimizers import named_values

OWN = ("linear", "cosine")
"""schedules of this program; they begin above zero"""

_CYCLES = ("num_cycles",)
_LOWEST = ("min_lr", "min_lr_rate")

SCHEDULE_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": (),
    "constant": (),
    "constant_with_warmup": (),
    "cosine_with_restarts": _CYCLES,
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": (*_CYCLES, *_LOWEST),
    "cosine_warmup_with_min_lr": (*_CYCLES, *_LOWEST, "warmup_lr_rate"),
    "warmup_stable_decay": (
        *("num_decay_steps", "num_stable_steps", "min_lr_ratio"),
        *("warmup_type", "decay_type", "num_cycles"),
    ),
}
"""by schedule"""

_SHAPES = ("linear", "cosine", "1-sqrt")


def schedule_values(text: str | None) -> dict[str, float | int | str]:
    """Return what `--schedule-args` says. Raises ValueError: it is not written so, or what is no shape is no number."""
    values: dict[str, float | int | str] = {}
    for key, value in named_values(text).items():
        values[key] = value if key.endswith("_type") else number(value)
    return values


def number(text: str) -> float | int:
    """Return the number that a text is. Raises ValueError: it is none."""
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number")
    return value


def schedule_problem(schedule: str, text: str | None, learning_rate: float) -> str:
    """Return in words what is wrong with the arguments of a schedule; empty where nothing is."""
    allowed = SCHEDULE_ARGUMENTS[schedule]
    try:
        values = schedule_values(text)
    except ValueError as error:
        return str(error)
    unknown = [key for key in values if key not in allowed]
    if unknown:
        return f"{schedule} has no {', '.join(unknown)} (allowed with it: {', '.join(allowed) or 'none'})"
    return _missing(schedule, values) or _out_of_range(schedule, values, learning_rate)


def _missing(schedule: str, values: Mapping[str, float | int | str]) -> str:
    if "min_lr" in SCHEDULE_ARGUMENTS[schedule] and len(values.keys() & set(_LOWEST)) != 1:
        return f"{schedule} needs one of min_lr=RATE and min_lr_rate=SHARE"
    if schedule == "warmup_stable_decay" and "num_decay_steps" not in values:
        return f"{schedule} needs num_decay_steps=N"
    return ""


def _out_of_range(schedule: str, values: Mapping[str, float | int | str], learning_rate: float) -> str:
    for key, value in values.items():
        if isinstance(value, str) and value not in _SHAPES:
            return f"{key} is {value} (allowed: {', '.join(_SHAPES)})"
        if isinstance(value, (int, float)) and value < 0:
            return f"{key} is {value} (allowed: 0 or more)"
    lr_end = values.get("lr_end", 1e-7)
    if schedule == "polynomial" and isinstance(lr_end, (int, float)) and lr_end >= learning_rate:
        return f"lr_end is {lr_end}, and --learning-rate {learning_rate} no more than that"
    return ""
