"""One run in a process of its own, `python -m memory_harness.probes.session.worker`, driven by `session.process`.

Reads a request on standard input, or from the file that it is given, and writes replies on standard output, see
`session.messages`.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from unittest.mock import patch

from memory_harness.configs.cards import budget_of, bytes_beside, card_of
from memory_harness.configs.launch import launched
from memory_harness.configs.schema import RunConfig, config_from_dict
from memory_harness.configs.strategies import capabilities_of
from memory_harness.configs.units import MIB
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.errors import DataError, HarnessError, PeerLost, disk_refused
from memory_harness.harness.log.records import (
    EndRecord,
    OomRecord,
    Outcome,
    Phase,
    PhaseRecord,
    Record,
    RunRecord,
    StepRecord,
)
from memory_harness.harness.log.remarks import quiet_imports
from memory_harness.harness.log.runlog import LogWriter, predicted_log, read_run_log, whole_run_log
from memory_harness.harness.strategies.unsloth_package import import_unsloth
from memory_harness.probes.session.messages import PEER_LOST, DryRunArguments, Reply, Request

if TYPE_CHECKING:
    from memory_harness.harness.devices.base import ObservableDevice
    from memory_harness.harness.devices.parallel import Group
    from memory_harness.harness.strategies.base import Strategy
    from memory_harness.harness.strategies.compiled import CompiledStrategy
    from memory_harness.harness.train.run import Run

SECONDS_BETWEEN_REPORTS = 0.2
RECOMPUTE_HEADROOM = 256 * MIB
"""what `--recompute auto` leaves free: at the last percent of a card the allocator begins to give its cache back"""


def main(request_file: Path | None = None, handed: tuple[RunConfig, Prepared] | None = None) -> int:
    """Do what is asked; return 0, 2 where the user has to change something, PEER_LOST where another worker says why.

    Args:
        request_file: holds the request; None where it comes on standard input.
        handed: a configuration, and the data that have been prepared for it.
    """
    global _handed
    _handed = handed
    threading.Thread(target=end_with_parent, daemon=True).start()
    _take_messages_aside(request_file)
    try:
        request = _read_request()
        if request is not None:
            _carry_out(request)
    except PeerLost:  # what is known of it is in the log
        return PEER_LOST
    except HarnessError as error:
        _reply({"error": str(error)})
        return 2
    except OSError as error:
        refused = disk_refused(error)
        if refused is None and (error.filename is None or isinstance(error, BrokenPipeError)):
            raise
        _reply({"error": refused or f"{error.filename}: cannot be used ({error.strerror})"})
        return 2
    return 0


def _carry_out(request: Request) -> None:
    if "train" in request or "follow" in request:
        train_request(request)
        return
    config = config_from_dict(request["config"])
    if "generate" in request:
        generate_request(config, Path(request["generate"]), Path(request["log"]))
    elif "recompute_within" in request:
        recompute_request(config, request["recompute_within"])
    elif "dry_run" in request:
        dry_run_request(config, request["dry_run"], Path(request["log"]))
    elif request.get("fault") is None:
        run_requests(config, request)
    else:
        run_planted(config, request)


def end_with_parent() -> None:
    """Wait until the process that started this one is gone, and end as SIGTERM does: training saves first.

    Killed, it can pass no signal on; and a run that nobody watches would hold its folder, and the GPU, for hours.
    """
    asked_for_fork, parent = multiprocessing.parent_process(), os.getppid()
    if asked_for_fork is not None:
        asked_for_fork.join()
    else:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_REPORTS)
    os.kill(os.getpid(), signal.SIGTERM)


def _read_request() -> Request | None:
    """Return the request, or None where none comes."""
    for line in _requests:
        request: Request = json.loads(line)
        if request:
            return request
        import_libraries()
    return None


def import_libraries() -> None:
    """Import PyTorch and all that a run needs of it, which takes seconds.

    No garbage is looked for meanwhile: imports make hardly any. bitsandbytes comes without PyTorch's compiler, a fifth
    of the whole: it wraps some kernels for CPUs in `torch.compile`; what runs here on a CPU is too small to gain by it.
    """
    warnings.simplefilter("ignore", FutureWarning)
    gc.disable()
    import torch

    def as_it_is(function: Any = None, **options: Any) -> Any:
        return as_it_is if function is None else function

    with patch.object(torch, "compile", as_it_is), quiet_imports():
        import bitsandbytes  # noqa: F401
    from memory_harness.harness.train import execute  # noqa: F401

    gc.enable()


def run_requests(config: RunConfig, request: Request) -> None:
    """Run the configuration into its log, then what else is asked for and replays what was recorded of its model."""
    data = _read_data(config)
    # importing PyTorch takes seconds: only after the data has proved usable
    device = _open_device(config)
    from memory_harness.harness.strategies.compiled import CompiledStrategy
    from memory_harness.harness.train.run import Run, make_strategy

    strategy = make_strategy(config, device)
    if isinstance(strategy, CompiledStrategy):
        config = _with_recomputation_recorded(config, data, strategy)
    elif config.model.recompute == "auto":
        config = _with_recomputation(config, data, device)
        strategy = make_strategy(config, device)
    measured = device.source == "cuda"
    if not measured:
        gc.freeze()  # collections leave out what was imported; nobody asks what holds a tensor without values
    recorded = strategy if isinstance(strategy, CompiledStrategy) else None
    if recorded is not None:
        _show_worst_gpu(recorded, config, data)
    outcome = _execute(Run(config, device, strategy, data), request)
    if measured:
        del strategy
        gc.collect()
        device.empty_cache()  # the next process measures on an empty GPU
        if not capabilities_of(config).not_simulated:
            _simulate_measured(config, data, Path(request["log"]))
    _reply({"logged": True})
    if recorded is None:
        _reply({"counts": []})  # a run that computes would take its full time at each count
    else:
        gc.freeze()  # what was recorded serves all of them
        _run_others(recorded, outcome)


def recompute_request(config: RunConfig, headroom_bytes: int) -> None:
    """Find the fewest layers that compute again, then run what is asked for and replays what was recorded of them."""
    data = _read_data(config)
    import_libraries()
    from memory_harness.probes.plan.predict import RecordedModel
    from memory_harness.probes.plan.recompute import fewest_recomputed

    recorded = RecordedModel(config)
    gc.freeze()
    rules, needed = fewest_recomputed(recorded, config, data, headroom_bytes)
    peaks = None if needed is None else [needed.peak_allocated_bytes, needed.peak_reserved_bytes]
    _reply({"recompute": (rules, peaks)})
    _run_others(recorded.strategy, Outcome.COMPLETED)


def _run_others(recorded: CompiledStrategy, outcome: Outcome) -> None:
    """Run further configurations as they are asked for, and other numbers of samples where the first went wrong.

    Args:
        outcome: of the first run.
    """
    from memory_harness.harness.train.run import Run

    while (request := _read_request()) is not None:
        config = config_from_dict(request["config"])
        if "counts" in request:
            counts = request["counts"] if outcome is Outcome.OOM else []
            ends = [_run_count(config, count, recorded) for count in counts]
            _reply({"counts": [end for end in ends if end is not None]})
        else:
            data = _read_data(config)
            recorded.start_over_with(config)
            _show_worst_gpu(recorded, config, data)
            _execute(Run(config, recorded.device, recorded, data), request)
            _reply({"logged": True})


def _show_worst_gpu(recorded: CompiledStrategy, config: RunConfig, data: Prepared) -> None:
    """Where layers lie on several GPUs, let the run be that of the one which takes most."""
    if config.device.engine == "split":
        from memory_harness.probes.plan.predict import RecordedModel

        RecordedModel(config, strategy=recorded).show_worst_gpu(config, data)


def _execute(run: Run[Strategy], request: Request) -> Outcome:
    """Run into the request's log."""
    from memory_harness.harness.train.execute import execute

    measured = run.device.source == "cuda"
    with _logging(run.device, request) as write:
        return execute(run, write, Path(request["log"]).parent, rehearsal=measured)


