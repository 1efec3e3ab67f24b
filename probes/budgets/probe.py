"""What a test measures with: a recipe, a function or a loop of its own, on a GPU or on a simulated card.

Imports PyTorch, NumPy and the detectors only when something has run: every test session imports this module.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_harness.configs.cards import budget_of, bytes_beside, find_card, with_own_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import SECTIONS, DeviceConfig, RunConfig
from memory_harness.configs.tables import did_you_mean
from memory_harness.configs.targets import DEFAULT_CARD, budget_bytes_of
from memory_harness.configs.units import format_apart
from memory_harness.configs.validation import validate
from memory_harness.harness.log.errors import RunDied
from memory_harness.harness.log.records import Outcome, Phase, Record
from memory_harness.harness.log.runlog import RunLog, collect, predicted_log, read_run_log
from memory_harness.probes.findings import Finding, first_error
from memory_harness.probes.session.process import start_probing_worker

if TYPE_CHECKING:
    from memory_harness.harness.devices.base import ObservableDevice
    from memory_harness.harness.observe.own_loop import Recorder


@dataclass(frozen=True)
class Target:
    """Where a test measures."""

    device: str = "auto"
    gpu: str | None = None
    budget_bytes: int | None = None
    dry_run: bool = False
    """code for a GPU runs on a card that is not there, whether there is a GPU or not"""


@dataclass(frozen=True, repr=False)
class Measured:
    """One run of a test, for its assertions. Sizes are bytes."""

    log: RunLog
    predicted: RunLog | None = None
    """the simulation of a recipe that was measured on a GPU"""

    def __repr__(self) -> str:
        """Return what pytest is to show of an assertion that fails."""
        peak, budget = format_apart(self.peak_allocated_bytes, self.log.run.budget_bytes)
        return f"<Measured: {self.log.outcome.value}, peak {peak} of {budget}>"

    @property
    def fits(self) -> bool:
        """Return whether it ran to its end, and nothing grew that has none."""
        return self.log.outcome is Outcome.COMPLETED and first_error(self.findings) is None

    @property
    def peaks(self) -> dict[Phase, int]:
        """Peak allocated by phase, such as `peaks["EVAL"]`; where memory ran out, with what was asked for."""
        peaks = {phase: stats.peak_allocated_bytes for phase, stats in self.log.peaks().items()}
        oom = self.log.fatal_oom
        if oom is not None:
            peaks[oom.phase] = max(peaks.get(oom.phase, 0), oom.allocated_bytes + oom.requested_bytes)
        return peaks

    @property
    def peak_allocated_bytes(self) -> int:
        """Highest allocated; where memory ran out, with what was asked for."""
        return self.log.needed_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """Highest that PyTorch's allocator held."""
        return self.log.peak_reserved_bytes

    @property
    def predicted_peak(self) -> int | None:
        """Highest allocated as simulated; None where only a GPU was asked."""
        if self.log.run.source == "simulated":
            return self.log.needed_bytes
        return None if self.predicted is None else self.predicted.needed_bytes

    @cached_property
    def findings(self) -> list[Finding]:
        """What the detectors say, errors first."""
        from memory_harness.probes.detectors import detect

        return detect(self.log)

    @property
    def causes(self) -> list[str]:
        """Causes that ended the run or cost memory that matters here."""
        return [finding.cause for finding in self.findings if finding.severity != "info"]


