"""Print which detector answers to which fault: `python -m memory_harness.probes.faults [NAME ...]`.

`--markdown` prints the document in this folder instead; `--latency FILE` adds what
`python -m tests.bench.leak_latency --json FILE` has measured.

Exit code 0 where every fault's cause is found and no other cause is called an error, 1 otherwise, 2 for an unknown
name.
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from memory_harness.configs.tables import did_you_mean, read_toml
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.faults import FAULTS, Fault, run_with, tiny_config
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding

PIPED_WIDTH = 120

DOCUMENT = Path(__file__).with_name("document.toml")
"""the prose of the document"""

NOT_SHOWN = {
    "communication-buffers": "needs a model that is wrapped for several processes",
    "device-map-imbalance": "needs a model that is split over GPUs, which real tensors are not",
    "group-logits": "needs a script that trains on replies, as tests/watch_scripts has one",
    "rank-gathers-state": "needs several processes that share a model out",
    "rank-imbalance": "needs several processes, each with its own batches",
    "ranks-on-one-gpu": "needs several processes on one GPU, and its driver",
    "rollouts-kept": "needs a script that trains on replies, as tests/watch_scripts has one",
    "weights-not-quantised": "needs a model with large weights outside of linear layers",
}
"""Causes that one process with one simulated card and this project's loop cannot show."""

HEADS = ("fault", "what is done wrong", "its cause is found as", "at", "also found")


def main(argv: Sequence[str]) -> int:
    """Run the faults, all without names, and print the matrix."""
    parser = argparse.ArgumentParser(prog="python -m memory_harness.probes.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--latency", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    names = arguments.names or list(FAULTS)
    for name in names:
        if name not in FAULTS:
            console.print(f"unknown fault {name!r}{did_you_mean(name, list(FAULTS))}", style="red")
            return 2
    results = run_all([FAULTS[name] for name in names])
    if arguments.markdown:
        latency = arguments.latency and json.loads(arguments.latency.read_text(encoding="utf-8"))
        print(document(results, latency))
    else:
        console.print(matrix(results))
    return 0 if all(is_named(fault, findings) for fault, findings in results) else 1


def run_all(faults: Sequence[Fault]) -> list[tuple[Fault, list[Finding]]]:
    """Return what is found of a run with each of the faults."""
    torch.set_num_threads(1)  # tiny matrices: a second thread only waits
    gc.freeze()  # no library holds what a fault keeps, and asking who does goes through all objects
    results = []
    with Console(stderr=True).status("") as status:
        for fault in faults:
            status.update(f"running with {fault.name}")
            results.append((fault, detect(run_with(fault, tiny_config()))))
    return results


def is_named(fault: Fault, findings: Sequence[Finding]) -> bool:
    """Return whether the fault's cause is among the findings and no other cause is an error."""
    causes = {finding.cause for finding in findings}
    return fault.cause in causes and not wrong_errors(fault, findings)


def wrong_errors(fault: Fault, findings: Sequence[Finding]) -> list[str]:
    """Return the causes other than the fault's that are called an error."""
    return [finding.cause for finding in findings if finding.severity == "error" and finding.cause != fault.cause]


def matrix(results: Sequence[tuple[Fault, Sequence[Finding]]]) -> Table:
    """Return one row per fault: what was found of its cause, where, and what else was found."""
    left_out = ", ".join(f"{cause} ({reason})" for cause, reason in NOT_SHOWN.items())
    table = Table(
        title=f"{len(results)} faults, {_num_causes(results)} of {len(load_causes())} causes; not shown: {left_out}",
        title_justify="left",
    )
    for column in ("fault", "its cause is found as", "at", "also found"):
        table.add_column(column, overflow="fold")
    for fault, findings in results:
        own, others = _split(fault, findings)
        named = f"{own.cause}: {own.severity}" if own else "[red]not found[/]"
        also = ", ".join(f"{finding.cause}: {finding.severity}" for finding in others)
        table.add_row(fault.name, named, _where(own), also)
    return table


def document(results: Sequence[tuple[Fault, Sequence[Finding]]], latency: dict[str, Any] | None) -> str:
    """Return the matrix as a document, with how soon a leak is found where that was measured."""
    not_shown = ", ".join(f"`{cause}` ({reason})" for cause, reason in NOT_SHOWN.items())
    summary = (
        f"{len(results)} faults show {_num_causes(results)} of {len(load_causes())} causes. Not shown: {not_shown}. "
        "The place is the line that makes or holds the memory; a setting, the data or a switch has none."
    )
    rows = [_cells(fault, findings) for fault, findings in results]
    prose = read_toml(DOCUMENT)
    sections = [prose["heading"], summary, _markdown_table(HEADS, rows)]
    if latency:
        sections.append(_latency_section(latency))
    return "\n\n".join([*sections, prose["how_to_add"]])


def _latency_section(latency: dict[str, Any]) -> str:
    found_after = latency["found_after_step"]
    sizes = list(next(iter(found_after.values())))
    rows = []
    for kind, steps in found_after.items():
        cells = ["never" if steps[size] is None else f"step {steps[size]}" for size in sizes]
        rows.append([kind, *cells])
    return f"""\
## How soon a leak is found, and how small it may be

Measured by `python -m tests.bench.leak_latency` on the log of {latency["recipe"]}, to which a leak of this
size is added; without one nothing is reported. The cells say after which step the leak is reported.

{_markdown_table(["leak", *sizes], rows)}"""


def _num_causes(results: Sequence[tuple[Fault, Sequence[Finding]]]) -> int:
    """Return how many causes of the table the faults show."""
    return len({fault.cause for fault, _ in results} - {UNEXPLAINED_GROWTH})


def _split(fault: Fault, findings: Sequence[Finding]) -> tuple[Finding | None, list[Finding]]:
    """Return the finding that names the fault's cause, and the others."""
    own = next((finding for finding in findings if finding.cause == fault.cause), None)
    return own, [finding for finding in findings if finding is not own]


def _where(finding: Finding | None) -> str:
    return (finding.where or "") if finding else ""


def _cells(fault: Fault, findings: Sequence[Finding]) -> list[str]:
    own, others = _split(fault, findings)
    named = f"`{own.cause}` ({own.severity})" if own else "**not found**"
    where = f"`{_where(own)}`" if _where(own) else ""
    also = ", ".join(f"`{finding.cause}` ({finding.severity})" for finding in others)
    return [f"`{fault.name}`", fault.title, named, where, also]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
