"""Settings of a script that can be seen, and changed, without touching its file."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

from torch.utils.data import DataLoader

from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.log.records import KnobRecord
from memory_harness.harness.log.source_lines import is_harness, is_library, short_path
from memory_harness.harness.observe.script_patches import calling_line

LOADER = "batch_size"
"""of a script's own data loaders"""

OF_ARGUMENTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "eval_accumulation_steps",
    "gradient_checkpointing",
    "max_length",
    "optim",
)
"""fields of transformers' `TrainingArguments` and of TRL's that decide about memory"""

ALLOWED = (LOADER, *OF_ARGUMENTS)

_LATER_NAMES = {"gradient_checkpointing": "activation_checkpointing"}
"""transformers renames what it takes; Source: transformers/training_args.py"""


def read_knobs(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that `NAME=VALUE` texts give. Raises ConfigError: another name, or no value."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in ALLOWED or not value:
            raise ConfigError(f"--override {text}: not NAME=VALUE (allowed names: {', '.join(ALLOWED)})")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        return text


@contextmanager
def knobs_of_scripts(changes: Mapping[str, Any], note: Callable[[KnobRecord], None]) -> Iterator[None]:
    """Within, a script's settings are noted, and those in `changes` are what they say."""
    from transformers import TrainingArguments

    with ExitStack() as stack:
        for owner, name, function in (
            (DataLoader, "__init__", _loader(DataLoader.__init__, changes, note)),
            (TrainingArguments, "__post_init__", _arguments(TrainingArguments.__post_init__, changes, note)),
        ):
            stack.enter_context(patch.object(owner, name, function))
        yield


def _loader(
    original: Callable[..., None], changes: Mapping[str, Any], note: Callable[[KnobRecord], None]
) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> None:
        """Make a data loader; one of Trainer's takes its batch size from the arguments."""
        caller = _caller()
        size = args[0] if args else kwargs.get("batch_size", 1)
        is_users = not is_library(caller.f_code.co_filename)
        if is_users and size is not None and kwargs.get("batch_sampler") is None:
            note(KnobRecord(LOADER, str(size), f"{short_path(caller.f_code.co_filename)}:{caller.f_lineno}"))
            if LOADER in changes:
                args, kwargs = args[1:], kwargs | {"batch_size": changes[LOADER]}
        original(self, dataset, *args, **kwargs)

    return init


def _caller() -> FrameType:
    """Return the innermost frame that is not the harness's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_harness(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _arguments(
    original: Callable[..., None], changes: Mapping[str, Any], note: Callable[[KnobRecord], None]
) -> Callable[..., None]:
    @functools.wraps(original)
    def post_init(self: Any) -> None:
        where = calling_line() or ""
        for name in OF_ARGUMENTS:
            if name in changes:
                _set(self, name, changes[name])
            if hasattr(self, name):
                note(KnobRecord(name, str(_plain(getattr(self, name))), where))
        original(self)

    return post_init


def _set(arguments: Any, name: str, value: Any) -> None:
    if not hasattr(arguments, name):
        raise ConfigError(f"--override {name}={value}: the script's arguments have no {name}")
    setattr(arguments, name, value)
    later = _LATER_NAMES.get(name)
    if later is not None and hasattr(arguments, later):
        setattr(arguments, later, value)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
