"""Memory budgets in pytest: markers `memory_budget` and `memory_leak`, fixture `memory_probe`, a baseline of peaks.

Loaded in every pytest run of the environment, so that nothing of weight is imported before a test asks for it.
"""

from __future__ import annotations

import functools
import gc
import sys
import traceback
import types
import unittest
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.printable import printable
from memory_harness.configs.units import Increase
from memory_harness.probes.budgets.baseline import Peak, highest_peak, increase, read_baseline, read_increase
from memory_harness.probes.budgets.collector import PROPERTY, PeakCollector

if TYPE_CHECKING:
    from memory_harness.probes.budgets.limits import Limit
    from memory_harness.probes.budgets.probe import MemoryProbe

MARKERS = {
    "memory_budget": 'memory_budget(limit, *, phase=None, device="auto", gpu=None, dry_run=False): most '
    "memory that the test, or one phase of what it runs, may take; dry_run lets code for a GPU run without one",
    "memory_leak": 'memory_leak(limit, *, steps=20, device="auto", gpu=None): most memory that may stay allocated when '
    "the test is repeated",
}

_limits = pytest.StashKey[list["Limit"]]()
_problems = pytest.StashKey[list[str]]()
_probe = pytest.StashKey["MemoryProbe"]()
_trace = pytest.StashKey[types.TracebackType]()
_baseline = pytest.StashKey[dict[str, Peak] | None]()
_allowed = pytest.StashKey[Increase | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("memory", "GPU memory, measured or simulated")
    group.addoption("--memory-report", action="store_true", help="show the peak of every test that measures memory")
    group.addoption(
        "--memory-fail-on-increase", metavar="SHARE|SIZE", help="fail tests this far above the baseline: 5%%, '100 MiB'"
    )
    group.addoption(
        "--memory-baseline", metavar="FILE", help="peaks to compare with; written where missing (memory-baseline.json)"
    )
    group.addoption("--memory-update-baseline", action="store_true", help="write the peaks of this run to the baseline")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the baseline."""
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    path, allowed = _baseline_path(config), config.getoption("memory_fail_on_increase")
    try:
        config.stash[_allowed] = None if allowed is None else read_increase(allowed)
        config.stash[_baseline] = None if path is None else read_baseline(path)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist sends its reports to the main process
        update, show = config.getoption("memory_update_baseline"), config.getoption("memory_report")
        collector = PeakCollector(path, config.stash[_baseline], update=update, show=show)
        config.pluginmanager.register(collector, "memory-collector")


def _baseline_path(config: pytest.Config) -> Path | None:
    """Return the baseline's file where an option asks for one."""
    asked = config.getoption("memory_fail_on_increase") is not None or config.getoption("memory_update_baseline")
    given = config.getoption("memory_baseline")
    if not given and not asked:
        return None
    return config.invocation_params.dir / given if given else config.rootpath / "memory-baseline.json"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Read the markers of all tests; say all that is wrong with them at once.

    A worker of pytest-xdist that raised here would take the main process along: there the tests themselves fail.
    """
    problems: list[str] = []
    for item in items:
        if any(item.get_closest_marker(name) for name in MARKERS):
            from memory_harness.probes.budgets.markers import read_limits

            limits, wrong = read_limits(item)
            item.stash[_limits] = limits
            item.stash[_problems] = wrong
            problems += [f"{item.nodeid}: {problem}" for problem in wrong]
    if problems and not hasattr(config, "workerinput"):
        raise pytest.UsageError(*problems)


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
    if not isinstance(item, pytest.Function) or item.cls is None or not issubclass(item.cls, unittest.TestCase):
        return (yield)
    with _observed(item):
        return (yield)


@contextmanager
def _observed(item: pytest.Function) -> Iterator[None]:
    """Within, a test that has limits or the fixture is recorded where it has no fixture, and judged when it is over."""
    limits, body = item.stash.get(_limits, []), item.obj
    if _probe not in item.stash and not limits:
        yield
        return
    from memory_harness.probes.budgets.probe import is_out_of_memory

    run = body if _probe in item.stash else _recorded(item, limits)

    @functools.wraps(body)
    def judged(*values: object, **arguments: object) -> object:
        try:
            result = run(*values, **arguments)
        except BaseException as error:
            if not limits or not is_out_of_memory(error):
                raise
            _clear_frames(error.__traceback__)  # the message says it all
            result = None
        _judge(item, limits)
        return result

    item.obj = judged
    try:
        yield
    finally:
        item.obj = body


def _recorded(item: pytest.Function, limits: list[Limit]) -> Callable[..., None]:
    """Return the test's function, run on the device as often as a leak limit says."""
    from memory_harness.probes.budgets.limits import LeakLimit

    probe, body = _probe_of(item), item.obj
    steps = max((limit.steps for limit in limits if isinstance(limit, LeakLimit)), default=1)

    def recorded(*values: object, **arguments: object) -> None:
        with probe.record() as recorder:
            for _ in range(steps):
                with recorder.step():
                    body(*values, **arguments)

    return recorded


def _judge(item: pytest.Function, limits: list[Limit]) -> None:
    """Fail the test where a run went beyond a limit, or its peak beyond the baseline."""
    from memory_harness.probes.budgets.limits import problems_of

    runs = item.stash[_probe].runs
    problems = problems_of(limits, runs)
    allowed, baseline = item.config.stash[_allowed], item.config.stash[_baseline]
    if not problems and runs and allowed is not None and baseline is not None:
        problem = increase(highest_peak(runs), baseline.get(item.nodeid), allowed)
        if problem is not None:
            problems.append(problem)
    if problems:
        pytest.fail(printable("\n".join(problems)), pytrace=False)


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
    report.user_properties.append((PROPERTY, asdict(highest_peak(probe.runs))))
    if report.failed:
        from memory_harness.probes.budgets.limits import section_text

        report.sections += [("Memory", printable(section_text(run))) for run in probe.runs]
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of what a failed test's frames hold, which pytest keeps for post-mortem debugging."""
    if _probe not in item.stash:
        return
    if _trace in item.stash:
        _clear_frames(item.stash[_trace])
        del item.stash[_trace]
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()


def _clear_frames(trace: types.TracebackType | None) -> None:
    """Drop the local variables of a traceback's frames: whoever keeps it would keep their tensors alive."""
    traceback.clear_frames(trace)
    for frame, _ in traceback.walk_tb(trace):
        len(frame.f_locals)  # before Python 3.13 a frame keeps a copy of what was looked at; looking again renews it
