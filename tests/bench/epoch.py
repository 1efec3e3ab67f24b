"""The epoch that was trained on a GPU in several processes, and what the simulation says that each of them takes.

    python run_probe.py --preset t4 --max-length 2048 --samples 4000 --epochs 1 --gradient-accumulation 8 \\
        --max-new-tokens 64 --no-compare-base --save-every 50 --random-weights --device cuda --train --output RUNS
    python run_probe.py --resume RUNS/*-train          after a SIGTERM, as often as need be
    python -m tests.bench.epoch [RUN.jsonl]            anywhere: the table, from the log of those
"""

from __future__ import annotations

import gzip
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from memory_harness.configs.cards import emulated, find_card
from memory_harness.configs.schema import RunConfig, config_from_dict
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.manifest import Position
from memory_harness.harness.log.records import Outcome, Phase, PhaseRecord, Record
from memory_harness.harness.log.runlog import RunLog, collect, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.train.execute import Ending, record_run
from memory_harness.harness.train.loop import answer_prompts, train
from memory_harness.harness.train.recovery import Unprotected
from memory_harness.harness.train.run import Run, make_strategy, simulate_card

RESULTS = Path(__file__).parent / "results"
EPOCH = RESULTS / "h100_epoch" / "run.jsonl.gz"
STOCK = RESULTS / "h100_t4_probe" / "1_eval-batch.jsonl"
"""the published recipe on the same corpus, but for its evaluation batch, which alone would end the run"""

HOST = "h100"


@dataclass(frozen=True)
class Part:
    """What one process did of a run."""

    start: int
    """optimizer steps that were done before it"""
    phases: tuple[PhaseRecord, ...]

    @property
    def peak_allocated_bytes(self) -> int:
        """Highest of all phases."""
        return max(phase.after.peak_allocated_bytes for phase in self.phases)

    @property
    def peak_reserved_bytes(self) -> int:
        """Highest of all phases."""
        return max(phase.after.peak_reserved_bytes for phase in self.phases)


def parts_of(log: RunLog) -> list[Part]:
    """Return the processes of a run: each begins by loading the model."""
    begins = [i for i, phase in enumerate(log.phases) if phase.phase is Phase.LOAD]
    cuts = itertools.pairwise([*begins, len(log.phases)])
    return [Part(log.phases[begin].step, tuple(log.phases[begin:end])) for begin, end in cuts]


def simulated_part(config: RunConfig, start: int, last_step: int) -> Part:
    """Simulate a process that goes on after `start` steps of the first epoch, and is stopped after `last_step`."""
    config = config.with_fields(device="simulated")
    device = simulate_card(config, emulated(find_card(config.device.gpu), find_card(HOST)))
    data = prepare(config)
    run = Run(config, device, make_strategy(config, device), data)
    records: list[Record] = []
    with TemporaryDirectory() as folder:
        protection = Until(last_step, run, Path(folder))

        def body(recorder: PhaseRecorder) -> Ending:
            if start:
                with recorder.phase(Phase.RESUME):
                    run.strategy.restore(Path(folder))
            protection.recorder = recorder
            position = Position(start, 1, start)
            if train(run, recorder, protection, position):
                answer_prompts(run, recorder, protection)
            return Ending(Outcome.COMPLETED)

        record_run(run, records.append, body, start=Position(start, 1, start))
    return Part(start, tuple(collect(records).phases))


class Until(Unprotected):
    """Asks for a stop after a step."""

    recorder: PhaseRecorder

    def __init__(self, last_step: int, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.last_step = last_step

    def stop_requested(self) -> bool:
        """Tell whether the step was the last before the end of the run."""
        return self.recorder.step == self.last_step


def read_log(path: Path) -> RunLog:
    """Read a log, compressed or not."""
    if path.suffix != ".gz":
        return read_run_log(path)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        return read_run_log(plain)


def tokens_per_second(log: RunLog, skip: int = 2) -> float:
    """Return tokens, padding not counted, over the time of the steps but for the first ones of each process."""
    first = [part.start for part in parts_of(log)]
    steps = [s for s in log.steps if not any(begin < s.step <= begin + skip for begin in first)]
    return sum(sum(s.lengths) for s in steps) / sum(s.seconds for s in steps)


def rows(measured: Iterable[Part], config: RunConfig, total_steps: int) -> Iterable[tuple[Part, Part]]:
    """Yield each process as it was measured, and as it is simulated."""
    for part in measured:
        last = max(phase.step for phase in part.phases)
        yield part, simulated_part(config, part.start, last if last < total_steps else total_steps + 1)


def main() -> None:
    """Print the table."""
    log = read_log(Path(sys.argv[1]) if len(sys.argv) > 1 else EPOCH)
    print("| steps | allocated, measured | simulated | reserved, measured | simulated |\n|---|---|---|---|---|")
    config = config_from_dict(log.run.config)
    for part, simulated in rows(parts_of(log), config, log.run.total_steps):
        last = max(phase.step for phase in part.phases)
        cells = [
            value
            for kind in ("allocated", "reserved")
            for value in (getattr(p, f"peak_{kind}_bytes") for p in (part, simulated))
        ]
        print(f"| {part.start + 1} to {last} | " + " | ".join(map(str, cells)) + " |")
    retries = max(phase.after.num_alloc_retries for phase in log.phases)
    print(
        f"\n{log.outcome}: {len(log.steps)} steps, {retries} retries, {tokens_per_second(log):.0f} tokens/s; ", end=""
    )
    print(f"the published recipe on this corpus: {tokens_per_second(read_log(STOCK)):.0f}")


if __name__ == "__main__":
    main()
