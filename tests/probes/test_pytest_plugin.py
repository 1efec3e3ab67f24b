"""Memory budgets in pytest, as a project meets them; everything on a simulated card."""

import json
import subprocess
import sys
from pathlib import Path

import bitsandbytes  # noqa: F401  (what pytester imports and takes away again cannot be imported twice)
import pytest
import torch

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.log.records import Phase
from memory_harness.harness.observe import own_loop as recording  # noqa: F401
from memory_harness.probes.budgets.baseline import Peak, increase, read_baseline, read_increase, write_baseline
from memory_harness.probes.budgets.probe import Target, configured

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "memory_harness.probes.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist")
PLUGIN += ("-p", "no:hypothesispytest")


@pytest.fixture(autouse=True)
def this_checkout(monkeypatch):
    """Subprocesses find the plugin where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def suite(pytester):
    """Return a function that runs tests in this process, where PyTorch is there already."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(code, *arguments):
        pytester.makepyfile(f"import pytest, torch, weakref\nMIB = 2**18  # numbers\nrefs = []\n{code}")
        return pytester.runpytest_inprocess(*PLUGIN, *arguments)

    yield run
    torch.set_num_threads(threads)


def test_a_budget_that_holds(suite):
    suite(
        """
@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_it():
    torch.zeros(16, MIB)
"""
    ).assert_outcomes(passed=1)


def test_a_budget_that_does_not_hold(suite):
    result = suite(
        """
@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_it():
    kept = torch.zeros(16, MIB)
    torch.zeros(32, MIB)
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "limited to 32.00 MiB but STEP allocated 48.00 MiB",
            "*- Memory -*",
            "Tesla T4, simulated, 32.00 MiB for PyTorch",
            "*allocated*reserved",
            "STEP*48.00 MiB*16.00 MiB",
            "unexplained-growth: *",
            "  at *test_a_budget_that_does_not_hold.py:8",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_phase_beyond_its_budget(suite):
    code = """
@pytest.mark.memory_budget("{limit}", phase="backward", device="simulated")
@pytest.mark.memory_budget("1 GiB", phase="forward", device="simulated")
def test_it(memory_probe):
    with memory_probe.record() as r, r.step():
        with r.phase("forward"):
            torch.zeros(16, MIB)
        with r.phase("{phase}"):
            torch.zeros(8, MIB)
"""
    suite(code.format(limit="8 MiB", phase="backward")).assert_outcomes(passed=1)
    result = suite(code.format(limit="7 MiB", phase="backward"))
    result.stdout.fnmatch_lines(["limited to 7.00 MiB but BACKWARD allocated 8.00 MiB"])
    result = suite(code.format(limit="7 MiB", phase="optimizer"))
    result.stdout.fnmatch_lines(["limited BACKWARD to 7.00 MiB, but no phase BACKWARD was recorded"])


def test_leaks(suite):
    result = suite(
        """
@pytest.mark.memory_leak("1 MiB", steps=8, device="simulated")
def test_grows():
    refs.append(torch.zeros(MIB))
@pytest.mark.memory_leak("1 MiB", steps=8, device="simulated")
def test_warms_up_and_stays():
    if len(refs) < 10:
        refs.append(torch.zeros(MIB))
    torch.zeros(MIB)
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["limited to a leak of 1.00 MiB but 6.00 MiB stayed allocated over 6 steps"])


@pytest.mark.slow
def test_methods_of_a_testcase(suite):
    """unittest calls them, not pytest."""
    result = suite(
        """
import unittest
@pytest.mark.memory_budget("8 MiB", device="simulated")
class TestIt(unittest.TestCase):
    def setUp(self):
        self.base = torch.zeros(MIB)
    def test_1_holds(self):
        self.assertEqual(self.base.sum().item(), 0)
    def test_2_does_not_hold(self):
        kept = torch.zeros(16)
        refs.append(weakref.ref(kept))
        torch.zeros(9, MIB)
    def test_3_fails(self):
        kept = torch.zeros(16)
        refs.append(weakref.ref(kept))
        self.fail("a bug")
    def test_4_nothing_is_left(self):
        self.assertEqual([ref() for ref in refs], [None, None])
    @unittest.expectedFailure
    def test_5_is_not_meant_to_hold(self):
        torch.zeros(9, MIB)
class TestLeak(unittest.TestCase):
    @pytest.mark.memory_leak("1 MiB", steps=8, device="simulated")
    def test_grows(self):
        refs.append(torch.zeros(MIB))
class TestFixture(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def give(self, memory_probe):
        self.memory_probe = memory_probe
    @pytest.mark.memory_budget("8 MiB", phase="forward", device="simulated")
    def test_phase(self):
        with self.memory_probe.record() as r, r.step(), r.phase("forward"):
            torch.zeros(9, MIB)
"""
    )
    result.assert_outcomes(passed=2, failed=4, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "limited to 8.00 MiB but STEP allocated 9.00 MiB",
            "*AssertionError: a bug",
            "limited to a leak of 1.00 MiB but 6.00 MiB stayed allocated over 6 steps",
            "limited to 8.00 MiB but FORWARD allocated 9.00 MiB",
        ]
    )


