"""The peaks of all tests of a session, shown at its end and kept as its baseline.

Imported in every pytest run of the environment, so that nothing of weight is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.units import format_bytes
from memory_harness.probes.budgets.baseline import Peak, is_comparable, write_baseline

PROPERTY = "memory"
"""of a test's report: its highest peak"""


class PeakCollector:
    """A plugin for the main process, to which workers of pytest-xdist send their reports.

    Args:
        path: the baseline's file, where there is to be one.
        baseline: what it holds.
        update: write the peaks of this session to it.
        show: show the peak of every test.
    """

    def __init__(self, path: Path | None, baseline: dict[str, Peak] | None, *, update: bool, show: bool) -> None:
        self._path = path
        self._baseline = baseline
        self._update = update
        self._show = show
        self._peaks: dict[str, Peak] = {}
        self._failed: set[str] = set()
        self._outcome: str | None = None
        """what became of the baseline, where it was to be written"""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the peak of a test."""
        sizes = dict(report.user_properties).get(PROPERTY)
        if report.when != "call" or not isinstance(sizes, dict):
            return
        self._peaks[report.nodeid] = Peak(**sizes)
        if report.passed:
            self._failed.discard(report.nodeid)
        else:
            self._failed.add(report.nodeid)

    @property
    def _passed(self) -> dict[str, Peak]:
        return {name: peak for name, peak in self._peaks.items() if name not in self._failed}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the baseline where there is none yet, or where that was asked for."""
        path, passed = self._path, self._passed
        if path is None or not passed or (path.exists() and not self._update):
            return
        try:
            write_baseline(path, (self._baseline or {}) | passed)  # what did not run this time is kept
            self._outcome = f"memory baseline written to {path}"
        except ConfigError as error:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            self._outcome = f"ERROR: {error}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the peaks, and what became of the baseline."""
        if self._show and self._peaks:
            terminalreporter.section("memory")
            for line in _table(self._peaks, self._baseline or {}):
                terminalreporter.write_line(line)
        if self._outcome is not None:
            terminalreporter.write_line(self._outcome)
        elif self._baseline is not None:
            for line in _not_compared(self._passed, self._baseline):
                terminalreporter.write_line(line)


def _not_compared(peaks: dict[str, Peak], baseline: dict[str, Peak]) -> Iterator[str]:
    """Yield a line for each reason why peaks were not held against the baseline."""
    num_new = len(peaks.keys() - baseline.keys())
    if num_new:
        yield f"not in the memory baseline: {num_new}; --memory-update-baseline adds them"
    known = peaks.keys() & baseline.keys()
    num_other = sum(not is_comparable(peaks[name], baseline[name]) for name in known)
    if num_other:
        yield f"of another card in the memory baseline, and not compared: {num_other}"


def _table(peaks: dict[str, Peak], baseline: dict[str, Peak]) -> Iterator[str]:
    """Yield a line for each test, the highest peak first."""
    yield f"{'allocated':>12} {'reserved':>12} {'budget':>12} {'baseline':>12}  phase       test"
    for name, peak in sorted(peaks.items(), key=lambda item: -item[1].peak_allocated_bytes):
        before = format_bytes(baseline[name].peak_allocated_bytes) if name in baseline else "-"
        kind = "" if peak.source == "cuda" else " (simulated)"
        yield (
            f"{format_bytes(peak.peak_allocated_bytes):>12} {format_bytes(peak.peak_reserved_bytes):>12} "
            f"{format_bytes(peak.budget_bytes):>12} {before:>12}  {peak.phase:<11} {name}{kind}"
        )
