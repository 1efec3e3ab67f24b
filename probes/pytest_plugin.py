"""Memory budgets in pytest: markers `memory_budget` and `memory_leak`, fixture `memory_probe`, a baseline of peaks.

Loaded in every pytest run of the environment, so that nothing of weight is imported before a test asks for it.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import traceback
import types
import unittest
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from memory_harness.probes.budgets.baseline import Peak
    from memory_harness.probes.budgets.limits import Limit
    from memory_harness.probes.budgets.probe import MemoryProbe

FIXTURE = "memory_probe"
PROPERTY = "memory"
MARKERS = {
    "memory_budget": 'memory_budget(limit, *, phase=None, device="auto", gpu=None): most memory that the test, or one '
    "phase of what it runs, may take",
    "memory_leak": 'memory_leak(limit, *, steps=20, device="auto", gpu=None): most memory that may stay allocated when '
    "the test is repeated",
}

_limits = pytest.StashKey[list["Limit"]]()
_problems = pytest.StashKey[list[str]]()
_probe = pytest.StashKey["MemoryProbe"]()
_trace = pytest.StashKey[types.TracebackType]()
_baseline = pytest.StashKey["dict[str, Peak] | None"]()
_share = pytest.StashKey["float | None"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("memory", "GPU memory, measured or simulated")
    group.addoption("--memory-report", action="store_true", help="show the peak of every test that measures memory")
    group.addoption("--memory-fail-on-increase", metavar="PERCENT", help="fail tests this far above the baseline: 5%%")
    group.addoption(
        "--memory-baseline", metavar="FILE", help="peaks to compare with; written where missing (memory-baseline.json)"
    )
    group.addoption("--memory-update-baseline", action="store_true", help="write the peaks of this run to the baseline")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the baseline."""
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    config.stash[_share] = config.stash[_baseline] = None
    if _baseline_path(config) is not None:
        _read_baseline(config)
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist sends its reports to the main process
        config.pluginmanager.register(_Collector(config), "memory-collector")


def _baseline_path(config: pytest.Config) -> Path | None:
    """Return the baseline's file where an option asks for one."""
    asked = config.getoption("memory_fail_on_increase") is not None or config.getoption("memory_update_baseline")
    given = config.getoption("memory_baseline")
    if not given and not asked:
        return None
    return config.invocation_params.dir / given if given else config.rootpath / "memory-baseline.json"


def _read_baseline(config: pytest.Config) -> None:
    from memory_harness.configs.errors import ConfigError
    from memory_harness.probes.budgets.baseline import read_baseline, read_share

    path, share = _baseline_path(config), config.getoption("memory_fail_on_increase")
    assert path is not None
    try:
        config.stash[_share] = None if share is None else read_share(share)
        config.stash[_baseline] = read_baseline(path)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Read the markers of all tests; say all that is wrong with them at once.

    A worker of pytest-xdist that raised here would take the main process along: there the tests themselves fail.
    """
    problems: list[str] = []
    for item in items:
        if any(item.get_closest_marker(name) for name in MARKERS):
            limits, wrong = _read_limits(item)
            item.stash[_limits] = limits
            item.stash[_problems] = wrong
            problems += [f"{item.nodeid}: {problem}" for problem in wrong]
    if problems and not hasattr(config, "workerinput"):
        raise pytest.UsageError(*problems)


def _read_limits(item: pytest.Item) -> tuple[list[Limit], list[str]]:
    """Return the limits of a test, of each phase the closest marker's, and what is wrong with its markers."""
    from memory_harness.configs.errors import ConfigError
    from memory_harness.probes.budgets.limits import MARKERS as READERS
    from memory_harness.probes.budgets.limits import Budget

    limits: dict[tuple[str, Any], Limit] = {}
    problems = []
    for name, reader in READERS.items():
        for marker in item.iter_markers(name):
            try:
                limit = reader(*marker.args, **marker.kwargs)
            except (ConfigError, TypeError) as error:
                problems.append(f"{name}: {str(error).removeprefix(f'{name}() ')}")
            else:
                limits.setdefault((name, limit.phase if isinstance(limit, Budget) else None), limit)
    if len({(limit.device, limit.gpu) for limit in limits.values()}) > 1:
        problems.append("the markers name different devices or cards; one test measures on one")
    return list(limits.values()), problems + _misfits(item, list(limits.values()))


