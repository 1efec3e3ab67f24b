"""One run in a process of its own: `python -m probes.worker`, driven by `probes.session`.

Reads a request as one line of JSON on standard input: `config`, `log` (file to write), `counts` (further numbers of
samples to run the same way, unrecorded). Writes lines of JSON on standard output: `{"steps": [done, total]}` while it works,
and at the end `{"counts": [[samples, step, total_steps, outcome], ...]}` or `{"error": "one line for the user"}`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.models import find_model
from configs.schema import RunConfig, config_from_dict
from harness.data import prepare
from harness.errors import HarnessError
from harness.records import EndRecord, Record, RunRecord, StepRecord
from harness.runlog import LogWriter

SECONDS_BETWEEN_REPORTS = 0.2


def main() -> int:
    """Run the request; return 0, or 2 where the user has to change something."""
    request = json.loads(sys.stdin.readline())
    config = config_from_dict(request["config"])
    try:
        counts = run_request(config, Path(request["log"]), request["counts"], _Reporter())
    except HarnessError as error:
        _say({"error": str(error)})
        return 2
    _say({"counts": counts})
    return 0


def run_request(
    config: RunConfig, log: Path, counts: list[int], report: Callable[[Record], None]
) -> list[tuple[int, int, int, str]]:
    """Run the configuration into `log`, then with other numbers of samples; return how those ended."""
    data = prepare(config, find_model(config.model.model).vocab_size)
    # importing PyTorch takes seconds: only after the data has proved usable
    warnings.simplefilter("ignore", FutureWarning)
    from harness.run import execute, make_strategy, open_device

    device = open_device(config)
    strategy = make_strategy(config, device)
    with LogWriter(log) as writer:
        execute(config, device, strategy, data, _both(writer.write, report), log.parent)
    return [_run_count(config.with_fields(samples=count), device, strategy, log.parent) for count in counts]


def _run_count(config: RunConfig, device: Any, strategy: Any, output: Path) -> tuple[int, int, int, str]:
    """Run once more with another number of samples; what was recorded of the model is used again."""
    from harness.run import execute

    strategy.restart(device.budget_bytes, config.device.expandable_segments)
    last: dict[type, Any] = {}
    data = prepare(config, find_model(config.model.model).vocab_size)
    outcome = execute(config, device, strategy, data, lambda record: last.update({type(record): record}), output)
    return config.data.samples or 0, last[EndRecord].step, last[RunRecord].total_steps, str(outcome)


def _both(first: Callable[[Record], None], second: Callable[[Record], None]) -> Callable[[Record], None]:
    def write(record: Record) -> None:
        first(record)
        second(record)

    return write


class _Reporter:
    """Tells the parent how far the run is, a few times a second."""

    def __init__(self) -> None:
        self._total = 0
        self._next = 0.0

    def __call__(self, record: Record) -> None:
        if isinstance(record, RunRecord):
            self._total = record.total_steps
        elif isinstance(record, StepRecord) and time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_REPORTS
            _say({"steps": [record.step, self._total]})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
