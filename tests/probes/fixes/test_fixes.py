"""Fixes: what each changes, that it changes nothing else, and which are proposed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.optimizers import OPTIMIZERS
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.sharding import sharding_problems
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import Finding
from memory_harness.probes.fixes import FIXES, SPEEDUPS, propose, rung
from tests.builders import AS_PUBLISHED, as_published_oom

configs = st.builds(
    lambda **fields: RunConfig().with_fields(**fields),
    eval_batch_size=st.integers(1, 16),
    train_batch_size=st.integers(1, 16),
    kbit_upcast=st.booleans(),
    model=st.sampled_from(["llama-3.1-8b", "tiny-moe"]),
    batching=st.sampled_from(["padded", "dynamic", "bucketed"]),
    max_batch_tokens=st.none() | st.integers(1, 65536),
    max_length=st.integers(16, 4096),
    loss=st.sampled_from(["full", "chunked", "liger"]),
    hold_outputs=st.booleans(),
    use_cache=st.booleans(),
    attention=st.sampled_from(["auto", "math"]),
    empty_cache_before_eval=st.booleans(),
    expand_kv=st.booleans(),
    offload_activations=st.booleans(),
    embeddings_on_host=st.booleans(),
    tiled_mlp=st.booleans(),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    expandable_segments=st.booleans(),
    empty_cache_every=st.none() | st.integers(1, 100),
)

WORST = AS_PUBLISHED.with_fields(hold_outputs=True, use_cache=True, attention="math")
"""the published recipe with every mistake that a fix undoes"""

FULL = WORST.with_fields(model="llama-3.2-1b", quantization="none", finetuning_type="full", dtype="bfloat16")
"""the same of a fine-tune of all weights"""

MIXTURE = WORST.with_fields(model="tiny-moe")
"""the same of a mixture of experts"""

CHANGES = {
    "drop-outputs": {"hold_outputs": False},
    "cache-off": {"use_cache": False},
    "clear-before-eval": {"empty_cache_before_eval": True},
    "auto-attention": {"attention": "auto"},
    "liger-loss": {"loss": "liger"},
    "paged-optimizer": {"optimizer": "paged_adamw_8bit"},
    "eval-batch": {"eval_batch_size": 1},
    "expandable-segments": {"expandable_segments": True},
    "clear-cache": {"empty_cache_every": 10},
    "offload-activations": {"offload_activations": True},
    "embeddings-on-host": {"embeddings_on_host": True},
    "tiled-mlp": {"tiled_mlp": True},
    "no-upcast": {"kbit_upcast": False},
    "chunked-loss": {"loss": "chunked"},
    "expand-kv": {"expand_kv": True},
    "optimizer-8bit": {"optimizer": "adamw_8bit"},
    "bucketed-batches": {"batching": "bucketed", "max_batch_tokens": 2048},
    "truncation": {"max_length": 1024},
    "quantise-experts": {"quantise_experts": True},
    "adafactor": {"optimizer": "adafactor"},
    "train-adapter": {"finetuning_type": "lora"},
}


SPENDING = {
    "fast-path": {"fast_path": "torch"},
    "nothing-recomputed": {"recompute": "none"},
    "fewest-recomputed": {"recompute": "auto"},
    "step-graphs": {"cuda_graphs": "auto"},
}
"""the same of what spends memory for time, on a recipe that graphs can replay"""


def finding(cause):
    return Finding(cause, "error", "", "")


@pytest.mark.parametrize("sharding", ["fsdp", "split"])
def test_no_fix_asks_of_several_gpus_what_they_cannot(sharding):
    for recipe in (WORST, FULL):
        config = recipe.with_fields(sharding=sharding, num_gpus=2)
        tried = [fix.apply(config) for fix in FIXES.values()]
        allowed = [changed for changed in tried if changed is not None]
        assert allowed
        assert not any(map(sharding_problems, allowed))


@pytest.mark.parametrize("name", FIXES)
def test_a_fix_changes_its_fields_and_nothing_else(name, monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: True)
    assert name in CHANGES, "say in CHANGES what the fix changes"
    worst = {"quantise-experts": MIXTURE, "adafactor": FULL, "train-adapter": FULL}.get(name, WORST)
    assert FIXES[name].apply(worst) == worst.with_fields(**CHANGES[name])


@pytest.mark.parametrize("name", SPEEDUPS)
def test_what_spends_memory_changes_its_fields_and_settles(name):
    before = RunConfig().with_fields(loss="chunked", fast_path="off" if name == "fast-path" else "torch")
    after = SPEEDUPS[name].apply(before)
    assert after == before.with_fields(**SPENDING[name])
    assert SPEEDUPS[name].apply(after) is None
    assert not SPEEDUPS[name].addresses


def test_the_fast_path_is_taken_by_what_is_installed_and_only_where_it_goes(monkeypatch):
    fast = SPEEDUPS["fast-path"]
    monkeypatch.setattr("memory_harness.probes.fixes.fast_path.find_spec", lambda name: True)
    assert fast.apply(WORST).model.fast_path == "liger"
    assert fast.apply(MIXTURE) is None
    assert fast.apply(FULL) is None
    assert fast.apply(WORST.with_fields(use_dora=True)) is None


@pytest.mark.parametrize("name", ["chunked-loss", "liger-loss", "tiled-mlp", "expand-kv"])
def test_what_replaces_parts_of_a_model_is_not_tried_on_others_than_it_knows(name, monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: True)
    assert FIXES[name].apply(MIXTURE) is None


@pytest.mark.parametrize(
    ("optimizer", "in_8_bits", "paged"),
    [
        ("adamw", "adamw_8bit", "paged_adamw_8bit"),
        ("adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit"),
        ("lion_32bit", "lion_8bit", "paged_lion_8bit"),
        ("ademamix_8bit", None, "paged_ademamix_8bit"),
        ("rmsprop_bnb", "rmsprop_bnb_8bit", None),
        ("paged_adamw_32bit", None, None),
        ("adafactor", None, None),
        ("sgd", None, None),
    ],
)
def test_an_optimizer_becomes_a_smaller_one_of_its_kind_or_stays(optimizer, in_8_bits, paged):
    config = WORST.with_fields(optimizer=optimizer)
    for name, expected in (("optimizer-8bit", in_8_bits), ("paged-optimizer", paged)):
        fixed = FIXES[name].apply(config)
        assert (fixed and fixed.train.optimizer) == expected


def test_a_paged_optimizer_decays_what_decayed_before():
    fixed = FIXES["paged-optimizer"].apply(WORST.with_fields(optimizer="adamw_torch"))
    assert fixed.train.weight_decay == 0
    assert FIXES["paged-optimizer"].apply(WORST).train.weight_decay is None


@pytest.mark.parametrize("changes", [{"label_smoothing_factor": 0.1}, {"eval_keep_logits": True}])
@pytest.mark.parametrize("name", ["chunked-loss", "liger-loss"])
def test_a_loss_in_parts_is_not_tried_where_all_logits_are_needed(name, changes, monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: True)
    assert FIXES[name].apply(WORST.with_fields(**changes)) is None


def test_a_kernel_that_is_not_installed_is_not_proposed(monkeypatch):
    monkeypatch.setattr("memory_harness.probes.fixes.liger_loss.find_spec", lambda name: None)
    assert FIXES["liger-loss"].apply(WORST) is None


@pytest.mark.parametrize("name", FIXES)
@given(config=configs)
def test_a_fix_changes_something_or_declines_and_settles_at_once(name, config):
    fixed = FIXES[name].apply(config)
    if fixed is not None:
        assert fixed != config
        assert FIXES[name].apply(fixed) is None


@given(config=configs)
def test_bucketing_never_lets_a_batch_take_more_than_training_did(config):
    fixed = FIXES["bucketed-batches"].apply(config) or config
    assert fixed.data.max_batch_tokens <= config.train.train_batch_size * config.data.max_length


def test_the_ladder_goes_from_what_costs_nothing_to_what_changes_the_data():
    rungs = [rung(fix) for fix in FIXES.values()]
    assert rungs == sorted(rungs)
    assert [fix.equivalence for fix in FIXES.values()][-5:] == ["reordered", *["data"] * 4]


def test_rounding_comes_before_noticeable_time():
    names = list(FIXES)
    assert names.index("chunked-loss") < names.index("offload-activations")


def test_the_published_failure_gets_the_evaluation_batch_first():
    proposed = propose(detect(as_published_oom()), AS_PUBLISHED)
    assert proposed[0].name == "eval-batch"
    assert "expandable-segments" not in [fix.name for fix in proposed]


def test_fixes_in_force_are_not_proposed():
    config = AS_PUBLISHED.with_fields(eval_batch_size=1)
    assert [fix.name for fix in propose([finding("eval-batch-logits")], config)] == ["chunked-loss"]


@pytest.mark.parametrize("findings", [[], [finding("unexplained-growth")]])
def test_without_a_known_cause_nothing_is_proposed(findings):
    assert propose(findings, AS_PUBLISHED) == []
