"""The command line into a `Command`: every field of the schema is a flag.

Precedence: flag, then preset, then the default written in the schema.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memory_harness.configs import schema
from memory_harness.configs.cards import budget_of, card_of, with_own_card
from memory_harness.configs.completion import completion_script
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.flags import field_help, flag_of
from memory_harness.configs.help import full_help, short_help
from memory_harness.configs.launch import launched_gpus
from memory_harness.configs.models import CONFIG_FILES, DATA_FILES, download, is_hub_name
from memory_harness.configs.modes import OPTION_GROUPS, RECIPE, as_flag, mode_problems
from memory_harness.configs.modules import runnable_module
from memory_harness.configs.preset import (
    DEFAULT_PRESET,
    RUN_CONFIG,
    config_of_run,
    load_preset,
    newest_run,
    real_folder,
)
from memory_harness.configs.program import program
from memory_harness.configs.recipes.draft import Recipe, Target
from memory_harness.configs.recipes.read import import_recipe
from memory_harness.configs.release import versions
from memory_harness.configs.schema import SECTIONS, RunConfig, fields_of_sections, section_by_field
from memory_harness.configs.strategies import capabilities_of, with_fixed_settings
from memory_harness.configs.tables import did_you_mean, unknown_name
from memory_harness.configs.units import parse_increase, parse_part
from memory_harness.configs.validation import validate
from memory_harness.configs.values import from_text, is_size, to_text, without_none

NO_FLAGS = ("config", "script_arguments", "module", "gpu_is_named", "recipe", "given")
"""Fields of `Command` that are no options."""

ALL_CAUSES = "all"
"""What `--explain` without a value stands for."""

ANY_PORT = -1
"""What `--live` without a value stands for."""

NEWEST = Path("newest")
"""What `--resume` without a value stands for."""

RECIPE_SAMPLES = 600
"""Rows of the synthetic corpus for another program's recipe, whose data are not here: those of the default preset."""

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""What `--log-to` may name."""

DEFAULT_HEADROOM = "5 %"
"""Predicted and measured reserved memory differed by 0.7 % at most; the rest is for what else may come to lie on the
card: a second CUDA context or a library's workspace takes 0.1 to 0.3 GiB of a 16 GB card."""