def test_sizes_that_print_alike_are_told_apart(suite):
    suite(
        """
@pytest.mark.memory_budget("8 MiB", device="simulated")
def test_it():
    torch.zeros(8 * MIB + 1)
"""
    ).stdout.fnmatch_lines(["limited to 8388608 B but STEP allocated 8388612 B"])


def test_a_failed_test_keeps_nothing_alive(suite):
    suite(
        """
@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_runs_out():
    kept = torch.zeros(16, MIB)
    refs.append(weakref.ref(kept))
    torch.zeros(32, MIB)
@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_fails():
    kept = torch.zeros(16, MIB)
    refs.append(weakref.ref(kept))
    raise ValueError
def test_nothing_is_left():
    assert [ref() for ref in refs] == [None, None]
@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_has_the_whole_budget():
    torch.zeros(32, MIB)
"""
    ).assert_outcomes(failed=2, passed=2)


def test_the_fixture(suite):
    suite(
        """
def test_function(memory_probe):
    measured = memory_probe.call(lambda: torch.zeros(4, MIB))
    assert measured.fits and measured.peaks == {"STEP": 4 * 2**20}
    assert measured.predicted_peak == measured.peak_allocated_bytes == 4 * 2**20
    assert measured.peak_reserved_bytes == 20 * 2**20
    assert measured.causes == measured.findings == []
    assert repr(measured).startswith("<Measured: completed, peak 4.00 MiB of 14.")

@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_outcome(memory_probe):
    assert not memory_probe.call(lambda: torch.zeros(64, MIB)).fits

@pytest.mark.memory_budget("32 MiB", device="simulated")
def test_nothing(memory_probe):
    pass

def test_bug(memory_probe):
    with pytest.raises(ZeroDivisionError):
        memory_probe.call(lambda: 1 / 0)
"""
    ).stdout.fnmatch_lines(
        [
            "limited to 32.00 MiB but STEP allocated 64.00 MiB",
            "nothing was measured: use memory_probe.run, .call or .record",
            "*2 failed, 2 passed*",
        ]
    )


WRONG = """
@pytest.mark.memory_budget("14.4 Gig")
def test_a(): pass
@pytest.mark.memory_budget("1 GiB", fase="backward")
def test_b(): pass
@pytest.mark.memory_budget("1 GiB", phase="bakward")
def test_c(): pass
@pytest.mark.memory_budget("1 GiB", gpu="t44")
def test_d(): pass
@pytest.mark.memory_budget("1 GiB", device="gpu")
def test_e(): pass
@pytest.mark.memory_budget()
def test_f(): pass
@pytest.mark.memory_budget("1 GiB", phase="eval")
def test_g(): pass
@pytest.mark.memory_leak("1 MiB", steps=2)
def test_h(): pass
@pytest.mark.memory_leak("1 MiB")
def test_i(memory_probe): pass
@pytest.mark.memory_budget("1 GiB")
async def test_j(): pass
@pytest.mark.memory_budget("1 GiB", device="cuda")
@pytest.mark.memory_leak("1 MiB", device="simulated")
def test_k(): pass
@pytest.mark.memory_budget("16 GiB", gpu="t4")
def test_l(): pass
@pytest.mark.memory_budget(True)
def test_m(): pass
@pytest.mark.memory_budget("1 GiB", phase=3, gpu=None)
def test_n(memory_probe): pass
@pytest.mark.memory_budget("1 GiB", gpu=["t4"])
def test_o(): pass
@pytest.mark.memory_leak("1 MiB", steps="20")
def test_p(): pass
"""


