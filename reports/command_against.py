"""The command that says what an upgrade of the libraries changes: the same run under two sets of versions."""

from __future__ import annotations

from pathlib import Path

from memory_harness.configs.cli import Command
from memory_harness.configs.pins import read_pins
from memory_harness.configs.program import say
from memory_harness.configs.units import parse_increase
from memory_harness.configs.validation import check_output
from memory_harness.harness.observe.run_script import check_script, check_syntax
from memory_harness.probes.compare import compare
from memory_harness.probes.session.against import run_sides, sides_of
from memory_harness.probes.session.messages import DryRunArguments
from memory_harness.reports.comparison import Names
from memory_harness.reports.files import new_folder, write_file
from memory_harness.reports.next_step import after_comparison
from memory_harness.reports.progress import progress_bars
from memory_harness.reports.terminal import make_console
from memory_harness.reports.upgrade import Upgrade, print_upgrade, upgrade_exit_code, upgrade_json


def against(command: Command, named: str) -> int:
    """Run the recipe, or a script dry, under the versions here and those named, and show what differs.

    Returns the exit code.
    """
    script = None if command.dry_run is None else _script_of(command, command.dry_run)
    config = command.config.with_fields(device="simulated")
    sides = sides_of(read_pins(named), lambda line: say(f"--against: {line}"))
    name = config.fingerprint() if command.dry_run is None else Path(command.dry_run).stem
    folder = new_folder(check_output(config), f"{name}-against")
    with progress_bars() as show:
        before, after = run_sides(config, script, sides, folder, show)
    allowed = None if command.fail_on_increase is None else parse_increase(command.fail_on_increase)
    upgrade = Upgrade(compare(before, after), allowed)
    names = Names(sides[0].name, sides[1].name)
    step = after_comparison(folder / "B.jsonl")
    if command.json is not None:
        write_file("json", command.json, upgrade_json(upgrade, names, step))
    print_upgrade(upgrade, names, step, make_console())
    return upgrade_exit_code(upgrade)


def _script_of(command: Command, script: str) -> DryRunArguments:
    """Return what is run dry. Raises ConfigError: it is no script, or a setting of it cannot be changed."""
    check_script(script, "--dry-run")
    check_syntax(script, "--dry-run")
    # importing PyTorch takes seconds: only after everything else has proved usable
    from memory_harness.harness.observe.knobs import read_knobs

    return {
        "script": script,
        "arguments": list(command.script_arguments),
        "max_steps": command.steps,
        "worst_first": command.worst_first,
        "changes": read_knobs(command.override),
    }
