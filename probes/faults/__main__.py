"""Print which detector answers to which fault: `python -m memory_harness.probes.faults [--markdown] [NAME ...]`.

`--markdown` prints the document instead: `python -m memory_harness.probes.faults --markdown > probes/faults/README.md`.

Exit code 0 where every fault's cause is found and no other cause is called an error, 1 otherwise, 2 for an unknown
name.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from memory_harness.configs.tables import did_you_mean
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.faults import FAULTS, Fault, run_with, tiny_config
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding

PIPED_WIDTH = 120

LATENCY = Path(__file__).resolve().parents[2] / "tests" / "bench" / "results" / "leak_latency.json"
"""what `python -m tests.bench.leak_latency --json FILE` wrote"""

NOT_SHOWN = {"device-map-imbalance": "needs two GPUs"}
"""Causes that one process with one simulated card cannot show."""


def main(names: Sequence[str]) -> int:
    """Run the faults, all without names, and print the matrix."""
    as_markdown, names = "--markdown" in names, [name for name in names if name != "--markdown"]
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        console.print(f"unknown fault {unknown[0]!r}{did_you_mean(unknown[0], list(FAULTS))}", style="red")
        return 2
    torch.set_num_threads(1)  # tiny matrices: a second thread only waits
    gc.freeze()  # no library holds what a fault keeps, and asking who does goes through all objects
    faults = [FAULTS[name] for name in names or FAULTS]
    results = []
    with Console(stderr=True).status("") as status:
        for fault in faults:
            status.update(f"running with {fault.name}")
            results.append((fault, detect(run_with(fault, tiny_config()))))
    if as_markdown:
        print(document(results))
    else:
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
        title=f"{len(results)} faults, {num_causes} of {len(load_causes())} causes; not shown: {left_out}",
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


def document(results: Sequence[tuple[Fault, Sequence[Finding]]]) -> str:
    """Return the matrix as a document, with what `tests/bench/leak_latency.py` has measured."""
    rows = [_cells(fault, findings) for fault, findings in results]
    latency = json.loads(LATENCY.read_text(encoding="utf-8"))
    sizes = list(next(iter(latency["found_after_step"].values())))
    found = [
        [kind, *("never" if steps[size] is None else f"step {steps[size]}" for size in sizes)]
        for kind, steps in latency["found_after_step"].items()
    ]
    causes = len({fault.cause for fault, _ in results} - {UNEXPLAINED_GROWTH})
    not_shown = ", ".join(f"`{cause}` ({reason})" for cause, reason in NOT_SHOWN.items())
    return f"""# Faults and what is found of them

Made by `python -m memory_harness.probes.faults --markdown > probes/faults/README.md`, which plants each mistake in a
short run of a tiny model, with real tensors on a simulated card, and asks all detectors about its log.
`python run_probe.py --preset smoke_cpu --fault NAME` plants one in a run of your own.

{len(results)} faults show {causes} of {len(load_causes())} causes. Not shown: {not_shown}. \
The place is the line that makes or holds the memory; a setting, the data or a switch has none.

{_markdown_table(["fault", "what is done wrong", "its cause is found as", "at", "also found"], rows)}

## How soon a leak is found, and how small it may be

Measured by `python -m tests.bench.leak_latency` on the log of {latency["recipe"]}, to which a leak of this
size is added; without one nothing is reported. The cells say after which step the leak is reported.

{_markdown_table(["leak", *sizes], found)}"""


def _cells(fault: Fault, findings: Sequence[Finding]) -> list[str]:
    own = next((finding for finding in findings if finding.cause == fault.cause), None)
    others = ", ".join(f"`{f.cause}` ({f.severity})" for f in findings if f is not own)
    named = "**not found**" if own is None else f"`{own.cause}` ({own.severity})"
    return [f"`{fault.name}`", fault.title, named, f"`{own.where}`" if own and own.where else "", others]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
