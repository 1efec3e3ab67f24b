"""The peaks of a test suite, kept in a file that later runs are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import MAX_TEXT_BYTES, read_input
from memory_harness.configs.printable import json_text
from memory_harness.configs.units import Increase, format_apart, parse_increase
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.records import Size

if TYPE_CHECKING:
    from memory_harness.probes.budgets.probe import Measured

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Peak:
    """The highest peak of a test, and where it was."""

    peak_allocated_bytes: Size
    peak_reserved_bytes: Size
    budget_bytes: Size
    phase: str
    source: str
    gpu_name: str


def highest_peak(runs: Iterable[Measured]) -> Peak:
    """Return the peak of the run that allocated most."""
    run = max(runs, key=lambda run: run.peak_allocated_bytes)
    phase = max(run.peaks, key=run.peaks.__getitem__, default="")
    about = run.log.run
    sizes = (run.peak_allocated_bytes, run.peak_reserved_bytes, about.budget_bytes)
    return Peak(*sizes, str(phase), about.source, about.gpu_name)


def read_increase(text: str) -> Increase:
    """Return the increase that `5%` or `100 MiB` stands for. Raises ConfigError where it is neither."""
    try:
        return parse_increase(text)
    except ValueError as error:
        raise ConfigError(f"--memory-fail-on-increase {text}: {error}") from None


def read_baseline(path: Path) -> dict[str, Peak] | None:
    """Return the peaks by test, or None where there is no such file.

    Raises:
        ConfigError: it is no baseline of this release.
    """
    try:
        found = msgspec.json.decode(read_input(path, MAX_TEXT_BYTES), type=_Baseline)
    except FileNotFoundError:
        if not path.parent.is_dir():  # better now than when all tests have run
            raise ConfigError(f"--memory-baseline {path}: there is no folder {path.parent}") from None
        return None
    except OSError as error:
        raise ConfigError(f"--memory-baseline {path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--memory-baseline {path}: no baseline of this release ({error})") from None
    if found.schema_version != SCHEMA_VERSION:
        raise ConfigError(
            f"--memory-baseline {path}: no baseline of this release (schema version {found.schema_version})"
        )
    return found.tests


class _Baseline(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: int
    tests: dict[str, Peak]


def write_baseline(path: Path, peaks: Mapping[str, Peak]) -> None:
    """Write the peaks, or leave the file as it was. Raises ConfigError where it cannot be written."""
    data = {"schema_version": SCHEMA_VERSION, "tests": {name: asdict(peaks[name]) for name in sorted(peaks)}}
    try:
        write_whole(path, json_text(data))
    except OSError as error:
        raise ConfigError(f"--memory-baseline {path}: cannot be written ({error.strerror})") from None


def is_comparable(now: Peak, before: Peak) -> bool:
    """Return whether both are of one card, measured or simulated alike."""
    return (before.source, before.gpu_name) == (now.source, now.gpu_name)


def increase(now: Peak, before: Peak | None, allowed: Increase) -> str | None:
    """Return by what a peak exceeds the one before, None where it does not or they cannot be compared."""
    if before is None or not is_comparable(now, before):
        return None
    rise = now.peak_allocated_bytes - before.peak_allocated_bytes
    if rise <= allowed.of(before.peak_allocated_bytes):
        return None
    now_text, before_text = format_apart(now.peak_allocated_bytes, before.peak_allocated_bytes)
    more = f"{rise / before.peak_allocated_bytes:.1%} " if before.peak_allocated_bytes else ""
    return f"peak of {now_text} in {now.phase} is {more}above the baseline's {before_text} (allowed: {allowed.text})"
