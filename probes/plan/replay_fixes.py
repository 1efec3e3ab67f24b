"""Would clearing the cache, expandable segments or bucketing help? Each tried by replaying the recorded run.

    python -m memory_harness.probes.plan.replay_fixes --batching dynamic --samples 600 --max-steps 40

What the model allocates has been recorded once; a trial replays it under other settings, or over the samples in another
order of length, through the allocator's model. Only the allocator's part changes: the trials say what fragmentation
costs, not whether another cause is cured. Where every length is another, a step of an 8B model takes some 0.1 s.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memory_harness.configs.cli import parse_args
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.data.batching import unshuffled
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.log.records import Outcome, Record
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import Run, make_strategy, open_device
from memory_harness.probes.fixes import FIXES

FRAGMENTATION = "fragmentation"


@dataclass(frozen=True)
class Trial:
    """How the run would end, and how much of the cache would lie unused."""

    name: str
    """the fix, the order of the samples, or `as configured`"""
    outcome: Outcome
    step: int
    total_steps: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    unused_bytes: int
    """reserved less allocated: at their peaks, or where memory ran out"""
    num_alloc_retries: int
    requested_bytes: int | None = None
    """what did not fit, where the run goes out of memory"""
    largest_free_block_bytes: int | None = None
    """the largest piece of the cache at that moment"""

    @property
    def is_fragmented(self) -> bool:
        """Return whether the failed request would have fitted into what lay unused, in one piece."""
        if self.requested_bytes is None or self.largest_free_block_bytes is None:
            return False
        return self.largest_free_block_bytes < self.requested_bytes <= self.unused_bytes


def trial_of(name: str, log: RunLog) -> Trial:
    """Return what a log says about the allocator."""
    trial = Trial(
        name=name,
        outcome=log.outcome,
        step=log.end.step if log.end else 0,
        total_steps=log.run.total_steps,
        peak_allocated_bytes=log.peak_allocated_bytes,
        peak_reserved_bytes=log.peak_reserved_bytes,
        unused_bytes=log.peak_reserved_bytes - log.peak_allocated_bytes,
        num_alloc_retries=max((phase.after.num_alloc_retries for phase in log.phases), default=0),
    )
    oom = log.fatal_oom
    if oom is None:
        return trial
    return replace(
        trial,
        unused_bytes=oom.reserved_bytes - oom.allocated_bytes,
        requested_bytes=oom.requested_bytes,
        largest_free_block_bytes=oom.largest_free_block_bytes,
    )


class Replayer:
    """A recorded model whose run can be replayed under settings that leave the model as it is.

    Args:
        config: what was recorded; its model, loss and batch sizes hold for every replay.
    """

    def __init__(self, config: RunConfig, strategy: CompiledStrategy) -> None:
        self.config = config
        self._strategy = strategy

    def run(self, config: RunConfig, data: Prepared | None = None) -> RunLog:
        """Replay a configuration from empty memory and return its log; `data` in place of the configuration's own."""
        device = self._strategy.device
        self._strategy.restart(device.budget_bytes, config.device.expandable_segments)
        records: list[Record] = []
        data = data or prepare(config)
        execute(Run(config, device, self._strategy, data), records.append, Path())
        return collect(records)


def record(config: RunConfig) -> Replayer:
    """Return a replayer that records the model of a configuration as it goes.

    Raises:
        HarnessError: the configuration does not ask for a simulated device with fake tensors.
    """
    config = config.with_fields(device="simulated")
    device = open_device(config)
    strategy = make_strategy(config, device)
    if not isinstance(strategy, CompiledStrategy):
        raise HarnessError("--tensors real: what would happen is found by replay, which needs --tensors fake")
    return Replayer(config, strategy)


def remedies(replayer: Replayer) -> list[Trial]:
    """Return the run as configured, and with each fix for fragmentation that would change it."""
    config = replayer.config
    trials = [trial_of("as configured", replayer.run(config))]
    for fix in FIXES.values():
        changed = fix.apply(config)
        if FRAGMENTATION in fix.addresses and changed is not None:
            trials.append(trial_of(fix.name, replayer.run(changed)))
    return trials


def length_orders(replayer: Replayer) -> list[Trial]:
    """Return one epoch over the samples shuffled, from short to long and from long to short."""
    config = replayer.config.with_fields(epochs=1)
    if config.data.batching == "bucketed":
        config = config.with_fields(batching="dynamic")
    data = prepare(config)
    by_length = sorted(data.train, key=lambda example: example.num_tokens)
    orders = {
        "shuffled": data.train,
        "short to long": unshuffled(by_length, config, epoch=1),
        "long to short": unshuffled(by_length[::-1], config, epoch=1),
    }
    return [trial_of(name, replayer.run(config, replace(data, train=train))) for name, train in orders.items()]


def main(argv: Sequence[str]) -> int:
    """Print what each remedy and each order of lengths would do; return the exit code."""
    replayer = record(parse_args(argv).config)
    for title, trials in (("remedy", remedies(replayer)), ("order", length_orders(replayer))):
        print(f"{title:<20}{'ends at':>16}{'allocated':>12}{'reserved':>12}{'unused':>12}{'retries':>9}")
        for trial in trials:
            print(_row(trial))
    return 0


def _row(trial: Trial) -> str:
    end = f"{trial.step}/{trial.total_steps}{' oom' if trial.outcome is Outcome.OOM else ''}"
    peaks = (trial.peak_allocated_bytes, trial.peak_reserved_bytes, trial.unused_bytes)
    sizes = "".join(f"{format_bytes(size):>12}" for size in peaks)
    return f"{trial.name:<20}{end:>16}{sizes}{trial.num_alloc_retries:>9}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
