"""One run under two sets of versions of the libraries: those installed here, and those that `--against` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.pins import FLAG, Pin
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import RunDied
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.session.layer import installed_version, layer_of
from memory_harness.probes.session.messages import DryRunArguments
from memory_harness.probes.session.process import OnProgress, RunRefused, Worker, start_worker


class Side(NamedTuple):
    """One of the two runs."""

    name: str
    """the libraries that are not the same in both, with their versions"""
    versions: dict[str, Version]
    """of these libraries"""
    layer: Path | None
    """None for what is installed"""


def sides_of(pins: Sequence[Pin], say: Callable[[str], None]) -> tuple[Side, Side]:
    """Return the two sides, that with the older version of the first library first: an upgrade leads to the second.

    Libraries that are named at the version that is installed stay as they are.

    Args:
        say: is told, in a line, what takes long.

    Raises:
        ConfigError: a library is not installed, none differs from what is, or `layer_of` raises it.
    """
    changed = [pin for pin in pins if _installed(pin) != pin.version]
    if not changed:
        raise ConfigError(f"{FLAG} {' '.join(map(str, pins))}: is what is installed here; name another version")
    installed = {pin.name: _installed(pin) for pin in changed}
    named = {pin.name: pin.version for pin in changed}
    here = Side(", ".join(f"{name} {version} (installed)" for name, version in installed.items()), installed, None)
    there = Side(", ".join(f"{name} {version}" for name, version in named.items()), named, layer_of(changed, say))
    return (there, here) if changed[0].version < _installed(changed[0]) else (here, there)


def _installed(pin: Pin) -> Version:
    """Return the version here, without what names a build, such as `+cpu`."""
    version = installed_version(pin.name)
    if version is None:
        raise ConfigError(f"{FLAG} {pin}: {pin.name} is not installed here, so that there is nothing to compare with")
    return Version(Version(version).public)


def run_sides(
    config: RunConfig,
    script: DryRunArguments | None,
    sides: tuple[Side, Side],
    folder: Path,
    progress: OnProgress,
) -> tuple[RunLog, RunLog]:
    """Simulate the recipe, or run the script dry, once under each side's versions, in processes of their own.

    Raises:
        RunRefused: a value of the configuration, the corpus or the script is not usable under one of them.
        RunDied: a run failed for another reason than memory.
    """
    with ExitStack() as workers:
        started = [workers.enter_context(start_worker(layer=side.layer)) for side in sides]
        for worker in started:
            worker.warm_up()
        logs = []
        for worker, side, letter in zip(started, sides, "AB", strict=True):
            try:
                log = _run(worker, config, script, folder / f"{letter}.jsonl", side.name, progress)
            except RunRefused as error:
                raise RunRefused([f"with {side.name}: {problem}" for problem in error.problems]) from None
            if log.outcome is Outcome.ERROR:
                raise RunDied(f"with {side.name}: {log.end.message if log.end else 'it died without a word'}", "")
            check_versions(log, side)
            logs.append(log)
    return logs[0], logs[1]


def check_versions(log: RunLog, side: Side) -> None:
    """Raise RunRefused where a run did not import what it was to import, as where a path goes before all others."""
    for name, version in side.versions.items():
        found = log.run.environment.get(name)
        if found is not None and Version(Version(found).public) != version:
            raise RunRefused(f"with {side.name}: {name} {found} was imported; look at PYTHONPATH and sitecustomize")


def _run(
    worker: Worker, config: RunConfig, script: DryRunArguments | None, log: Path, title: str, progress: OnProgress
) -> RunLog:
    if script is None:
        return worker.run(config, log, title, progress, with_peak=True)
    progress(title, 0, 0)
    return worker.run_dry(config, log, title, script)
