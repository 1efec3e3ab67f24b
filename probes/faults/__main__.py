"""Print which detector answers to which fault: `python -m probes.faults [NAME ...]`.

Exit code 0 where every fault's cause is found and no other cause is called an error, 1 otherwise, 2 for an unknown
name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from configs.tables import did_you_mean
from probes.causes import CAUSES
from probes.detectors import detect
from probes.faults import FAULTS, Fault, run_with, tiny_config
from probes.findings import UNEXPLAINED_GROWTH, Finding

PIPED_WIDTH = 120

NOT_SHOWN = {"device-map-imbalance": "needs two GPUs"}
"""Causes that one process with one simulated card cannot show."""


def main(names: Sequence[str]) -> int:
    """Run the faults, all without names, and print the matrix."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        console.print(f"unknown fault {unknown[0]!r}{did_you_mean(unknown[0], list(FAULTS))}", style="red")
        return 2
    torch.set_num_threads(1)  # tiny matrices: a second thread only waits
    faults = [FAULTS[name] for name in names or FAULTS]
    results = []
    with console.status("") as status:
        for fault in faults:
            status.update(f"running with {fault.name}")
            results.append((fault, detect(run_with(fault, tiny_config()))))
    console.print(matrix(results))
    return 0 if all(is_named(fault, findings) for fault, findings in results) else 1


def is_named(fault: Fault, findings: Sequence[Finding]) -> bool:
    """Whether the fault's cause is among the findings and no other cause is an error."""
    causes = {finding.cause for finding in findings}
    return fault.cause in causes and not wrong_errors(fault, findings)


def wrong_errors(fault: Fault, findings: Sequence[Finding]) -> list[str]:
    """Return the causes other than the fault's that are called an error."""
    return [finding.cause for finding in findings if finding.severity == "error" and finding.cause != fault.cause]


def matrix(results: Sequence[tuple[Fault, Sequence[Finding]]]) -> Table:
    """Return one row per fault: what was found of its cause, where, and what else was found."""
    num_causes = len({fault.cause for fault, _ in results} - {UNEXPLAINED_GROWTH})
    left_out = ", ".join(f"{cause} ({reason})" for cause, reason in NOT_SHOWN.items())
    table = Table(
        title=f"{len(results)} faults, {num_causes} of {len(CAUSES)} causes; not shown: {left_out}",
        title_justify="left",
    )
    for column in ("fault", "its cause is found as", "at", "also found"):
        table.add_column(column, overflow="fold")
    for fault, findings in results:
        own = next((finding for finding in findings if finding.cause == fault.cause), None)
        named = "[red]not found[/]" if own is None else f"{own.cause}: {own.severity}"
        others = [f"{f.cause}: {f.severity}" for f in findings if f is not own]
        table.add_row(fault.name, named, (own and own.where) or "", ", ".join(others))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
