"""The plan's choice, over predictions that are made up: the fastest, nothing needless, every reason told."""

import functools
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, parse_part
from memory_harness.harness.log.errors import LogError
from memory_harness.probes.fixes import FIXES
from memory_harness.probes.plan.choose import Prediction, apply_all, make_plan, read_plan, write_plan

BASE = RunConfig().with_fields(kbit_upcast=True, hold_outputs=True, use_cache=True, eval_batch_size=8)
NAMES = ("drop-outputs", "cache-off", "expandable-segments", "eval-batch", "no-upcast", "chunked-loss")
SLOW, LAST = ("offload-activations", "embeddings-on-host", "tiled-mlp", "clear-cache"), "truncation"
BUDGET = 100 * GIB


@functools.cache
def fingerprint(*names):
    return apply_all(BASE, [FIXES[name] for name in names]).fingerprint()


PLAIN = {"fast_path": "off", "recompute": "all", "cuda_graphs": "none"}
"""where no memory is spent for time"""


class MadeUp:
    """Implements `Forecast`: each fix saves so many GiB of what is needed, alone or with others.

    Args:
        tokens: what is left of 100 tokens with a fix, by its name.
        faster: what is left of 100 seconds with a value of the configuration.
        costs: GiB more that it needs.
    """

    def __init__(self, savings, needed, tokens=None, faster=None, costs=None, rules="all"):
        self.savings, self.needed, self.tokens = savings, needed, tokens or {}
        self.faster, self.costs, self.rules = faster or {}, costs or {}, rules
        self.fixes = [FIXES[name] for name in FIXES if name in savings]
        sets = [s for n in range(len(self.fixes) + 1) for s in itertools.combinations(self.fixes, n)]
        self.names = {fingerprint(*(fix.name for fix in s)): [fix.name for fix in s] for s in sets}

    def fixes_of(self, config):
        return self.names[config.with_fields(**PLAIN).fingerprint()]

    def spent(self, config, amounts):
        model = config.model
        values = (model.fast_path, model.recompute, "graphs" if model.cuda_graphs == "auto" else "")
        return [amounts[value] for value in values if value in amounts]

    def predict(self, configs):
        found = []
        for config in configs:
            saved = sum(map(self.savings.__getitem__, self.fixes_of(config)))
            peak = (self.needed - saved + sum(self.spent(config, self.costs))) * GIB
            found.append(Prediction(peak <= BUDGET, peak, peak))
        return found

    def count_tokens(self, config):
        return min([self.tokens.get(name, 100) for name in self.fixes_of(config)], default=100)

    def start_longest_step(self, config):
        (prediction,) = self.predict([config])
        return lambda: prediction.peak_reserved_bytes

    def start_seconds(self, configs):
        found = []
        for config in configs:
            shares = math.prod(share / 100 for share in self.spent(config, self.faster))
            found.append(self.count_tokens(config) * shares)
        return lambda: found

    def fewest_recomputed(self, config):
        return self.rules, None


def plan(savings, needed, goal="speed", tokens=None, **spending):
    forecast = MadeUp(savings, needed, tokens, **spending)
    return make_plan(BASE, forecast.fixes, forecast, goal=goal, budget_bytes=BUDGET, headroom_bytes=0)


def test_what_fits_needs_no_fix():
    found = plan({"eval-batch": 50}, 99)
    assert found.chosen.fixes == ()
    assert found.passes


def test_one_that_costs_no_time_comes_before_one_that_does():
    assert plan({"chunked-loss": 50, "offload-activations": 50, "eval-batch": 20}, 120).chosen.fixes == ("eval-batch",)
    found = plan({"drop-outputs": 10, "cache-off": 10, "expandable-segments": 1, "chunked-loss": 50}, 120)
    assert set(found.chosen.fixes) == {"drop-outputs", "cache-off"}


def test_little_time_comes_before_much_and_time_before_data():
    assert plan({"offload-activations": 50, "chunked-loss": 50}, 120).chosen.fixes == ("chunked-loss",)
    assert plan({"offload-activations": 50, "truncation": 50}, 120).chosen.fixes == ("offload-activations",)


def test_what_makes_a_step_faster_is_taken_as_well():
    found = plan({"eval-batch": 20, "no-upcast": 2, "embeddings-on-host": 20}, 120)
    assert found.chosen.fixes == ("eval-batch", "no-upcast")
    assert found.chosen.slowdown == 0.98
    assert found.reasons["no-upcast"] == "with it the training takes 0.98 times as long (predicted)"


def test_the_fast_path_is_taken_where_it_fits_and_is_faster():
    assert plan({}, 90, faster={"torch": 60}, costs={"torch": 5}).chosen.fixes == ("fast-path",)
    assert plan({}, 90, faster={"torch": 60}, costs={"torch": 5}).chosen.slowdown == 0.6
    assert plan({}, 90, faster={"torch": 101}).chosen.fixes == ()
    assert plan({}, 99, faster={"torch": 60}, costs={"torch": 5}).chosen.fixes == ()
    found = plan({"eval-batch": 20}, 119, faster={"torch": 60}, costs={"torch": 5})
    assert found.chosen.fixes == ("eval-batch",), "with the fast path nothing passes"
    found = plan({"eval-batch": 20}, 110, faster={"torch": 60}, costs={"torch": 5})
    assert found.chosen.fixes == ("eval-batch", "fast-path")