def dry_run_request(config: RunConfig, arguments: DryRunArguments, log: Path) -> None:
    """Run a script dry into its log, with what lived at its peak; nothing that it prints is shown."""
    from memory_harness.probes.session.dry_run import DryRun

    device = config.device
    DryRun(
        **arguments,
        card=card_of(device),
        budget_bytes=budget_of(device),
        expandable_segments=device.expandable_segments,
        num_gpus=device.num_gpus,
        beside_bytes=bytes_beside(device),
        is_quiet=True,
        with_peak=True,
    ).run(log)
    _reply({"logged": True})


def run_planted(config: RunConfig, request: Request) -> None:
    """Run the configuration with a fault in it into its log."""
    _read_data(config)  # what cannot be used is told before PyTorch is imported
    from memory_harness.probes.faults import FAULTS, check_plantable, execute_with

    fault = FAULTS[str(request["fault"])]
    configured = fault.configure(config)
    data = fault.prepare(_read_data(configured))
    device = _open_device(configured)
    check_plantable(fault, config, configured, data, device)
    with _logging(device, request) as write:
        execute_with(fault, configured, device, data, write, Path(request["log"]).parent)
    _reply({"logged": True})
    _reply({"counts": []})


@contextmanager
def _logging(device: ObservableDevice, request: Request) -> Iterator[Callable[[Record], None]]:
    """Give what takes the records of a run: for its log, and to tell of its steps; write its snapshot in the end."""
    log, snapshot = Path(request["log"]), request["snapshot"]
    if snapshot is not None:
        device.record_history()
    if request.get("with_peak"):
        device.watch_peak()
    with LogWriter(log) as writer:
        reporter = _Reporter(writer.write)
        yield reporter.write
        for peak in device.phase_peaks(reporter.highest, reporter.vocab_size):
            writer.write(peak)
        if request.get("with_peak"):
            for part in device.peak_parts(read_run_log(log)):
                writer.write(part)
    if snapshot is not None:
        device.write_history(Path(snapshot), read_run_log(log).run)


