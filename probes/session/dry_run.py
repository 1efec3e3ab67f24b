"""Run any script on a card that is not there, and say what it would do on it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.records import Outcome, StandInRecord
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.dry_run import DryRunObserver, DryRunOver
from memory_harness.harness.observe.run_script import run_script
from memory_harness.probes.session.watch import end_of

VARIABLE = "MEMORY_HARNESS_DRY_RUN"
"""set in the environment while a script is run dry, for scripts that want to know"""


def dry_run_script(
    script: str,
    arguments: Sequence[str],
    log: Path,
    *,
    card: Card,
    budget_bytes: int,
    expandable_segments: bool = False,
    max_steps: int | None = None,
) -> RunLog:
    """Run the script on the card until nothing new comes, or for `max_steps` optimizer steps; return the record.

    Raises:
        UnknownValue: the script asked for a value that does not exist without a GPU.
    """
    device = DryRunDevice(card, budget_bytes, expandable_segments=expandable_segments)
    begin = time.perf_counter()
    with LogWriter(log) as writer, patch.dict(os.environ, {VARIABLE: "1"}):
        observer = DryRunObserver(device, writer.write, Path(script).name, max_steps)
        outcome, message = Outcome.COMPLETED, ""
        try:
            with observer.running():
                main = run_script(script, arguments)
            observer.end_script()
            del main
        except DryRunOver:
            observer.end_script()
        except BaseException as error:
            failure = device.tracer.stand_ins.failure
            if failure is not None:
                raise failure from None
            outcome, message = end_of(error, device)
        for (what, where), count in device.tracer.stand_ins.used.items():
            writer.write(StandInRecord(what, where, count))
        observer.end_log(outcome, message or observer.stopped_because, time.perf_counter() - begin)
    return read_run_log(log)
