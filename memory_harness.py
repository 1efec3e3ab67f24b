"""The one name under which everything here is imported: `from memory_harness import Recorder, MemoryCallback`.

The parts lie in the folders `configs`, `harness`, `probes` and `reports`, names that other projects use too. As parts
of this package they collide with nobody's. An installed wheel keeps them in a folder beside this file, a checkout in
the folder of this file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_harness.harness.observe.lightning import LightningCallback
    from memory_harness.harness.observe.own_loop import Recorder
    from memory_harness.harness.observe.trainer import MemoryCallback
    from memory_harness.probes.budgets.probe import dry_run

__all__ = ["LightningCallback", "MemoryCallback", "Recorder", "dry_run"]

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
    from memory_harness.harness.observe.own_loop import Recorder

    Recorder.print_report = print_report  # reports lie above the harness, which cannot import them
    if name == "Recorder":
        return Recorder
    if name == "LightningCallback":
        from memory_harness.harness.observe.lightning import LightningCallback

        return LightningCallback
    from memory_harness.harness.observe.trainer import MemoryCallback

    return MemoryCallback


def print_report(log: Path) -> None:
    """Print the report on a log, as `run_probe.py --replay` does."""
    from memory_harness.harness.log.runlog import read_run_log
    from memory_harness.reports import summary, terminal

    terminal.print_report(summary.result_of_log(read_run_log(log)), terminal.make_console())