def train_request(request: Request) -> None:
    """Train, and say how it ended; of several processes all train what the first is asked to."""
    group = _join()
    if group is not None:
        request = group.gather(request)[0]
    config, arguments = config_from_dict(request["config"]), request["train"]
    from memory_harness.harness.train.interrupts import stop_on_signals

    with stop_on_signals() as signals:
        data = _read_data(config)
        device = _open_device(config, group)
        config = _with_recomputation(config, data, device)
        from memory_harness.harness.strategies.registry import STRATEGIES
        from memory_harness.harness.train.finetune import fine_tune
        from memory_harness.harness.train.run import Run

        outcome = fine_tune(
            Path(arguments["run"]),
            Run(config, device, STRATEGIES[config.model.strategy](config, device), data),
            gate_reason=arguments["reason"],
            resume=None if arguments["resume"] is None else Path(arguments["resume"]),
            allow_changes=arguments["allow_changes"],
            stop_signal=lambda: signals.signal_name,
        )
    _reply({"trained": str(outcome)})


def generate_request(config: RunConfig, adapter: Path, log: Path) -> None:
    """Answer prompts with a trained adapter."""
    config = config.with_fields(num_gpus=1)  # it may have been trained on more
    data = _read_data(config)
    device = _open_device(config)
    from memory_harness.harness.strategies.registry import STRATEGIES
    from memory_harness.harness.train.finetune import answer_only
    from memory_harness.harness.train.run import Run

    answer_only(adapter, Run(config, device, STRATEGIES[config.model.strategy](config, device), data), log)
    _reply({"logged": True})


def _read_data(config: RunConfig) -> Prepared:
    if _handed is not None and _handed[0] == config:
        return _handed[1]
    if capabilities_of(config).is_imported_first:
        import_unsloth(config)  # before transformers, which reading the data may import
    return prepare(config)


def _join() -> Group | None:
    """Wait for the other processes that a launcher has started; None where there are none."""
    place = launched()
    if place is None:
        return None
    from memory_harness.harness.devices.parallel import join

    return join(place)


def _open_device(config: RunConfig, group: Group | None = None) -> ObservableDevice:
    import_libraries()
    import torch

    from memory_harness.harness.train.run import open_device

    if config.device.tensors == "real":
        torch.set_num_threads(1)  # tensors this small take longer to share out than to compute
    return open_device(config, group)


