"""What a command line can ask for, in one table: each mode, its example, and the options that mean something to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

RECIPE = ("preset", "import_recipe", "download")
REPORTS = ("json", "svg", "html")
TRACES = ("folded", "perfetto")
FOLLOWED = ("live", "log_to")
PLANNING = ("goal", "headroom", "limits", "no_fixes")
SCRIPT = ("steps", "worst_first", "override", "no_fixes", "snapshot")
WHERE = ("device", "output")
"""sections of the settings that say on which card, and where results go"""
OF_ITS_OWN = "whose script takes its own after `--`"


@dataclass(frozen=True)
class Mode:
    """One thing to do."""

    name: str
    """the word for it"""
    option: str | None
    """option of `Command` that asks for it; none where it is what is done without any other"""
    example: str
    """arguments that ask for it"""
    does: str
    """what comes of it, in a line"""
    takes: tuple[str, ...] = ()
    """options of `Command` that mean something beside it, other modes' too; all others are refused"""
    sections: tuple[str, ...] | None = None
    """those whose settings of a run mean something beside it; None: all"""
    why: str = "which runs nothing"
    """why no other does"""
    is_a_task: bool = True
    """whether `--help` shows it; `--help all` shows every mode"""

    @property
    def flag(self) -> str:
        """What asks for it, in words."""
        return "a probe" if self.option is None else as_flag(self.option)


MODES = (
    Mode(
        "probe",
        None,
        "--model llama-3.1-8b --gpu t4 --max-length 2048",
        "does the run fit the card, what ends it, which fix makes it fit; needs no GPU",
        (*RECIPE, *REPORTS, *TRACES, *PLANNING, "snapshot", "fault", "live"),
    ),
    Mode(
        "estimate",
        "estimate",
        "--estimate --model llama-3.1-8b --gpu t4 --max-length 2048",
        "peak, fits or not, in one line; at once where it was asked before",
        RECIPE,
    ),
    Mode(
        "train",
        "train",
        "--train --preset t4 --data corpus.csv --download",
        "fine-tune what a probe has passed, with the fixes it took",
        (*RECIPE, *REPORTS, *TRACES, *PLANNING, *FOLLOWED, "snapshot", "force", "resume"),
    ),
    Mode(
        "go on",
        "resume",
        "--resume",
        "go on with the newest training run, or a named one, where it was stopped",
        ("preset", "download", *REPORTS, *TRACES, *FOLLOWED, "train", "allow_changes"),
    ),
    Mode(
        "generate",
        "generate",
        '--generate runs/FOLDER --ask "How do I sleep better?"',
        "answer questions with the adapter of a training run",
        ("preset", "download", *REPORTS),
    ),
    Mode(
        "watch",
        "watch",
        "--watch train.py -- --epochs 1",
        "run your own script or notebook, unmodified, and report on its memory",
        (*REPORTS, *TRACES, *FOLLOWED),
        WHERE,
        OF_ITS_OWN,
    ),
    Mode(
        "dry run",
        "dry_run",
        "--dry-run train.py --gpu t4 -- --epochs 1",
        "the same on a card that you do not have: no GPU, no weights",
        (*REPORTS, *TRACES, *SCRIPT, "against", "live"),
        WHERE,
        OF_ITS_OWN,
    ),
    Mode(
        "replay",
        "replay",
        "--replay runs/FOLDER",
        "report on an earlier run, one that was cut off, or a memory snapshot",
        (*REPORTS, *TRACES),
        WHERE,
    ),
    Mode(
        "compare",
        "compare",
        "--compare runs/FOLDER runs/OTHER",
        "say what changed from one run to another",
        ("json",),
        sections=(),
    ),
    Mode(
        "traceback",
        "traceback",
        "--traceback oom.txt",
        "explain an out-of-memory from its text",
        (*RECIPE, *REPORTS),
    ),
    Mode(
        "explain",
        "explain",
        "--explain eval-batch-logits",
        "what a cause is, how to test for it, how to fix it; all causes without a name",
        sections=(),
    ),
    Mode(
        "against",
        "against",
        '--against "transformers==5.17" --fail-on-increase 5%',
        "what an upgrade of a library changes, by line of code",
        (*RECIPE, "json", "fail_on_increase", *SCRIPT[:-1], "dry_run"),
        is_a_task=False,
    ),
    Mode(
        "agents",
        "mcp",
        "--mcp --output runs",
        "answer agents as an MCP server on standard input and output",
        is_a_task=False,
    ),
    Mode("sheet", "human_sheet", "--human-sheet runs", "a blind sheet for people to rate replies", is_a_task=False),
    Mode("scores", "score_sheet", "--score-sheet sheet.csv", "what the ratings amount to", is_a_task=False),
)
"""a flag that asks for one excludes every other's, unless one of the two takes the other's"""

PROBE = MODES[0]

OPTION_GROUPS = {
    "what to do": tuple(mode.option for mode in MODES if mode.option),
    "which run": RECIPE,
    "reports": (*REPORTS, *TRACES, "snapshot"),
    "while it runs": FOLLOWED,
    "fixes": (*PLANNING, "fault"),
    "training": ("force", "allow_changes"),
    "scripts": ("steps", "worst_first", "override", "fail_on_increase"),
}
"""the options of `Command` as `--help all` shows them"""


def mode_problems(options: Set[str], settings: Mapping[str, str]) -> list[str]:
    """Return what of a command line does not go together.

    Args:
        options: the options of `Command` that are given.
        settings: the section of each setting of a run that is given, by its flag.
    """
    asked = [mode for mode in MODES if mode.option in options]
    for number, mode in enumerate(asked):
        for other in asked[number + 1 :]:
            if other.option not in mode.takes and mode.option not in other.takes:
                return [f"{mode.flag} and {other.flag}: each does something else; give one of them"]
    asked = asked or [PROBE]
    taken = {option for mode in asked for option in (*mode.takes, mode.option)}
    problems = [_meaningless(option, asked[0]) for option in sorted(options - taken)]
    for mode in asked:
        refused = [] if mode.sections is None else [flag for flag in settings if settings[flag] not in mode.sections]
        problems += [f"{flag}: has no meaning beside {mode.flag}, {mode.why}" for flag in refused]
    return problems[:1]


def _meaningless(option: str, mode: Mode) -> str:
    others = ", ".join(other.flag for other in _takers(option)) or "none"
    return f"{as_flag(option)}: has no meaning beside {mode.flag} (goes with: {others}); leave out one"


def _takers(option: str) -> Iterator[Mode]:
    for mode in MODES:
        if option in mode.takes:
            yield mode


def as_flag(name: str) -> str:
    """Return the flag of an option or a setting by its name: `--dry-run` of `dry_run`."""
    return f"--{name.replace('_', '-')}"