def test_memory_that_is_left_is_spent_on_what_need_not_be_computed_again():
    spending = {"faster": {"2048:0+8": 75}, "costs": {"none": 50, "2048:0+8": 20}, "rules": "2048:0+8"}
    found = plan({}, 70, **spending)
    assert found.chosen.fixes == ("fewest-recomputed",)
    assert found.recompute == "2048:0+8"
    assert found.chosen.slowdown == 0.75
    assert "0.75 times as long" in found.reasons["fewest-recomputed"]
    assert plan({}, 90, **spending).chosen.fixes == (), "it would not fit"
    assert plan({}, 70, goal="memory", **spending).chosen.fixes == ()


def test_what_makes_room_for_that_is_taken_with_it():
    spending = {"faster": {"2048:0+8": 75}, "costs": {"none": 50, "2048:0+8": 20}, "rules": "2048:0+8"}
    found = plan({"chunked-loss": 15, "expand-kv": 1}, 90, **spending)
    assert found.chosen.fixes == ("chunked-loss", "fewest-recomputed")
    assert found.reasons["chunked-loss"] == "with it less has to be computed again"
    assert plan({"chunked-loss": 15}, 90, rules="all").chosen.fixes == (), "alone it makes nothing faster"


def test_of_two_losses_that_make_room_the_last_is_taken(monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: True)
    spending = {"faster": {"2048:0+8": 75}, "costs": {"none": 50, "2048:0+8": 20}, "rules": "2048:0+8"}
    losses = MadeUp({"chunked-loss": 15, "liger-loss": 15}, 90, **spending)
    losses.names[fingerprint("chunked-loss", "liger-loss")] = ["liger-loss"]
    found = make_plan(BASE, losses.fixes, losses, goal="speed", budget_bytes=BUDGET, headroom_bytes=0)
    assert found.chosen.fixes == ("liger-loss", "fewest-recomputed")


def test_graphs_are_taken_where_they_are_worth_something():
    fast = {"torch": 60}
    found = plan({"chunked-loss": 50}, 120, faster=fast | {"graphs": 70})
    assert found.chosen.fixes == ("chunked-loss", "fast-path", "step-graphs")
    found = plan({"chunked-loss": 50}, 120, faster=fast | {"graphs": 99.5})
    assert found.chosen.fixes == ("chunked-loss", "fast-path")


def test_padding_that_is_not_computed_is_time():
    found = plan({"eval-batch": 20, "bucketed-batches": 5}, 120, tokens={"bucketed-batches": 20})
    assert found.chosen.fixes == ("eval-batch", "bucketed-batches")
    assert found.chosen.slowdown == 0.2


def test_an_order_that_needs_more_memory_than_there_is_is_left_out():
    found = plan({"eval-batch": 20, "bucketed-batches": -5}, 120, tokens={"bucketed-batches": 20})
    assert found.chosen.fixes == ("eval-batch",)


def test_two_that_take_some_time_come_before_one_that_takes_more():
    found = plan({"clear-cache": 10, "embeddings-on-host": 10, "offload-activations": 20}, 120)
    assert set(found.chosen.fixes) == {"clear-cache", "embeddings-on-host"}
    found = plan({"embeddings-on-host": 10, "offload-activations": 10, "tiled-mlp": 21}, 120)
    assert found.chosen.fixes == ("embeddings-on-host", "offload-activations")
    found = plan({"chunked-loss": 10, "offload-activations": 10, "tiled-mlp": 15, "clear-cache": 1}, 116)
    assert found.chosen.slowdown == 1.02 * 1.10


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
    assert ("drop-outputs",) in {option.fixes for option in found.alternatives}
    assert found.chosen not in found.alternatives


@given(
    savings=st.dictionaries(st.sampled_from([*NAMES, *SLOW, LAST]), st.integers(0, 20), max_size=6),
    needed=st.integers(90, 150),
)
def test_no_other_set_is_faster_than_a_plan_that_passes(savings, needed):
    found = plan(savings, needed)
    assert found.passes == (needed - sum(savings.values()) <= 100)
    if not found.passes or not found.chosen.fixes:
        return
    whole = [name for name in savings if name != LAST]
    for size in range(len(whole) + 1):
        for names in itertools.combinations(whole, size):
            if needed - sum(savings[name] for name in names) <= 100:
                assert LAST not in found.chosen.fixes
                assert math.prod(FIXES[name].slowdown for name in names) >= found.chosen.slowdown * (1 - 1e-12)


@given(
    savings=st.dictionaries(st.sampled_from([*NAMES, *SLOW, LAST]), st.integers(0, 20), max_size=6),
    needed=st.integers(90, 150),
)
def test_a_plan_holds_nothing_that_neither_passes_nor_makes_faster(savings, needed):
    found = plan(savings, needed)
    if found.passes:
        for name in found.chosen.fixes:
            left = needed - sum(savings[other] for other in found.chosen.fixes if other != name)
            assert left > 100 or FIXES[name].slowdown < 1


def test_a_plan_comes_back_from_its_file(tmp_path):
    planned = plan({"drop-outputs": 10, "cache-off": 10}, 120)
    write_plan(tmp_path / "plan.json", planned, None)
    assert read_plan(tmp_path / "plan.json") == (planned, None)
    assert read_plan(tmp_path / "missing.json") == (None, None)
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text()[:-20])
    with pytest.raises(LogError, match=r"plan.json: damaged"):
        read_plan(tmp_path / "plan.json")


def test_found_rules_come_back_too(tmp_path):
    planned = plan({}, 70, faster={"2048:0+8": 75}, rules="2048:0+8")
    write_plan(tmp_path / "plan.json", planned, None)
    assert read_plan(tmp_path / "plan.json")[0].recompute == "2048:0+8"


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