def _with_recomputation(config: RunConfig, data: Prepared, device: ObservableDevice) -> RunConfig:
    """Return the configuration with as few layers that compute again as fit, where that is to be found out."""
    if config.model.recompute != "auto":
        return config
    from memory_harness.probes.plan.recompute import with_fewest_recomputed

    card = None
    if device.source == "cuda":
        from memory_harness.harness.devices.cuda import host_card

        card = host_card(card_of(config.device))
    return with_fewest_recomputed(config, data, RECOMPUTE_HEADROOM, card)


def _with_recomputation_recorded(config: RunConfig, data: Prepared, strategy: CompiledStrategy) -> RunConfig:
    """Return the same of a run without values: what is recorded to find it out, the run replays."""
    if config.model.recompute != "auto":
        return config
    from memory_harness.probes.plan.predict import RecordedModel
    from memory_harness.probes.plan.recompute import fewest_recomputed

    rules, _ = fewest_recomputed(RecordedModel(config, strategy=strategy), config, data, RECOMPUTE_HEADROOM)
    strategy.inner.config = config.with_fields(recompute=rules)
    return strategy.inner.config


def _simulate_measured(config: RunConfig, data: Prepared, log: Path) -> None:
    """Simulate what was measured, and the whole run, on the card as this GPU emulates it; logs go beside the first."""
    from memory_harness.harness.devices.cuda import host_card
    from memory_harness.harness.strategies.compiled import CompiledStrategy
    from memory_harness.harness.train.execute import execute
    from memory_harness.harness.train.run import Run, make_strategy, simulate_card

    config = config.with_fields(tensors="fake")  # a GPU computes whatever this says
    device = simulate_card(config, host_card(card_of(config.device)))
    strategy = make_strategy(config, device)
    assert isinstance(strategy, CompiledStrategy)
    run = Run(config, device, strategy, data)
    for beside, rehearsal in ((predicted_log, True), (whole_run_log, False)):
        with LogWriter(beside(log)) as writer:
            execute(run, writer.write, log.parent, rehearsal=rehearsal)
        strategy.restart(device.budget_bytes, config.device.expandable_segments)


def _run_count(config: RunConfig, samples: int, strategy: CompiledStrategy) -> tuple[int, int, int, str] | None:
    """Run with another number of samples on what was recorded of the model; None where the corpus has fewer."""
    from memory_harness.harness.train.execute import execute
    from memory_harness.harness.train.run import Run

    config = config.with_fields(samples=samples)
    try:
        data = prepare(config)
    except DataError:
        return None
    strategy.start_over_with(config)
    last: dict[type, Any] = {}

    def write(record: Record) -> None:
        last[type(record)] = record

    outcome = execute(Run(config, strategy.device, strategy, data), write, Path())
    return samples, last[EndRecord].step, last[RunRecord].total_steps, str(outcome)


class _Reporter:
    """Passes records on, and tells the parent how far the run is, a few times a second."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._total = 0
        self._next = 0.0
        self.highest: dict[Phase, PhaseRecord | OomRecord] = {}
        """of each phase the record with the highest peak"""
        self.vocab_size = 0

    def write(self, record: Record) -> None:
        """Take a record."""
        self._write(record)
        if isinstance(record, (PhaseRecord, OomRecord)):
            before = self.highest.get(record.phase)
            if before is None or record.needed_bytes > before.needed_bytes:
                self.highest[record.phase] = record
        elif isinstance(record, RunRecord):
            self._total, self.vocab_size = record.total_steps, record.vocab_size
        elif isinstance(record, StepRecord) and time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_REPORTS
            _reply({"steps": (record.step, self._total)})


_handed: tuple[RunConfig, Prepared] | None = None
"""a configuration, and the data that the process that started this one has prepared for it"""
_requests: IO[str] = sys.stdin
"""where requests come from; once the process is a worker, libraries that ask find nobody to answer"""
_replies: IO[str] = sys.stdout
"""where replies go; once the process is a worker, what libraries print goes elsewhere"""


def _take_messages_aside(request_file: Path | None) -> None:
    """Keep standard input and output for messages; what libraries print goes to standard error."""
    global _requests, _replies
    _requests = os.fdopen(os.dup(0), encoding="utf-8") if request_file is None else request_file.open(encoding="utf-8")
    _replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)


def _reply(reply: Reply) -> None:
    print(json.dumps(reply), file=_replies, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