@dataclass(frozen=True)
class Command:
    """What the command line asks for: a configuration, and options that are no part of it."""

    config: RunConfig
    preset: str = field(default=DEFAULT_PRESET, metadata={"metavar": "NAME|FILE"})
    """name of a preset, or a TOML file with the same sections"""
    import_recipe: Path | None = None
    """take another program's recipe instead of a preset, and list what of it cannot be said: YAML of axolotl,
    LLaMA-Factory or TRL, JSON of TrainingArguments, a program or notebook that calls Unsloth"""
    estimate: bool = False
    """say in one line what the run takes, and whether it fits: simulated once, and told at once from then on, until a
    setting, a file or a package changes"""
    replay: Path | None = field(default=None, metadata={"metavar": "LOG"})
    """report on the log of an earlier run, the folder of an earlier probe, or a memory snapshot; runs nothing"""
    traceback: Path | None = field(default=None, metadata={"metavar": "FILE"})
    """explain an out-of-memory from its text, - for standard input: where it happened, who held the memory, likely
    causes; with --preset, --import-recipe or --model that run is simulated beside it"""
    compare: list[Path] | None = field(default=None, metadata={"metavar": ("A", "B"), "each": Path})
    """say what changed from the log or probe folder A to B; exit code 0 no worse, 1 worse, 2 not comparable"""
    against: str | None = field(default=None, metadata={"metavar": "NAME==VERSION"})
    """simulate the run, or --dry-run SCRIPT, under other versions of the libraries too, such as "transformers==5.17",
    and say what an upgrade from the older ones to the newer ones changes, by line; they are fetched with pip once"""
    fail_on_increase: str | None = field(default=None, metadata={"metavar": "SHARE|SIZE"})
    """with --against: by how much the peaks may rise, such as 5% or "100 MiB"; beyond it the exit code is 1"""
    json: Path | None = None
    """write the report to this file as JSON"""
    svg: Path | None = None
    """write the report to this file as a picture"""
    html: Path | None = None
    """write the report to this file as a page that any browser shows, with charts and the lines of code"""
    folded: Path | None = None
    """write the calls that made what lived at the peak of each phase to this file, as the folded stacks that flame
    graph viewers read"""
    perfetto: Path | None = None
    """write phases, steps and memory over time to this file, for ui.perfetto.dev or chrome://tracing"""
    live: int | None = field(default=None, metadata={"metavar": "PORT", "bare": ANY_PORT})
    """show the run on a page of this machine while it runs; without a PORT any free one"""
    log_to: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME,..."})
    """send losses and memory of the running training, or of a script that is watched, to these trackers: tensorboard,
    wandb, mlflow, trackio; each has to be installed"""
    snapshot: Path | None = None
    """write the memory at the end of the run as configured, or of a script run dry, to this file, for PyTorch's memory
    viewer"""
    explain: str | None = field(default=None, metadata={"metavar": "CAUSE", "bare": ALL_CAUSES})
    """say what a cause is, how it looks, how to test for it and how to fix it, and end; lists all without a name"""
    mcp: bool = False
    """answer agents as an MCP server on standard input and output: probe, estimate, dry run, replay, compare, explain;
    writes nothing outside of --output"""
    human_sheet: Path | None = field(default=None, metadata={"metavar": "DIR"})
    """write a blind sheet for people to rate the last replies in that folder's GeneratedResponses.json, and end"""
    score_sheet: Path | None = None
    """say what the ratings in such a sheet, filled in, amount to, and end"""
    watch: str | None = field(default=None, metadata={"metavar": "SCRIPT"})
    """run this Python script, or notebook, or `-m` MODULE, unmodified, and report on its memory; its own arguments
    follow `--`"""
    dry_run: str | None = field(default=None, metadata={"metavar": "SCRIPT"})
    """run this Python script, unmodified, on a card that is not there: no GPU, no weights; its arguments follow `--`"""
    steps: int | None = None
    """with --dry-run: stop after so many optimizer steps; as it is, training ends when nothing new comes any more"""
    worst_first: bool = False
    """with --dry-run: the script's own data loader gives its largest batches first"""
    override: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME=VALUE,..."})
    """with --dry-run: settings of the script to change from outside, such as per_device_eval_batch_size=1"""
    fault: str | None = field(default=None, metadata={"metavar": "NAME"})
    """plant this mistake in the run, to see whether it is found, and stop at the diagnosis; every step goes through
    PyTorch then, so that a large model needs --max-steps; an unknown name lists all"""
    goal: Literal["none", "speed", "memory"] = "none"
    """plan the fixes: speed, the cheapest that pass; memory, all that lower the peak; none, those for what is found"""
    headroom: str = field(default=DEFAULT_HEADROOM, metadata={"metavar": "SHARE|SIZE"})
    """what a plan and the limits leave free of the budget: a share such as "5 %", or a size"""
    limits: bool = False
    """find the largest micro-batch, length and token cap that fit, with the fixes that were applied"""
    no_fixes: bool = False
    """stop at the diagnosis: neither try nor apply fixes"""
    train: bool = False
    """fine-tune once a probe of the same configuration has passed, with the fixes it took; generate, score, report"""
    force: bool = False
    """with --train: train what is configured without a probe; the log says so"""
    resume: Path | None = field(default=None, metadata={"metavar": "RUN", "bare": NEWEST})
    """go on with a training run: its folder, or one of its checkpoints; the newest in --output without a value"""
    allow_changes: bool = False
    """with --resume: go on although the configuration or the corpus has changed"""
    generate: Path | None = field(default=None, metadata={"metavar": "RUN"})
    """only answer prompts with the adapter of a training run: its folder, or that of any adapter in peft's format"""
    download: bool = False
    """fetch what this machine lacks from the Hugging Face Hub: the model's configuration and tokenizer, and its weights
    where it trains or generates"""
    script_arguments: tuple[str, ...] = ()
    """what follows `--`"""
    module: str = ""
    """the name of what is watched where it was given as `-m MODULE`"""
    gpu_is_named: bool = False
    """`--gpu` or what describes a card was given: the default card is not meant where there is a GPU"""
    recipe: Recipe | None = None
    """what `--import-recipe` names says, and what became of it"""
    given: frozenset[str] = frozenset()
    """settings and options that the command line names"""

    @property
    def headroom_bytes(self) -> int:
        """What a plan and the limits leave free. Raises ConfigError: no share or size, or not below the budget."""
        try:
            return parse_part(self.headroom, budget_of(self.config.device))
        except ValueError as error:
            raise ConfigError(f"--headroom: {error}") from None