def _misfits(item: pytest.Item, limits: list[Limit]) -> list[str]:
    """Return what cannot be asked of this test."""
    from memory_harness.probes.budgets.limits import Budget, LeakLimit

    uses_fixture = FIXTURE in getattr(item, "fixturenames", ())
    problems = []
    if not isinstance(item, pytest.Function) or inspect.iscoroutinefunction(item.function):
        problems.append("memory markers are for test functions that are not async")
    if any(isinstance(limit, Budget) and limit.phase for limit in limits) and not uses_fixture:
        problems.append(f"memory_budget: phase needs the fixture {FIXTURE}, through which a test names its phases")
    if any(isinstance(limit, LeakLimit) for limit in limits) and uses_fixture:
        problems.append(f"memory_leak repeats the whole test; with {FIXTURE}, call the function: call(f, steps=20)")
    return problems


@pytest.fixture
def memory_probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MemoryProbe:
    """Run a recipe, a function or a loop under observation, within the test's `memory_budget` where it has one."""
    return _probe_of(request.node, tmp_path_factory)


def _probe_of(item: pytest.Item, folders: pytest.TempPathFactory | None = None) -> MemoryProbe:
    from memory_harness.probes.budgets.probe import MemoryProbe, Target

    def make_folder() -> Path:
        assert folders is not None
        return folders.mktemp("memory")

    limits = item.stash.get(_limits, [])
    # a limit on the whole bounds what is run; limits on phases leave the card's budget
    targets = sorted((limit.target for limit in limits), key=lambda target: target.budget_bytes is None)
    item.stash[_probe] = MemoryProbe(targets[0] if targets else Target(), make_folder)
    return item.stash[_probe]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget an earlier run of the same test; skip what asks for a GPU where there is none."""
    if _probe in item.stash:
        del item.stash[_probe]
    if wrong := item.stash.get(_problems, []):
        pytest.fail("\n".join(wrong), pytrace=False)
    if any(limit.device == "cuda" for limit in item.stash.get(_limits, [])):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here; device='auto' would simulate one")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Observe a test function while pytest calls it."""
    with _observed(pyfuncitem):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Observe a method of a `unittest.TestCase`, which unittest calls, and not pytest."""
    if not isinstance(item, pytest.Function) or not _is_unittest(item):
        return (yield)
    with _observed(item):
        return (yield)


def _is_unittest(item: pytest.Function) -> bool:
    return item.cls is not None and issubclass(item.cls, unittest.TestCase)


@contextmanager
def _observed(item: pytest.Function) -> Iterator[None]:
    """Within, a test that has limits or the fixture is recorded where it has no fixture, and judged when it is over."""
    limits, body = item.stash.get(_limits, []), item.obj
    if _probe not in item.stash and not limits:
        yield
        return
    run = body if _probe in item.stash else _recorded(item, limits)

    @functools.wraps(body)
    def judged(*values: object, **arguments: object) -> object:
        try:
            result = run(*values, **arguments)
        except BaseException as error:
            if not limits or not _ran_out(error):
                raise
            _let_go(error.__traceback__)  # the message says it all
            result = None
        _judge(item, limits)
        return result

    item.obj = judged
    try:
        yield
    finally:
        item.obj = body


def _ran_out(error: BaseException) -> bool:
    from memory_harness.probes.budgets.probe import is_out_of_memory

    return is_out_of_memory(error)


def _recorded(item: pytest.Function, limits: list[Limit]) -> Callable[..., None]:
    """Return the test's function, run on the device as often as a leak limit says."""
    from memory_harness.probes.budgets.limits import LeakLimit

    probe, body = _probe_of(item), item.obj
    steps = max((limit.steps for limit in limits if isinstance(limit, LeakLimit)), default=1)

    def recorded(*values: object, **arguments: object) -> None:
        with probe.record() as recording:
            for _ in range(steps):
                with recording.step():
                    body(*values, **arguments)

    return recorded


