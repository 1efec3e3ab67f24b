"""Reading the TOML tables, and the one line for a name that is not in them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError, reason_of
from memory_harness.configs.inputs import read_text

MAX_TOML_BYTES = 4 * 2**20
"""Largest file that is read: Python's reader takes a second for each megabyte of it."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises ConfigError: the file cannot be read or is not TOML."""
    try:
        return tomllib.loads(read_text(path, MAX_TOML_BYTES))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: not UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"cannot read {path} as TOML: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cannot read {path} as TOML: {reason_of(error)}") from None
    except ValueError:  # Python's words for it advise to take its limit away
        raise ConfigError(f"cannot read {path} as TOML: it holds a number of thousands of digits") from None


Spelling = Callable[[str], str]
"""what of a name counts where names are compared"""


def did_you_mean(value: str, allowed: Iterable[str], spelling: Spelling = str.lower) -> str:
    """Return `; did you mean X?` for allowed values that begin like this one or hold its words, else for a close one.

    A flag is found by its initials too: `--learning-rate` by `--lr`.
    """
    allowed, value = list(allowed), spelling(value)
    words = f"-{value.removeprefix('--')}-"
    held = [name for name in allowed if spelling(name).startswith(value) or words in f"-{spelling(name)}-"]
    initials = [name for name in allowed if "--" + "".join(word[:1] for word in name.split("-")) == value]
    near = held if len(words) > 4 else initials
    close = near or difflib.get_close_matches(value, allowed, n=1)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def unknown_name(flag: str, value: str, allowed: Iterable[str], spelling: Spelling = str.lower) -> str:
    """Return the line for a value that is not one of the allowed ones."""
    allowed = list(allowed)
    return f"{flag} {value}: unknown{did_you_mean(value, allowed, spelling)} (allowed: {', '.join(allowed)})"
