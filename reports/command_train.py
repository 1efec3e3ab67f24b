"""The commands that train and generate: what has to hold before, and the report after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from memory_harness.configs.cli import Command
from memory_harness.configs.errors import HarnessError
from memory_harness.configs.launch import leads
from memory_harness.configs.preset import RUN_SUFFIX
from memory_harness.configs.program import command_line, say
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.manifest import LOG_FILE, checkpoints, newest_checkpoint, other_gpus, read_manifest
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog, read_rank_logs, read_run_log
from memory_harness.harness.results.experiments import check_artefacts
from memory_harness.harness.results.hub import check_hub
from memory_harness.probes.detectors import detect
from memory_harness.probes.session.gate import (
    FORCED,
    Gate,
    check_num_gpus,
    check_trainable,
    find_passing_probe,
    gate_of_run,
    is_complete,
    run_of,
    source_of,
)
from memory_harness.probes.session.process import how_to_go_on, start_worker
from memory_harness.probes.session.session import Session
from memory_harness.probes.session.train import adapter_in, train_in_worker, train_with_others
from memory_harness.reports import training
from memory_harness.reports.command_probe import probe, result_of_session
from memory_harness.reports.companion import Follow
from memory_harness.reports.files import new_folder, write_files, write_report
from memory_harness.reports.live import follow
from memory_harness.reports.next_step import after_training
from memory_harness.reports.summary import NextStep, ProbeResult, result_of_log
from memory_harness.reports.terminal import make_console


def train(command: Command, arguments: Sequence[str], follow_logs: Follow) -> int:
    """Train what a probe lets in, or go on with what was let in before, and report on it; return the exit code."""
    config = command.config
    if not leads():
        return _train_with_others(command)
    if command.resume is not None:  # its results go beside it, wherever it lay when it began
        config = config.with_fields(output=str(run_of(command.resume).parent))
    # first: what cannot be gone on with is no matter of weights
    resumed = None if command.resume is None else gate_of_run(command.resume, config)
    source = _check_before_training("--train" if command.resume is None else "--resume", config)
    check_num_gpus(config, source)
    if config.model.random_weights:
        say("--random-weights: the loss and the replies will mean nothing")
    before: ProbeResult | None = None
    gate: Gate | None
    if command.resume is not None and resumed is not None:
        gate, run = resumed, run_of(command.resume)
        if not command.allow_changes and is_complete(command.resume, config):
            say(f"{run}: complete, nothing is left to do; --generate {run} answers more questions with it")
            return _report_training(command, run)
        say(other_gpus(read_manifest(newest_checkpoint(command.resume)), config))
    else:
        before, gate = _gate(command, arguments, source, follow_logs)
        if before is not None:
            write_report(command, before)
        if gate is None:
            say("not trained: the probe did not pass; --force trains all the same")
            return 1
        run = new_folder(Path(config.output.output), f"{gate.config.fingerprint()}{RUN_SUFFIX}")
    follow_logs(run)
    with follow(run / LOG_FILE, make_console()) as watch:
        train_in_worker(gate, run, watch, say, resume=command.resume, allow_changes=command.allow_changes)
    return _report_training(command, run, before)


def _train_with_others(command: Command) -> int:
    """Take part in what the first of several processes trains, and reports on; return the exit code."""
    resume, config = command.resume, command.config
    check_num_gpus(config, source_of(config))
    if resume is not None and not command.allow_changes and is_complete(resume, config):
        return 0
    return train_with_others()


def _report_training(command: Command, run: Path, before: ProbeResult | None = None) -> int:
    """Report on a training run; `before` is the probe that let it in, where there was one now."""
    log = read_run_log(run / LOG_FILE)
    predicted = (before.with_fixes or before.as_configured).peak_reserved_bytes if before is not None else None
    ranks = read_rank_logs(run)
    beside = [log, *ranks[1:]] if ranks else []
    trained = training.TrainingResult(log, detect(log, beside), training.artefacts_in(run), predicted, ranks)
    page = None
    if command.html is not None:
        page = training.training_page(trained, training.replies_of(run.parent, log.run))
    shown = replace(before or result_of_log(log), goes_on=False, next_step=_step_after(run, log))
    write_files(command, shown, training.training_to_json(trained), page)
    training.print_training(trained, make_console())
    if log.outcome is Outcome.STOPPED:
        say(how_to_go_on(run))
    return training.training_exit_code(log)


def _step_after(run: Path, log: RunLog) -> NextStep | None:
    """Return what to do after a training run; None where its log says it as that of a probe does."""
    if log.outcome is Outcome.COMPLETED:
        return after_training(run)
    return NextStep("Go on with it:", command_line(["--resume", str(run)])) if checkpoints(run) else None


def _check_before_training(flag: str, config: RunConfig) -> str:
    """Make sure that training is possible and its results can be written, before minutes go into a probe.

    Returns:
        Where it would run: `cuda` or `simulated`.
    """
    source = source_of(config)
    check_trainable(flag, config, source == "cuda" or config.device.tensors == "real")
    check_artefacts(check_output(config))
    if config.output.push_to_hub is not None:
        check_hub(config.output.push_to_hub)
    return source


def _gate(
    command: Command, arguments: Sequence[str], source: str, follow_logs: Follow
) -> tuple[ProbeResult | None, Gate | None]:
    """Return the probe that decides whether to train, one of before or a new one, and what it lets in."""
    if command.force:
        return None, Gate(command.config, FORCED)
    # a snapshot is of a probe's memory: one is made
    if command.snapshot is None and (found := find_passing_probe(command.config, source)):
        gate, evidence = found
        passed = result_of_session(evidence) if isinstance(evidence, Session) else result_of_log(evidence)
        return replace(passed, goes_on=True), gate
    return probe(command, arguments, follow_logs)


def generate(command: Command) -> int:
    """Answer prompts with the adapter of a training run; return the exit code."""
    assert command.generate is not None
    config = command.config
    adapter = adapter_in(command.generate)
    _check_before_training("--generate", config)
    folder = new_folder(Path(config.output.output), "generate")
    try:
        with start_worker() as worker:
            log = worker.generate(config, adapter, folder / LOG_FILE)
    except HarnessError:
        with suppress(OSError):  # kept where something was written
            folder.rmdir()
        raise
    result = replace(result_of_log(log), next_step=after_training(command.generate))
    if log.outcome is Outcome.COMPLETED:
        write_files(command, result)
        training.print_replies(Path(config.output.output), log.run, make_console())
    else:
        write_report(command, result)
    return training.training_exit_code(log)
