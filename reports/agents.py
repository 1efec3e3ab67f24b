"""The program for agents: an MCP server on standard input and output, each of whose tools runs the command line.

What a tool writes lies in the folder that `--output` names; what would write elsewhere, fetch or train is refused.

Source: the protocol, https://modelcontextprotocol.io, by its own package `mcp`.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from memory_harness.configs.errors import ConfigError, HarnessError
from memory_harness.configs.flags import flag_of
from memory_harness.configs.modes import PLANNING, SCRIPT, as_flag
from memory_harness.configs.program import program
from memory_harness.configs.release import release
from memory_harness.configs.schema import fields_of_sections
from memory_harness.reports.files import new_folder

if TYPE_CHECKING:
    from mcp.server import MCPServer

P = ParamSpec("P")

OPTIONS = {"preset", "import_recipe", "fault", *PLANNING, *SCRIPT} - {"snapshot"}
SETTINGS = {flag_of(item) for _, item in fields_of_sections()} - {"--output"}
ALLOWED = SETTINGS | {flag.replace("--", "--no-", 1) for flag in SETTINGS} | set(map(as_flag, OPTIONS))
"""the flags that an agent may add to what a tool asks for: none that writes, fetches or trains"""
_OTHERS = ", ".join(sorted(map(as_flag, OPTIONS)))

INSTRUCTIONS = """Says why PyTorch training runs out of GPU memory, with or without a GPU, and which fix makes it fit.
Tools take flags of the command line as a list, such as ["--model", "llama-3.1-8b", "--gpu", "t4", "--max-length",
"2048"]; the tool `help` lists them all. Exit code 0: the run fits or is no worse; 1: it does not."""


@dataclass(frozen=True)
class Answer:
    """What the command line said."""

    exit_code: int
    """0 fits or no worse, 1 does not fit or worse"""
    report: str
    """as a terminal shows it"""
    json_file: str | None
    """the same for programs, in the folder for output; None where there is none"""


def serve(output: Path) -> int:
    """Answer an agent until it closes the standard input; return the exit code. Raises as `server`."""
    server(output).run()
    return 0


def server(output: Path) -> MCPServer:
    """Return the server with its tools.

    Args:
        output: folder in which each answer gets a folder of its own.

    Raises:
        ConfigError: the package `mcp` is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp_types import ToolAnnotations
    except ImportError:
        raise ConfigError("--mcp: the package mcp is not installed; pip install mcp") from None
    tools = Tools(output)
    made = MCPServer("memory-harness", instructions=INSTRUCTIONS, version=release())
    for reads in (tools.help, tools.probe, tools.estimate, tools.replay, tools.compare, tools.traceback, tools.explain):
        made.add_tool(_saying_why(reads), annotations=ToolAnnotations(read_only_hint=True))
    made.add_tool(_saying_why(tools.dry_run), annotations=ToolAnnotations(read_only_hint=False))
    return made


def _saying_why(tool: Callable[P, Answer]) -> Callable[P, Answer]:
    """Return the tool with its errors as those that an agent is told of."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def told(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return tool(*args, **kwargs)
        except HarnessError as error:
            raise ToolError(str(error)) from None

    return told


class Tools:
    """What an agent can ask for; its docstrings are what the agent reads."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def help(self) -> Answer:
        """List every flag by group, with its values and what it means."""
        return _answered(["--help", "all"])

    def probe(self, flags: list[str]) -> Answer:
        """Say whether a fine-tune fits a card, what ends it if not, and which fix makes it fit; takes a minute."""
        return self._report("probe", [], flags)

    def estimate(self, flags: list[str]) -> Answer:
        """Say what a fine-tune takes of a card and whether it fits, without looking for fixes."""
        return self._report("estimate", ["--no-fixes"], flags)

    def replay(self, path: str) -> Answer:
        """Report on the log or folder of an earlier run, or on a memory snapshot of PyTorch's."""
        return self._report("replay", ["--replay", path])

    def compare(self, before: str, after: str) -> Answer:
        """Say what changed from one log, folder or memory snapshot to another."""
        return self._report("compare", ["--compare", before, after])

    def traceback(self, text: str, flags: Sequence[str] = ()) -> Answer:
        """Explain an out-of-memory from its text; with flags that name a model, that run is simulated beside it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "traceback.txt"
            file.write_text(text, encoding="utf-8")
            return self._report("traceback", ["--traceback", str(file)], flags)

    def explain(self, cause: str) -> Answer:
        """Say what a cause is, how it looks, how to test for it and how to fix it; all causes for the word `all`."""
        return _answered(["--explain", cause])

    def dry_run(self, script: str, arguments: Sequence[str] = (), flags: Sequence[str] = ()) -> Answer:
        """Run a training script, unmodified, on a card that is not there, and report on its memory.

        The script's own code is executed here, without a GPU and without weights.
        """
        return self._report("dry-run", ["--dry-run", script], flags, ["--", *arguments])

    def _report(
        self, name: str, asked: Sequence[str], flags: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> Answer:
        _check(flags)
        self._output.mkdir(parents=True, exist_ok=True)
        folder = new_folder(self._output, name).absolute()
        file = folder / "report.json"
        places = ["--json", str(file)]
        if name != "compare":
            places += ["--output", str(folder)]
        return _answered([*asked, *flags, *places, *arguments], file)


def _check(flags: Sequence[str]) -> None:
    """Refuse flags that no tool takes. Raises ConfigError."""
    for flag in flags:
        name, _, _ = flag.partition("=")
        if name.startswith("-") and name not in ALLOWED and not name[1:2].isdigit():
            raise ConfigError(f"{name}: no tool takes this flag (allowed: settings of a run and {_OTHERS}; see `help`)")


def _answered(arguments: Sequence[str], file: Path | None = None) -> Answer:
    """Run the command line in a process of its own. Raises HarnessError with its line where it is not usable."""
    done = subprocess.run(
        [*program(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode not in (0, 1):
        raise HarnessError(done.stderr.strip() or f"ended with exit code {done.returncode}")
    return Answer(done.returncode, done.stdout, str(file) if file is not None and file.exists() else None)