def parse_args(argv: Sequence[str]) -> Command:
    """Return the command that the arguments (without the program's name) stand for.

    Raises:
        ConfigError: a flag, a preset, a value or a combination of values is not usable.
        SystemExit: --help was given (code 0).
    """
    parser = build_parser()
    end = list(argv).index("--") if "--" in argv else len(argv)
    (arguments, module), script_arguments = _with_file_of_module(list(argv[:end])), tuple(argv[end + 1 :])
    try:
        namespace, extra = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error.argument_name}: {error.message}") from None
    if extra:
        raise ConfigError(_unknown_arguments(extra))
    given = vars(namespace)
    options = {field.name: given.pop(field.name) for field in _option_fields() if field.name in given}
    options = {name: value for name, value in options.items() if value is not None}  # `none` is not to give it
    settings = {flag_of(item): section for section, item in fields_of_sections() if item.name in given}
    if problems := mode_problems(options.keys(), settings):
        raise ConfigError(problems)
    if options.get("resume") == NEWEST:
        options["resume"] = newest_run(Path(given.get("output", RunConfig().output.output)))
    for name in ("resume", "generate"):
        if name in options:
            options[name] = real_folder(options[name])
    recipe = _imported(options, given)
    base = _base_config(options) if recipe is None else RunConfig().with_fields(**recipe.fields)
    watches = not {"watch", "dry_run"}.isdisjoint(options)  # which are for scripts that know by themselves
    gpus = {} if watches else launched_gpus(given.get("num_gpus"))
    changes = {**with_own_card(given), **gpus}
    if not {"resume", "generate"}.isdisjoint(options):
        changes = {**_shared_anew(base, changes), **changes}
    config = with_fixed_settings(base.with_fields(**changes))
    if "download" in options and is_hub_name(config.model.model):  # before anything asks what its config.json says
        download(config.model.model, CONFIG_FILES)
    if "download" in options and config.data.data is not None and is_hub_name(config.data.data):
        download(config.data.data, DATA_FILES, "dataset")
    gpu_is_named = not given.keys().isdisjoint(("gpu", "gpu_file", "context_bytes"))
    validate(config, takes_any_gpu="watch" in options and not gpu_is_named, is_for_script=watches)
    command = Command(
        config,
        **options,
        script_arguments=script_arguments,
        module=module,
        gpu_is_named=gpu_is_named,
        recipe=recipe,
        given=frozenset(given.keys() | options.keys()),
    )
    _check_options(command)
    return command


def _with_file_of_module(arguments: list[str]) -> tuple[list[str], str]:
    """Return the arguments with its file in the place of `-m MODULE` after `--watch`, and the module's name.

    Raises:
        ConfigError: there is no such module, or it has no file that can be run.
    """
    place = arguments.index("--watch") if "--watch" in arguments else len(arguments)
    if arguments[place + 1 : place + 2] != ["-m"]:
        return arguments, ""
    name = next(iter(arguments[place + 2 : place + 3]), "")
    module, file = runnable_module(name)
    if file is None:
        raise ConfigError(
            f"--watch -m {name}: no such module; give one of the current folder or an installed one, as package.module"
        )
    return [*arguments[: place + 1], file, *arguments[place + 3 :]], module