def test_wrong_markers_are_told_at_collection_all_at_once(suite):
    result = suite(WRONG)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*test_a: memory_budget: limit: not a size: '14.4 Gig'*",
            "*test_b: memory_budget: got an unexpected keyword argument 'fase'",
            "*test_c: memory_budget: phase bakward: unknown; did you mean backward?*",
            "*test_d: memory_budget: gpu t44: unknown; did you mean t4?*",
            "*test_e: memory_budget: device gpu: unknown*allowed: auto, cuda, simulated*",
            "*test_f: memory_budget: missing 1 required positional argument: 'limit'",
            "*test_g: memory_budget: phase needs the fixture memory_probe*",
            "*test_h: memory_leak: steps 2: not usable*",
            "*test_i: memory_leak repeats the whole test*",
            "*test_j: memory markers are for test functions that are not async",
            "*test_k: the markers name different devices or cards*",
            "*test_l: memory_budget: limit 16 GiB: Tesla T4 has 14.56 GiB*",
            "*test_m: memory_budget: limit True: not a size*",
            "*test_n: memory_budget: phase 3: unknown (allowed: load*",
            "*test_o: memory_budget: gpu [[]'t4'[]]: unknown*",
            "*test_p: memory_leak: steps '20': not usable*",
        ]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory-fail-on-increase=lots"], "*lots: neither a percentage*"),
        (["--memory-fail-on-increase="], "*: neither a percentage*"),
        (["--memory-baseline=wrong.json"], "*wrong.json: no baseline of this release*"),
        (["--memory-baseline=text.json"], "*text.json: no baseline of this release (Expected `int`, got `str`*"),
        (["--memory-baseline=none/b.json"], "*none/b.json: there is no folder *none*"),
    ],
)
def test_wrong_options(suite, pytester, options, words):
    pytester.path.joinpath("wrong.json").write_text('{"tests": 1}')
    peak = {**vars(Peak(1, 2, 3, "STEP", "simulated", "Tesla T4")), "peak_allocated_bytes": "1"}
    pytester.path.joinpath("text.json").write_text(json.dumps({"schema_version": 1, "tests": {"a": peak}}))
    result = suite("def test_it(): pass", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])


