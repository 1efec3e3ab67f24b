"""The plan's choice, over predictions that are made up: cheapest first, nothing needless, every reason told."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, parse_part
from memory_harness.harness.log.errors import LogError
from memory_harness.probes.fixes import FIXES, rung
from memory_harness.probes.plan.choose import Prediction, apply_all, make_plan, read_plan, write_plan

BASE = RunConfig().with_fields(kbit_upcast=True, hold_outputs=True, use_cache=True, eval_batch_size=8)
NAMES = ("drop-outputs", "cache-off", "expandable-segments", "eval-batch", "no-upcast", "chunked-loss")
SLOW, LAST = "offload-activations", "truncation"
BUDGET = 100 * GIB


def plan(savings, needed, goal="speed"):
    """Return the plan where each fix saves so many GiB of what is needed, alone or with others."""
    fixes = [FIXES[name] for name in FIXES if name in savings]
    sets = [s for n in range(len(fixes) + 1) for s in itertools.combinations(fixes, n)]
    by_config = {apply_all(BASE, s).fingerprint(): sum(savings[fix.name] for fix in s) for s in sets}

    def predict(configs):
        peaks = [(needed - by_config[config.fingerprint()]) * GIB for config in configs]
        return [Prediction(peak <= BUDGET, peak, peak) for peak in peaks]

    return make_plan(BASE, fixes, predict, goal=goal, budget_bytes=BUDGET, headroom_bytes=0)


def test_what_fits_needs_no_fix():
    found = plan({"eval-batch": 50}, 99)
    assert found.chosen.fixes == ()
    assert found.passes


def test_the_cheapest_that_passes_alone_is_taken():
    assert plan({"chunked-loss": 50, "offload-activations": 50, "eval-batch": 20}, 120).chosen.fixes == ("eval-batch",)


def test_two_that_cost_nothing_come_before_one_that_rounds():
    found = plan({"drop-outputs": 10, "cache-off": 10, "expandable-segments": 1, "chunked-loss": 50}, 120)
    assert set(found.chosen.fixes) == {"drop-outputs", "cache-off"}


def test_rounding_comes_before_time_and_time_before_data():
    assert plan({"offload-activations": 50, "chunked-loss": 50}, 120).chosen.fixes == ("chunked-loss",)
    assert plan({"offload-activations": 50, "truncation": 50}, 120).chosen.fixes == ("offload-activations",)


def test_where_nothing_passes_all_that_helps_is_kept_and_said_not_to_pass():
    found = plan({"drop-outputs": 1, "no-upcast": 1, "cache-off": 0}, 120)
    assert found.chosen.fixes == ("drop-outputs", "no-upcast")
    assert not found.passes


def test_memory_takes_all_that_lower_the_peak_but_the_data():
    found = plan({"drop-outputs": 1, "cache-off": 0, "chunked-loss": 5, "truncation": 50}, 90, goal="memory")
    assert found.chosen.fixes == ("drop-outputs", "chunked-loss")


def test_every_fix_has_a_reason_and_every_alternative_a_prediction():
    found = plan({"drop-outputs": 10, "cache-off": 10, "chunked-loss": 50}, 120)
    assert set(found.reasons) == set(found.chosen.fixes)
    assert "would not fit" in found.reasons["drop-outputs"]
    assert ("chunked-loss",) in {option.fixes for option in found.alternatives}
    assert found.chosen not in found.alternatives


@given(
    savings=st.dictionaries(st.sampled_from([*NAMES, SLOW, LAST]), st.integers(0, 20), max_size=6),
    needed=st.integers(90, 150),
)
def test_a_plan_passes_wherever_all_together_do_and_holds_nothing_needless(savings, needed):
    found = plan(savings, needed)
    assert found.passes == (needed - sum(savings.values()) <= 100)
    if found.passes:
        for name in found.chosen.fixes:
            assert needed - sum(savings[other] for other in found.chosen.fixes if other != name) > 100
        worst = max((rung(FIXES[name]) for name in found.chosen.fixes), default=(0, 0))
        assert needed - sum(saved for name, saved in savings.items() if rung(FIXES[name]) < worst) > 100 or worst == (
            0,
            0,
        )


def test_a_plan_comes_back_from_its_file(tmp_path):
    planned = plan({"drop-outputs": 10, "cache-off": 10}, 120)
    write_plan(tmp_path / "plan.json", planned, None)
    assert read_plan(tmp_path / "plan.json") == (planned, None)
    assert read_plan(tmp_path / "missing.json") == (None, None)
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text()[:-20])
    with pytest.raises(LogError, match=r"plan.json: damaged"):
        read_plan(tmp_path / "plan.json")


def test_headroom_is_a_share_or_a_size():
    assert parse_part("5 %", 100 * GIB) == 5 * GIB
    assert parse_part("0.5 GiB", GIB) == GIB // 2
    for wrong in ("100 %", "-1 %", "x %", "2 GiB", "nan %", "inf %", "five"):
        with pytest.raises(ValueError, match="not"):
            parse_part(wrong, GIB)


def test_bad_requests_are_one_line():
    with pytest.raises(ConfigError, match="--headroom"):
        parse_args(["--headroom", "20 GiB"]).headroom_bytes  # noqa: B018
    with pytest.raises(ConfigError, match="--no-fixes"):
        parse_args(["--goal", "speed", "--no-fixes"])
