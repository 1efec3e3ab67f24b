"""The one name under which everything here is imported: `from memory_harness import Recorder, MemoryCallback`.

The parts lie in the folders `configs`, `harness`, `probes` and `reports`, names that other projects use too. As parts
of this package they collide with nobody's. An installed wheel keeps them in a folder beside this file, a checkout in
the folder of this file itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_harness.harness.observe.lightning import LightningCallback
    from memory_harness.harness.observe.own_loop import Recorder
    from memory_harness.harness.observe.trainer import MemoryCallback
    from memory_harness.probes.budgets.probe import dry_run
    from memory_harness.reports.shown import Report

__all__ = ["LightningCallback", "MemoryCallback", "Recorder", "compare", "dry_run", "replay"]

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "memory_harness"
__path__ = [str(_INSTALLED if _INSTALLED.is_dir() else _HERE)]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: both need PyTorch, and half of the package does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "dry_run":
        from memory_harness.probes.budgets.probe import dry_run

        return dry_run
    from memory_harness.harness.log.remarks import quiet_imports

    with quiet_imports():
        from memory_harness.harness.observe.own_loop import Recorder

    Recorder.print_report, Recorder.report_of = print_report, replay  # reports lie above the harness
    if name == "Recorder":
        return Recorder
    if name == "LightningCallback":
        from memory_harness.harness.observe.lightning import LightningCallback

        return LightningCallback
    from memory_harness.harness.observe.trainer import MemoryCallback

    return MemoryCallback


def __dir__() -> list[str]:
    """Return what there is to import, for a notebook that completes names."""
    return sorted({*globals(), *__all__})


def replay(log: str | os.PathLike[str]) -> Report:
    """Return the report on a log, which shows itself in a notebook's cell; `print` shows it as in a terminal."""
    from memory_harness.reports.shown import report_of_log

    return report_of_log(Path(log))


def compare(before: str | os.PathLike[str], after: str | os.PathLike[str]) -> Report:
    """Return what changed from one log to another, as `replay` returns a report."""
    from memory_harness.reports.shown import report_of_comparison

    return report_of_comparison(Path(before), Path(after))


def print_report(log: Path) -> None:
    """Show the report on a log where it is looked for: in a notebook as a page, else as `--replay` prints it."""
    from memory_harness.reports.notebook import show_in_cell

    report = replay(log)
    if not show_in_cell(report):
        print(report, end="")
    print(f"log: {log}")


def load_ipython_extension(shell: Any) -> None:
    """Do what `%load_ext memory_harness` asks for: `%%watch` before a cell reports on its memory."""
    from memory_harness.reports.notebook import load

    load(shell)


if __name__ == "__main__":
    from memory_harness.reports.entry import main

    sys.exit(main())
