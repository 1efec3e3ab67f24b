"""What to do after a report, in words and as a command to copy; never missing, and called as it is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.flags import flags_between
from memory_harness.configs.models import find_model, hub_cache_folder, hub_id
from memory_harness.configs.preset import DEFAULT_PRESET, load_preset
from memory_harness.configs.program import command_line
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.sharding import shared_by
from memory_harness.configs.strategies import capabilities_of
from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Finding, first_error
from memory_harness.probes.fixes import BY_NAME, propose
from memory_harness.probes.plan.choose import planned_fix
from memory_harness.reports.blocks import Block, Command, Paragraph, Section
from memory_harness.reports.summary import NextStep, ProbeResult

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
PAGE = "report.html"
QUESTION = "How do I sleep better?"


class AppliedFix(NamedTuple):
    """A fix that is part of what fits, and the flags that make it."""

    name: str
    title: str
    flags: str


def next_step(result: ProbeResult, arguments: Sequence[str] | None = None) -> NextStep:
    """Return what to do next.

    Args:
        result: what the report shows.
        arguments: of the command that made it; without them the log says what was configured.
    """
    log = result.as_configured
    if log.run.script:
        return _after_a_script(result, arguments)
    if not has_config(log) or log.run.fault:
        return _explanation(result) or _as_a_page(arguments)
    given = _arguments_of(config_of(log)) if arguments is None else list(arguments)
    if result.verdict == "fail":
        return _after_a_failure(result, given)
    return _training(result, given)


def after_replay(path: Path, result: ProbeResult, *, is_on_a_page: bool = False) -> NextStep:
    """Return what to do after an earlier run was shown, whose log or folder that is."""
    log = result.as_configured
    run = path.parent if path.name == LOG_FILE else path
    if log.run.let_in_by and log.outcome is Outcome.COMPLETED and run.is_dir():
        return after_training(run)
    shown = ["--replay", str(path), *(["--html", PAGE] if is_on_a_page else [])]
    return next_step(result, None if has_config(log) else shown)


def after_training(run: Path) -> NextStep:
    """Return how to ask what a training run has trained."""
    return NextStep("Ask what was trained:", command_line(["--generate", str(run), "--ask", QUESTION]))


def after_comparison(path: Path) -> NextStep:
    """Return what to do after two runs or two snapshots were compared, of which `path` is the second."""
    return NextStep("See B in full:", command_line(["--replay", str(path)]))


def after_traceback(cause: str | None, simulated: RunLog | None) -> NextStep:
    """Return what to do after a traceback was read, with the run that was simulated beside it."""
    if cause is not None:
        return _about(cause)
    if simulated is not None and has_config(simulated):
        return NextStep("Look for what makes that run fit:", command_line(_arguments_of(config_of(simulated))))
    return NextStep("All causes that are known:", command_line(["--explain"]))


def after_shardings(config: RunConfig, engine: str | None, *, is_tight: bool = False) -> NextStep:
    """Return what to do once the ways to share a model are known; `engine` is the one to take.

    Args:
        config: what they were compared for.
        engine: None where none fits.
        is_tight: whether it may fit, which the comparison cannot tell.
    """
    if engine is not None and is_tight:
        return NextStep("Find out whether it fits:", command_line(_arguments_of(shared_by(config, engine))))
    if engine is None:
        alone = config.with_fields(sharding="auto", num_gpus=1)
        return NextStep("Look for what makes it fit one of them:", command_line(_arguments_of(alone)))
    taken = _arguments_of(shared_by(config, engine))
    words = "Train so, on a machine that has the GPUs:"
    return NextStep(words, command_line([*taken, "--train", *_download(config)]))


def next_section(step: NextStep, before: Sequence[Block] = ()) -> Section:
    """Return what a report says of it; `before` comes first."""
    return Section("next", "Next", body=[*before, Paragraph(step.words), Command(step.command)])


def applied_fixes(result: ProbeResult) -> Iterator[AppliedFix]:
    """Yield the fixes that are part of what fits, each with the flags that it stands for."""
    config = config_of(result.as_configured) if has_config(result.as_configured) else None
    for tried in result.fixes:
        if config is None or tried.name not in BY_NAME or not tried.applied:
            continue
        changed = planned_fix(result.plan, tried.name).apply(config)
        if changed is not None:
            yield AppliedFix(tried.name, tried.title, " ".join(flags_between(config, changed)))
            config = changed


def flags_against(finding: Finding, log: RunLog) -> str:
    """Return the flags of the cheapest fix for a finding; nothing where there is none for this configuration."""
    if not has_config(log):
        return ""
    config = config_of(log)
    for fix in propose([finding], config):
        changed = fix.apply(config)
        if changed is not None:
            return " ".join(flags_between(config, changed))
    return ""


def _arguments_of(config: RunConfig) -> list[str]:
    return flags_between(load_preset(DEFAULT_PRESET), config)


def _fix_flags(result: ProbeResult) -> list[str]:
    """Return the flags between what was configured and what fits."""
    if result.with_fixes is None or not has_config(result.with_fixes):
        return []
    return flags_between(config_of(result.as_configured), config_of(result.with_fixes))


def _training(result: ProbeResult, given: list[str]) -> NextStep:
    log, flags = result.as_configured, _fix_flags(result)
    config = config_of(log)
    if config.train.objective == "grpo" or (log.run.model is not None and not log.run.vocab_size):
        return _as_a_page([*given, *flags])
    computes = log.run.source == "cuda" or config.device.tensors == "real"
    where = "" if computes else ", on a machine that has the GPU"
    words = "Train with what fits" if flags else "Train it"
    more = ["--train", *_download(config)]
    return NextStep(f"{words}{where}:", command_line([*given, *flags, *(flag for flag in more if flag not in given)]))


def _download(config: RunConfig) -> list[str]:
    """Return what fetches the weights, where they are the Hub's and not here."""
    try:
        shape = find_model(config.model.model)
    except ConfigError:  # a log of another machine
        return []
    needs_them = hub_id(shape) is not None and hub_cache_folder(shape, *WEIGHTS) is None
    return ["--download"] if needs_them and not config.model.random_weights else []