def _shared_anew(base: RunConfig, changes: Mapping[str, Any]) -> dict[str, str]:
    """Return the setting of how GPUs share the model of a run that goes on with one instead of several, or back.

    What the run was given for one number means nothing, and is refused, with the other.
    """
    before = base.device.num_gpus
    was_alone, is_alone = before == 1, changes.get("num_gpus", before) == 1
    return {} if was_alone == is_alone else {"sharding": "auto"}


def _imported(options: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe of another program that the flags change; None where none is named.

    Raises:
        ConfigError: it cannot be read, names no model, or something else is to be run.
    """
    file = options.get("import_recipe")
    if file is None:
        return None
    if "preset" in options:
        raise ConfigError(f"--import-recipe {file}: not beside --preset; give one of the two")
    card = card_of(RunConfig().with_fields(**with_own_card(dict(given))).device)
    half = "bfloat16" if card.has_bfloat16 else "float16"
    recipe = import_recipe(file, Target(card.title, half, exact_model=bool({"train", "download"} & options.keys())))
    if "model" not in given and "model" not in recipe.fields:
        raise ConfigError(f"--import-recipe {file}: names no model; give one with --model")
    if given.keys().isdisjoint(("data", "samples", "batches")) and recipe.fields.get("samples") is None:
        note = f"a synthetic corpus of {RECIPE_SAMPLES} samples stands in; --data and --samples name another"
        fields = {**recipe.fields, "samples": RECIPE_SAMPLES}
        return dataclasses.replace(recipe, fields=fields, remarks=(*recipe.remarks, note))
    return recipe


def _base_config(options: dict[str, Any]) -> RunConfig:
    """Return the configuration that the flags change: that of the run gone on with, else the preset's."""
    for name in ("resume", "generate"):
        config = config_of_run(f"--{name}", options[name]) if name in options else None
        if config is not None:
            if "preset" in options:
                raise ConfigError(f"--preset: --{name} takes the configuration of the run; leave it out")
            return config
    if "resume" in options and "preset" not in options:
        raise ConfigError(
            f"--resume {options['resume']}: no training run (it has no {RUN_CONFIG}); name the folder of one, or give "
            "the --preset it began with"
        )
    return load_preset(options.get("preset", DEFAULT_PRESET))


def _prediction_problems(command: Command) -> list[str]:
    """Return what --goal and --limits, which run single phases, cannot predict."""
    if command.goal == "none" and not command.limits:
        return []
    config, problems = command.config, []
    if capabilities_of(config).not_simulated:
        problems.append(f"--strategy {config.model.strategy}: --goal and --limits predict --strategy qlora only")
    if config.train.objective == "grpo":
        problems.append("--objective grpo: --goal and --limits do not predict rollouts; leave them out")
    if config.eval.eval_generate:
        problems.append("--eval-generate: --goal and --limits do not predict generation; leave it or them out")
    return problems


def _comparison_problems(command: Command) -> list[str]:
    """Return the options that mean nothing where ways to share a model are compared."""
    if command.config.device.sharding != "all":
        return []
    options = {item.name for item in _option_fields()} - {"json", *RECIPE}
    return [f"{as_flag(name)}: has no meaning beside --sharding all" for name in sorted(command.given & options)][:1]


def _check_options(command: Command) -> None:
    problems = _prediction_problems(command)
    if command.goal != "none" and command.no_fixes:
        problems.append(f"--goal {command.goal}: --no-fixes tries none; leave out one of the two")
    if command.force and command.snapshot is not None:
        problems.append(f"--snapshot {command.snapshot}: is of a probe, which --force does not run; leave out one")
    problems += _same_file_problems(command) + _comparison_problems(command)
    try:
        _ = command.headroom_bytes
    except ConfigError as error:
        problems += error.problems
    if command.script_arguments and command.watch is None and command.dry_run is None:
        first = command.script_arguments[0]
        problems.append(f"-- {first}: only a script has arguments of its own; add --watch SCRIPT or --dry-run SCRIPT")
    problems += _following_problems(command) + _against_problems(command)
    if command.steps is not None and command.steps < 1:
        problems.append(f"--steps {command.steps}: must be at least 1")
    if problems:
        raise ConfigError(problems)


def _following_problems(command: Command) -> list[str]:
    """Return what is wrong with the flags that follow a run while it runs."""
    problems = []
    if command.live is not None and not (command.live == ANY_PORT or 0 < command.live < 2**16):
        problems.append(f"--live {command.live}: not a port (allowed: 1 to 65535, or none for any that is free)")
    unknown = [name for name in command.log_to if name not in TRACKERS]
    problems += [unknown_name("--log-to", name, TRACKERS) for name in unknown]
    return problems


def _against_problems(command: Command) -> list[str]:
    """Return what is wrong with the versions to compare with, and what has no meaning beside them."""
    if command.against is None:
        increase = command.fail_on_increase
        return [] if increase is None else [f"--fail-on-increase {increase}: compares versions; add --against"]
    from memory_harness.configs.pins import read_pins  # packaging takes a while to import

    problems: list[str] = []
    try:
        read_pins(command.against)
        if command.fail_on_increase is not None:
            parse_increase(command.fail_on_increase)
    except ConfigError as error:
        problems += error.problems
    except ValueError as error:
        problems.append(f"--fail-on-increase {command.fail_on_increase}: {error}")
    if command.config.device.device == "cuda":
        problems.append("--device cuda: --against simulates both runs; leave it out")
    if capabilities_of(command.config).not_simulated:
        problems.append(f"--strategy {command.config.model.strategy}: --against simulates --strategy qlora only")
    return problems


def _same_file_problems(command: Command) -> list[str]:
    """Return the reports that would overwrite each other."""
    seen: dict[Path, str] = {}
    problems = []
    for name in ("json", "svg", "html", "snapshot", "folded", "perfetto"):
        path = getattr(command, name)
        if path is None:
            continue
        other = seen.setdefault(Path(os.path.realpath(path)), name)
        if other != name:
            problems.append(f"--{name} {path}: --{other} writes the same file; name another")
    return problems


def build_parser() -> argparse.ArgumentParser:
    """Return the parser: one flag per field of the schema, in a group per section, and the options of `Command`."""
    parser = argparse.ArgumentParser(
        prog=" ".join(program()),
        usage="%(prog)s [--flag VALUE ...] [-- ARGUMENTS OF A SCRIPT]     (--help alone shows what it is for)",
        description="Says why a fine-tune runs out of GPU memory, without a GPU, proves the cheapest fix, and trains.",
        epilog=f"Defaults are those of the preset {DEFAULT_PRESET}. Exit codes: 0 the run fits, as configured or with"
        " verified fixes; 1 it does not; 2 something in the request is wrong; 3 the run died; 4 this program has"
        " a defect.",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    _add_questions(parser)
    _add_options(parser)
    defaults = load_preset(DEFAULT_PRESET)
    help_lines = field_help(inspect.getsource(schema))
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section, inspect.getdoc(cls))
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            default = getattr(getattr(defaults, section), item.name)
            _add_flag(group, item, hints[item.name], help_lines[cls.__name__, item.name], default)
    return parser


class _Help(argparse.Action):
    """Shows the help and ends: that of a page, or with the word `all` every flag."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        if values not in (None, "all"):
            raise argparse.ArgumentError(self, f"{values!r} is no help there is (allowed: --help, --help all)")
        _show(parser, short_help(parser) if values is None else full_help(parser))


class _Version(argparse.Action):
    """Shows which release this is, of the harness and of the libraries that its numbers rest on, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        _show(parser, f"{versions()}\n")


class _Completion(argparse.Action):
    """Shows the script by which a shell completes flags and their values, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        _show(parser, completion_script(parser, values))


def _show(parser: argparse.ArgumentParser, text: str) -> None:
    sys.stdout.write(text)
    parser.exit()


def _add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("questions", "What the program says of itself.")
    text = "show what it is for; with the word all, every flag"
    group.add_argument("--help", "-h", action=_Help, nargs="?", metavar="all", help=text)
    group.add_argument("--version", action=_Version, nargs=0, help="show the release, and those of the libraries")
    text = "show the script by which a shell completes flags and values (needs shtab)"
    group.add_argument("--completion", action=_Completion, metavar="{bash,zsh,tcsh}", help=text)


def _add_options(parser: argparse.ArgumentParser) -> None:
    help_lines = field_help(inspect.getsource(Command))
    hints = typing.get_type_hints(Command)
    fields = {item.name: item for item in _option_fields()}
    for title, names in OPTION_GROUPS.items():
        group = parser.add_argument_group(title)
        for item in (fields[name] for name in names):
            line = help_lines[Command.__name__, item.name]
            if item.default is False:
                group.add_argument(flag_of(item), action="store_true", help=line)
            else:
                _add_flag(group, item, hints[item.name], line, item.default)


def _option_fields() -> list[dataclasses.Field[Any]]:
    return [item for item in dataclasses.fields(Command) if item.name not in NO_FLAGS]


def _add_flag(group: argparse._ArgumentGroup, item: dataclasses.Field[Any], hint: Any, line: str, default: Any) -> None:
    shown = "" if default in (None, ()) else f" (default: {to_text(default, item)})"
    text = f"{' '.join(line.split())}{shown}".replace("%", "%%")
    flag, name = flag_of(item), item.name
    if "value_into" in item.metadata:
        group.add_argument(flag, dest=name, action=_FlagWithValue, value_into=item.metadata["value_into"], help=text)
    elif hint is bool:
        group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
    else:
        bare = item.metadata.get("bare")  # what the flag means without a value
        nargs: int | str | None = "?" if bare else None
        if "each" in item.metadata:  # a flag of several values
            nargs, hint = len(item.metadata["metavar"]), item.metadata["each"]
        read, metavar = _reader(hint, item), _metavar(hint, item)
        group.add_argument(flag, dest=name, type=read, metavar=metavar, nargs=nargs, const=bare, help=text)


class _FlagWithValue(argparse.BooleanOptionalAction):
    """A flag that may have a value, which is another field's."""

    def __init__(self, *args: Any, value_into: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nargs = "?"
        self._value_into = value_into

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, values, option_string)
        if values is None:
            return
        section = SECTIONS[section_by_field()[self._value_into]]
        (item,) = (item for item in dataclasses.fields(section) if item.name == self._value_into)
        try:
            setattr(namespace, item.name, from_text(values, typing.get_type_hints(section)[item.name], item))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None


def _reader(hint: Any, item: dataclasses.Field[Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return from_text(text, hint, item)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _metavar(hint: Any, item: dataclasses.Field[Any]) -> str:
    kind, _ = without_none(hint)
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    if is_size(item):
        return "SIZE"
    return item.metadata.get("metavar") or {int: "N", float: "X", Path: "FILE"}.get(kind, "A,B,...")


def _unknown_arguments(extra: Sequence[str]) -> list[str]:
    unknown = [argument.partition("=")[0] for argument in extra if argument.startswith("-")]
    if not unknown:
        return [f"unexpected argument {extra[0]!r}: every value follows a flag"]
    known = [flag_of(item) for _, item in fields_of_sections()] + list(map(flag_of, _option_fields()))
    known += ["--help", "--version", "--completion"]
    return [f"unknown flag {flag}{did_you_mean(flag, known) or ' (--help all lists every flag)'}" for flag in unknown]