@dataclass
class MemoryProbe:
    """The fixture `memory_probe`. What it runs counts for the test's budget.

    Args:
        target: device, card and budget of the test's marker.
        make_folder: returns a folder for logs.
    """

    target: Target
    make_folder: Callable[[], Path]
    runs: list[Measured] = field(default_factory=list)

    def run(self, recipe: str | RunConfig, **fields: Any) -> Measured:
        """Run a recipe in a process of its own: a preset's name, a TOML file or a `RunConfig`, with fields changed.

        Raises:
            HarnessError: a value is not usable, or the run died of something else than memory.
        """
        config = configured(recipe, fields, self.target)
        log = self.make_folder() / f"run-{len(self.runs) + 1}.jsonl"
        try:
            with start_probing_worker(config) as worker:
                records = worker.run(config, log, "test", lambda title, done, total: None)
        except RunDied as error:
            sys.stderr.write(error.details)
            raise
        predicted = predicted_log(log)
        return self._keep(Measured(records, read_run_log(predicted) if predicted.exists() else None))

    def call(self, function: Callable[[], object], steps: int = 1) -> Measured:
        """Call a function so many times, each a step; running out of memory is an outcome, other errors are raised."""
        try:
            with self.record() as recorder:
                for _ in range(steps):
                    with recorder.step():
                        function()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return self.runs[-1]

    def dry_run(
        self,
        script: str,
        *arguments: str,
        gpu: str | None = None,
        budget: str | None = None,
        steps: int | None = None,
        num_gpus: int = 1,
    ) -> Measured:
        """Run a training script, unmodified, on a card that is not there; see `dry_run`."""
        target = self.target
        budget_bytes = target.budget_bytes if budget is None else budget
        log = self.make_folder() / f"run-{len(self.runs) + 1}.jsonl"
        card = gpu or target.gpu
        return self._keep(
            dry_run(script, *arguments, gpu=card, budget=budget_bytes, steps=steps, num_gpus=num_gpus, log=log)
        )

    @contextmanager
    def record(self) -> Iterator[Recorder]:
        """Record a loop of one's own, see `harness.observe.own_loop`; once it is over, `runs[-1]` has the measures."""
        from memory_harness.harness.observe.own_loop import Recorder

        device = _device_of(self.target)
        records: list[Record] = []
        try:
            with Recorder(device, records.append).running() as recorder:
                yield recorder
        finally:
            self._keep(Measured(collect(records)))

    def _keep(self, measured: Measured) -> Measured:
        self.runs.append(measured)
        return measured


def _device_of(target: Target) -> ObservableDevice:
    if target.dry_run:
        from memory_harness.harness.devices.dry_run import DryRunDevice

        card = find_card(target.gpu or DEFAULT_CARD)
        device = DryRunDevice(card, target.budget_bytes or card.budget_bytes)
        device.replays_layers = False  # a test that replayed layers do not bear cannot be run again
        return device
    from memory_harness.harness.observe.own_loop import choose_device

    return choose_device(target.device, target.gpu, target.budget_bytes, adopts=True, lowered=True)


def dry_run(
    script: str | os.PathLike[str],
    *arguments: str,
    gpu: str | None = None,
    budget: str | int | None = None,
    steps: int | None = None,
    num_gpus: int = 1,
    log: Path | None = None,
) -> Measured:
    """Run a training script, unmodified, on a card that is not there, in a process of its own.

    Args:
        script: a Python file; `arguments` are its own.
        gpu: a card of configs/gpus.toml.
        budget: what PyTorch may use of it, such as "14.4 GiB" or a number of bytes; all that the card has without it.
        steps: optimizer steps after which the script ends; without it, where nothing new comes any more.
        num_gpus: cards of one host, as `--num-gpus` of the command: the first of as many ranks is followed or, where
            the script lays a model over all of them, the fullest.
        log: where the record of the run goes; nowhere without it.

    Raises:
        ConfigError: a value is not usable.
        HarnessError: the script asked for a value that does not exist without a GPU.
    """
    from memory_harness.harness.observe.run_script import check_script
    from memory_harness.probes.session.dry_run import DryRun

    check_script(str(script), "dry_run")
    if type(num_gpus) is not int or num_gpus < 1:
        raise ConfigError(f"num_gpus {num_gpus!r}: must be a whole number, 1 or more")
    card = find_card(gpu or DEFAULT_CARD)
    device = DeviceConfig(gpu=card.name, budget_bytes=budget_bytes_of(budget, card), num_gpus=num_gpus)
    asked = DryRun(
        str(script),
        arguments,
        card,
        budget_of(device),
        max_steps=steps,
        num_gpus=num_gpus,
        beside_bytes=bytes_beside(device),
    )
    if log is not None:
        return Measured(asked.run(log))
    with tempfile.TemporaryDirectory() as folder:
        return Measured(asked.run(Path(folder) / "run.jsonl"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether it is PyTorch's error; where PyTorch was never imported it cannot be."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def configured(recipe: str | RunConfig, fields: dict[str, Any], target: Target) -> RunConfig:
    """Return the recipe with its fields changed, on the target.

    Raises:
        ConfigError: a name or a value is not usable.
    """
    known: list[str] = []
    for section in SECTIONS.values():
        known += [item.name for item in dataclasses.fields(section)]
    unknown = [f"{name}: unknown field{did_you_mean(name, known)}" for name in fields if name not in known]
    if unknown:
        raise ConfigError(unknown)
    config = load_preset(recipe) if isinstance(recipe, str) else recipe
    of_target = {"device": target.device, "gpu": target.gpu, "budget_bytes": target.budget_bytes}
    given = {name: value for name, value in of_target.items() if value not in (None, "auto")}
    config = config.with_fields(**with_own_card({**given, **fields}))
    validate(config)
    return config
