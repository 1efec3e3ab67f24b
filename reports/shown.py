"""Reports as objects that show themselves: as a page in a notebook's cell, as in a terminal everywhere else."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from memory_harness.harness.log.runlog import read_run_log
from memory_harness.probes.compare import compare
from memory_harness.reports.blocks import Banner, Section
from memory_harness.reports.comparison import Names, comparison_report
from memory_harness.reports.html import html_text, page_text
from memory_harness.reports.next_step import after_comparison, after_replay
from memory_harness.reports.sections import probe_sections
from memory_harness.reports.summary import ProbeResult, result_of_log, source_in_words
from memory_harness.reports.terminal import PIPED_WIDTH, print_sections

FRAME = (
    '<iframe sandbox="allow-scripts" title="memory report" style="box-sizing: border-box; width: 100%; height: 40em; '
    'border: 1px solid #8888; border-radius: 6px" srcdoc="{}"></iframe>'
)
"""a page within a page: neither's styles reach the other, and nothing of a log reaches the notebook"""


@dataclass(frozen=True)
class Report:
    """A report that shows itself; `print` gives that of a terminal."""

    verdict: str
    """`pass`, `pass_with_fixes`, `fail`; of a comparison `same`, `better`, `worse`"""
    sections: Sequence[Section]
    page: str
    """HTML, to be written to a file"""

    def __str__(self) -> str:
        file = io.StringIO()
        # a notebook's kernel asks for colours everywhere, and shows what it takes for a console's
        plain: dict[str, Any] = {"force_terminal": False, "color_system": None, "force_jupyter": False}
        console = Console(file=file, width=PIPED_WIDTH, highlight=False, **plain)
        print_sections(self.sections, console)
        return file.getvalue()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return FRAME.format(html.escape(self.page))


def report_of(result: ProbeResult) -> Report:
    """Return the report on a result."""
    return Report(result.verdict, probe_sections(result), html_text(result))


def report_of_log(log: Path) -> Report:
    """Return the report on a log. Raises LogError: it is none."""
    result = result_of_log(read_run_log(log))
    return report_of(replace(result, next_step=after_replay(log, result)))


def report_of_comparison(before: Path, after: Path) -> Report:
    """Return what changed from one log to another.

    Raises:
        LogError: one is no log, or in one no phase ended.
    """
    comparison = compare(read_run_log(before), read_run_log(after))
    names = Names(str(before), str(after))
    sections = comparison_report(comparison, names, after_comparison(after))
    facts = [names.before, names.after]
    (banner,) = sections[0].body
    assert isinstance(banner, Banner)
    log = comparison.after
    page = page_text(sections, banner, facts, source_in_words(log), log.run.source)
    return Report(comparison.verdict, sections, page)