def _judge(item: pytest.Function, limits: list[Limit]) -> None:
    """Fail the test where a run went beyond a limit, or its peak beyond the baseline."""
    from memory_harness.probes.budgets.baseline import increase, peak_of
    from memory_harness.probes.budgets.limits import exceeded

    runs = item.stash[_probe].runs
    problems = [problem for run in runs for limit in limits if (problem := exceeded(limit, run))]
    if limits and not runs:
        problems.append(f"nothing was measured: use {FIXTURE}.run, .call or .record")
    share, baseline = item.config.stash[_share], item.config.stash[_baseline]
    if not problems and runs and share is not None and baseline is not None:
        worst = max(map(peak_of, runs), key=lambda peak: peak.peak_allocated_bytes)
        problem = increase(worst, baseline.get(item.nodeid), share)
        problems += [problem] if problem else []
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what was measured: a section to failures, a property that workers send to the main process."""
    report = yield
    probe = item.stash.get(_probe, None)
    if probe is None or call.when != "call":
        return report
    if call.excinfo is not None:
        item.stash[_trace] = call.excinfo.tb
    if not probe.runs:
        return report
    from dataclasses import asdict

    from memory_harness.probes.budgets.baseline import peak_of
    from memory_harness.probes.budgets.limits import section_text

    worst = max(map(peak_of, probe.runs), key=lambda peak: peak.peak_allocated_bytes)
    report.user_properties.append((PROPERTY, asdict(worst)))
    if report.failed:
        report.sections += [("Memory", section_text(run)) for run in probe.runs]
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of what a failed test's frames hold, which pytest keeps for post-mortem debugging."""
    if _probe not in item.stash:
        return
    if _trace in item.stash:
        _let_go(item.stash[_trace])
        del item.stash[_trace]
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()


def _let_go(trace: types.TracebackType | None) -> None:
    """Drop the local variables of a traceback's frames: whoever keeps it would keep their tensors alive."""
    traceback.clear_frames(trace)
    for frame, _ in traceback.walk_tb(trace):
        len(frame.f_locals)  # before Python 3.13 a frame keeps a copy of what was looked at; looking again renews it


class _Collector:
    """Gathers the peaks of all tests in the main process, from workers too; reports them and keeps the baseline."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._peaks: dict[str, Peak] = {}
        self._failed: set[str] = set()
        self._outcome: str | None = None
        """what became of the baseline, where it was to be written"""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the peak of a test."""
        found = [value for name, value in report.user_properties if name == PROPERTY and isinstance(value, dict)]
        if report.when == "call" and found:
            from memory_harness.probes.budgets.baseline import Peak

            self._peaks[report.nodeid] = Peak(**found[-1])
            (self._failed.discard if report.passed else self._failed.add)(report.nodeid)

    @property
    def _passed(self) -> dict[str, Peak]:
        return {name: peak for name, peak in self._peaks.items() if name not in self._failed}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the baseline where there is none yet, or where that was asked for."""
        path, passed = _baseline_path(self._config), self._passed
        if path is None or not passed or not (self._config.getoption("memory_update_baseline") or not path.exists()):
            return
        from memory_harness.configs.errors import ConfigError
        from memory_harness.probes.budgets.baseline import write_baseline

        before = self._config.stash[_baseline] or {}
        try:
            write_baseline(path, before | passed)  # what did not run this time is kept
            self._outcome = f"memory baseline written to {path}"
        except ConfigError as error:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            self._outcome = f"ERROR: {error}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the peaks, and what became of the baseline."""
        baseline = self._config.stash[_baseline]
        if self._config.getoption("memory_report") and self._peaks:
            terminalreporter.section("memory")
            for line in _table(self._peaks, baseline or {}):
                terminalreporter.write_line(line)
        if self._outcome is not None:
            terminalreporter.write_line(self._outcome)
        elif baseline is not None:
            for line in _not_compared(self._passed, baseline):
                terminalreporter.write_line(line)


def _not_compared(peaks: dict[str, Peak], baseline: dict[str, Peak]) -> list[str]:
    """Return a line for each reason why peaks were not held against the baseline."""
    from memory_harness.probes.budgets.baseline import is_comparable

    num_new = len(peaks.keys() - baseline.keys())
    num_other = sum(name in baseline and not is_comparable(peak, baseline[name]) for name, peak in peaks.items())
    lines = {
        f"not in the memory baseline: {num_new}; --memory-update-baseline adds them": num_new,
        f"of another card in the memory baseline, and not compared: {num_other}": num_other,
    }
    return [line for line, number in lines.items() if number]


def _table(peaks: dict[str, Peak], baseline: dict[str, Peak]) -> list[str]:
    """Return a line for each test, the highest peak first."""
    from memory_harness.configs.units import format_bytes

    lines = [f"{'allocated':>12} {'reserved':>12} {'budget':>12} {'baseline':>12}  phase       test"]
    for name, peak in sorted(peaks.items(), key=lambda item: -item[1].peak_allocated_bytes):
        before = format_bytes(baseline[name].peak_allocated_bytes) if name in baseline else "-"
        sizes = (peak.peak_allocated_bytes, peak.peak_reserved_bytes, peak.budget_bytes)
        columns = [format_bytes(size) for size in sizes] + [before]
        kind = "" if peak.source == "cuda" else " (simulated)"
        lines.append(" ".join(f"{column:>12}" for column in columns) + f"  {peak.phase:<11} {name}{kind}")
    return lines