def _after_a_failure(result: ProbeResult, given: list[str]) -> NextStep:
    log = result.as_configured
    if log.fatal_oom is None:
        return _explanation(result) or NextStep("Run it again:", command_line(given))
    if not result.fixes:
        tried_all = [argument for argument in given if argument != "--no-fixes"]
        return NextStep("Try the fixes that there are:", command_line(tried_all))
    config = config_of(log)
    is_predicted = not capabilities_of(config).not_simulated and config.train.objective != "grpo"
    if result.plan is None and is_predicted and not config.eval.eval_generate:
        words = "Plan all fixes that lower the peak, and find the largest batch and length that fit:"
        return NextStep(words, command_line([*given, "--goal", "memory", "--limits"]))
    return _explanation(result) or _as_a_page(given)


def _after_a_script(result: ProbeResult, arguments: Sequence[str] | None) -> NextStep:
    helpful = [fix.name for fix in result.fixes if fix.verified]
    if arguments is not None and helpful and "=" in helpful[0]:
        words = f"It would fit with {helpful[0]}; run it dry with that:"
        return NextStep(words, command_line(_before_script(arguments, ["--override", helpful[0].replace(" ", "")])))
    if result.verdict == "fail" and result.as_configured.outcome is not Outcome.STOPPED:
        return _explanation(result) or _as_a_page(arguments)
    return _as_a_page(arguments)


def _explanation(result: ProbeResult) -> NextStep | None:
    """Return what says more about the cause that was found."""
    error = first_error(result.findings)
    if error is None and result.causes:
        cause = result.causes[0].cause
    elif error is not None:
        cause = error.cause
    else:
        return None
    return _about(cause)


def _about(cause: str) -> NextStep:
    return NextStep("What this cause is, how to test for it, how to fix it:", command_line(["--explain", cause]))


def _as_a_page(arguments: Sequence[str] | None) -> NextStep:
    if arguments is None or "--html" in arguments:
        return NextStep("All that it can do:", command_line(["--help"]))
    return NextStep("See it as a page:", command_line(_before_script(arguments, ["--html", PAGE])))


def _before_script(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the arguments with more flags, before those of a script."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    return [*given[:end], *flags, *given[end:]]