def test_a_test_that_asks_for_a_gpu_is_skipped_without_one(suite, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    suite('@pytest.mark.memory_budget("1 GiB", device="cuda")\ndef test_it(): assert False').assert_outcomes(skipped=1)


GROWING = """
@pytest.mark.memory_budget("64 MiB", device="simulated")
def test_it():
    torch.zeros({size}, MIB)
"""


@pytest.mark.slow
def test_the_baseline(suite, pytester):
    options = ("--memory-baseline=peaks.json", "--memory-fail-on-increase=15%", "--memory-report")
    result = suite(GROWING.format(size=20), *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*20.00 MiB*64.00 MiB*-  STEP*test_it (simulated)", "memory baseline written to *"])
    written = pytester.path.joinpath("peaks.json").read_text()
    (peak,) = json.loads(written)["tests"].values()
    assert peak["peak_allocated_bytes"] == 20 * 2**20

    suite(GROWING.format(size=22), *options).assert_outcomes(passed=1)
    result = suite(GROWING.format(size=24), *options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["peak of 24.00 MiB in STEP is 20.0% above the baseline's 20.00 MiB (allowed: 15%)"])
    assert pytester.path.joinpath("peaks.json").read_text() == written

    suite(GROWING.format(size=24), "--memory-baseline=peaks.json", "--memory-update-baseline")
    suite(GROWING.format(size=24), *options).assert_outcomes(passed=1)


@pytest.mark.slow
def test_what_is_not_compared_is_told(suite, pytester):
    code = """
@pytest.mark.memory_budget("64 MiB", device="simulated", gpu="{gpu}")
def test_it():
    torch.zeros({size}, MIB)
@pytest.mark.memory_budget("1 MiB", device="simulated", gpu="{gpu}")
def test_fails_and_is_not_added():
    torch.zeros(8, MIB)
"""
    options = ("--memory-baseline=peaks.json", "--memory-fail-on-increase=5%")
    suite(code.format(gpu="t4", size=1), *options)
    result = suite(code.format(gpu="l4", size=2), *options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["of another card in the memory baseline, and not compared: 1"])
    result.stdout.no_fnmatch_line("not in the memory baseline*")


def test_a_baseline_that_cannot_be_written_is_one_line(suite, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    result = suite(GROWING.format(size=1), "--memory-baseline=peaks.json")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ERROR: --memory-baseline *peaks.json: cannot be written (Permission denied)"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_peaks_of_different_cards_are_not_compared():
    t4 = Peak(100, 100, 1000, "EVAL", "simulated", "Tesla T4")
    l4 = Peak(200, 200, 1000, "EVAL", "simulated", "NVIDIA L4")
    assert increase(l4, t4, read_increase("5%")) is None
    assert increase(l4, None, read_increase("5%")) is None
    assert increase(Peak(105, 100, 1000, "EVAL", "simulated", "Tesla T4"), t4, read_increase("5%")) is None
    assert "6.0% above" in (
        increase(Peak(106, 100, 1000, "EVAL", "simulated", "Tesla T4"), t4, read_increase("5%")) or ""
    )


def test_a_rise_of_exactly_what_is_allowed_is_allowed():
    """In floating point 100 * 1.15 is less than 115."""

    def peak(num_bytes):
        return Peak(num_bytes, num_bytes, 10**9, "EVAL", "simulated", "Tesla T4")

    for percent in range(100):
        assert increase(peak(100 + percent), peak(100), read_increase(f"{percent}%")) is None
        assert increase(peak(101 + percent), peak(100), read_increase(f"{percent}%"))
    assert increase(peak(20 * 2**20 + 512), peak(20 * 2**20), read_increase("0%")) == (
        "peak of 20972032 B in EVAL is 0.0% above the baseline's 20971520 B (allowed: 0%)"
    )
    assert increase(peak(512), peak(0), read_increase("5%")) == (
        "peak of 512 B in EVAL is above the baseline's 0 B (allowed: 5%)"
    )


def test_a_baseline_reads_as_it_was_written(tmp_path):
    peaks = {"a::b": Peak(1, 2, 3, "EVAL", "simulated", "Tesla T4")}
    write_baseline(tmp_path / "b.json", peaks)
    assert read_baseline(tmp_path / "b.json") == peaks
    assert read_baseline(tmp_path / "none.json") is None
    assert read_increase("2.5 %").of(1000) == 25
    assert read_increase("2 KiB").of(1000) == 2048


def test_recipes_take_the_markers_target_and_the_tests_fields():
    config = configured("as_published", {"eval_batch_size": 1}, Target("simulated", "l4", 2**33))
    assert (config.eval.eval_batch_size, config.device.gpu, config.device.budget_bytes) == (1, "l4", 2**33)
    assert config.device.device == "simulated"
    assert configured(RunConfig(), {}, Target()).device == RunConfig().device
    with pytest.raises(ConfigError, match=r"--budget 16\.00 GiB: Tesla T4 has 14\.56 GiB"):
        configured("as_published", {}, Target("simulated", "t4", 2**34))
    with pytest.raises(ConfigError, match="did you mean eval_batch_size"):
        configured("as_published", {"eval_batch_siz": 1}, Target())
    with pytest.raises(ConfigError, match="out of range"):
        configured("as_published", {"eval_batch_size": 0}, Target())


@pytest.mark.slow
def test_workers_send_what_they_measured(pytester):
    pytester.makepyfile(
        test_good=f"import pytest, torch\nMIB = 2**18\n{GROWING.format(size=20)}",
        test_bad='import pytest\n@pytest.mark.memory_budget("1 Gig")\ndef test_wrong(): pass',
    )
    arguments = ["-p", "memory_harness.probes.pytest_plugin", "-p", "no:cacheprovider", "-n", "1", "--memory-report"]
    result = pytester.runpytest_subprocess(*arguments, "--memory-baseline=peaks.json")
    result.stdout.fnmatch_lines(
        ["memory_budget: limit: not a size*", "*20.00 MiB*test_it (simulated)", "memory baseline written to *"]
    )
    result.assert_outcomes(passed=1, errors=1, warnings=None)
    assert list(json.loads(pytester.path.joinpath("peaks.json").read_text())["tests"]) == ["test_good.py::test_it"]


def test_the_plugin_costs_others_nothing(pytester):
    """Loaded, with a marked test collected, PyTorch is not imported."""
    pytester.makepyfile(
        'import pytest, sys\n@pytest.mark.memory_budget("1 GiB")\ndef test_a(): pass\n'
        'def test_b(): assert not {"torch", "numpy"} & set(sys.modules)'
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-k", "test_b"]
    result = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert "1 passed" in result.stdout, result.stdout


@pytest.mark.slow
@pytest.mark.memory_budget("14.4 GiB", device="simulated", gpu="t4")
def test_the_published_recipe_fits_a_t4_once_it_evaluates_one_at_a_time(memory_probe):
    run = memory_probe.run("as_published", eval_batch_size=1, generate_prompts=0)  # a quarter of the time, no peak
    assert run.fits
    assert run.predicted_peak == run.peak_allocated_bytes < 14.4 * 2**30
    assert run.peaks[Phase.EVAL] < run.peaks[Phase.BACKWARD]
    assert "eval-batch-logits" not in run.causes
