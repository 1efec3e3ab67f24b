"""Which layers compute again: rules found from what batches need, that pass with the whole run."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import ModelConfig, RunConfig
from memory_harness.configs.units import MIB
from memory_harness.configs.validation import validate
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.probes.plan.predict import RecordedModel
from memory_harness.probes.plan.recompute import _Needs, with_fewest_recomputed
from tests.harness.techniques.driving import TINY, micro_batch, opened, simulated_peak, uniform_batch

NEEDS = _Needs(32, (4096, 2048), (20_384, 12_192), None, (8_096, 6_048), 64, 8)
"""4 bytes a token and 4000 beside them where all layers keep, 1 and 4000 where all compute again"""


def number_at(rules: str, tokens: int) -> int:
    return ModelConfig(recompute=rules).recomputed(32, tokens).layers


@given(allowed=st.integers(0, 30_000), tokens=st.integers(1, 4096))
def test_what_the_rules_allow_fits_and_one_stage_fewer_would_not(allowed, tokens):
    number = number_at(NEEDS.rules(allowed), tokens)
    takes = [4000 + tokens * (4 - 3 * layers / 32) for layers in (number, number - 4)]
    assert takes[0] <= allowed or number == 32
    assert NEEDS.highest(allowed) <= allowed
    # rules are made for multiples of 64 tokens
    assert number == 0 or takes[1] + 4 * 64 > allowed


def test_more_memory_never_asks_for_more_layers():
    numbers = [number_at(NEEDS.rules(allowed), 4096) for allowed in range(0, 24_000, 500)]
    assert numbers == sorted(numbers, reverse=True)
    assert NEEDS.rules(20_384) == "none"
    assert NEEDS.rules(3_000) == "all"


@given(allowed=st.integers(0, 30_000))
def test_the_highest_is_what_the_batch_takes_that_takes_most_under_the_rules(allowed):
    rules = NEEDS.rules(allowed)
    numbers = {tokens: number_at(rules, tokens) for tokens in range(64, 4097, 64)}
    takes = [4000 + tokens * (4 - 3 * number / 32) for tokens, number in numbers.items() if number < 32]
    assert NEEDS.highest(allowed) == int(max(takes, default=0))


@pytest.mark.parametrize(
    ("recompute", "tokens", "number"),
    [
        ("all", 9, 32),
        ("auto", 9, 32),
        ("none", 9, 0),
        ("5", 9, 5),
        ("99", 9, 32),
        ("8:0,16:4", 8, 0),
        ("8:0,16:4", 9, 4),
        ("8:0,16:4", 17, 32),
    ],
)
def test_rules_say_how_many(recompute, tokens, number):
    assert number_at(recompute, tokens) == number
    assert ModelConfig(recompute=recompute, gradient_checkpointing=False).recomputed(32, tokens) == (0, 0)


@pytest.mark.parametrize("recompute", ["some", "-1", "8:0,4:1", "8:0,8:1", "8:", "0:4", "", "1+", "+1"])
def test_other_rules_are_refused(recompute):
    with pytest.raises(ConfigError, match="--recompute"):
        validate(RunConfig().with_fields(recompute=recompute))


@pytest.mark.parametrize(
    ("recompute", "expected"), [("4+9", (4, 9)), ("30+9", (30, 2)), ("8:0+1,99:2+30", (2, 30)), ("8:0+1", (32, 0))]
)
def test_rules_name_blocks_too(recompute, expected):
    assert ModelConfig(recompute=recompute, fast_path="liger").recomputed(32, 9) == expected


def test_blocks_alone_compute_again_on_the_fast_path_only():
    with pytest.raises(ConfigError, match="fast-path"):
        validate(RunConfig().with_fields(recompute="4+9"))


def test_blocks_are_computed_again_before_layers_are():
    needs = dataclasses.replace(NEEDS, without_blocks=(14_240, 9_120))
    assert needs.rules(20_384) == "none"
    assert needs.rules(14_240).endswith("4096:0+32")
    assert needs.rules(11_200).endswith("4096:16+16")
    assert needs.rules(3_000) == "all"


def test_nothing_to_recompute_is_refused():
    with pytest.raises(ConfigError, match="--no-gradient-checkpointing"):
        validate(RunConfig().with_fields(recompute="4", gradient_checkpointing=False))


def test_what_a_batch_recomputes_does_not_depend_on_the_one_before():
    """A block within a layer that recomputes as a whole would be computed a third time."""
    config = TINY.with_fields(fast_path="torch", recompute="32:0+2,64:1+1")

    def recomputed_after(*lengths):
        strategy, device = opened(config)
        with device.active():
            strategy.load()
            for length in lengths:
                strategy.put(uniform_batch(1, length), training=True)
        layers = strategy.model.base_model.model.model.layers
        return [(layer.gradient_checkpointing, layer.mlp.computes_again) for layer in layers]

    assert recomputed_after(32) == [(False, True), (False, True)]
    assert recomputed_after(64) == recomputed_after(32, 64) == [(True, False), (False, True)]
    assert recomputed_after(64, 32) == recomputed_after(32)


@pytest.mark.slow
def test_losses_stay_the_same_and_memory_grows_with_what_is_kept():
    losses, batch = [], uniform_batch(1, 16)
    for recompute in ("all", "16:1", "none"):
        losses.append(micro_batch(TINY.with_fields(recompute=recompute), batch)[0])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    fake = TINY.with_fields(tensors="fake", dtype="float16", max_length=512)
    keep, recompute = (simulated_peak(fake.with_fields(recompute=r), uniform_batch(1, 512)) for r in ("none", "all"))
    assert keep.peak_allocated_bytes > recompute.peak_allocated_bytes


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"batching": "packed", "gpu": "l4"}])
def test_the_fewest_that_fit_are_found_for_the_lengths_of_the_run(how):
    fields = {"recompute": "auto", "samples": 40, "do_eval": False, **how}
    config = TINY.with_fields(tensors="fake", device="simulated", dtype="float16", max_length=2048, **fields)
    data = prepare(config)
    needed = {}
    for rules in ("none", "all"):
        fixed = config.with_fields(recompute=rules)
        needed[rules] = RecordedModel(fixed).run(fixed, data, UNLIMITED).peak_reserved_bytes
    assert needed["all"] < needed["none"]
    found = {}
    for name, budget in (("roomy", needed["none"] + 64 * MIB), ("tight", needed["all"] + 4 * MIB)):
        held = dataclasses.replace(config.device, budget_bytes=budget)
        chosen = with_fewest_recomputed(dataclasses.replace(config, device=held), data)
        found[name] = chosen.model.recompute
        assert RecordedModel(chosen).run(chosen, data, UNLIMITED).peak_reserved_bytes <= budget
    assert found["roomy"] == "none"
    assert found["tight"] != "none"
