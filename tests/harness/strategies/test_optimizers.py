"""Optimizers by name: each trains for real, goes on from a checkpoint bit for bit, and is simulated as it is."""

from __future__ import annotations

import dataclasses
from copy import deepcopy

import pytest
import torch
from transformers.training_args import OptimizerNames

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.optimizers import OPTIMIZERS, PACKAGES, state_bytes
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.optimizers import make_optimizer
from memory_harness.harness.strategies.state import load_optimizer
from tests.harness.techniques.driving import TINY, opened, uniform_batch

SMALL = TINY.with_fields(lora_rank=128, quantization="none", weight_decay=0.01)
"""of a rank at which bitsandbytes keeps 8 bits of most matrices"""
BATCH = uniform_batch(1, 32)
WITH_ARGUMENTS = {
    "sgd": "momentum=0.9,nesterov=true",
    "rmsprop": "momentum=0.9,centered=yes",
    "ademamix": "t_alpha=5,t_beta3=5",
    "rmsprop_bnb": "alpha=0.9",
    "adagrad": "lr_decay=0.1",
    "muon": "ns_steps=3,adjust_lr_fn=match_rms_adamw",
}
FIRST = ("adamw", "adamw_torch_fused", "adafactor", "lion_8bit", "paged_ademamix_8bit")
"""of each way to keep states"""
EVERY = [(name, None) for name in OPTIMIZERS] + list(WITH_ARGUMENTS.items())


def slow_unless_quick(name, arguments):
    is_first_of_its_kind = name in FIRST and arguments is None
    return pytest.param(name, arguments, marks=() if is_first_of_its_kind else pytest.mark.slow)


def config_of(name, arguments=None, **changes):
    return SMALL.with_fields(optimizer=name, optim_args=arguments, **changes)


def step(strategy):
    strategy.put(BATCH, training=True)
    strategy.forward(BATCH.shape.target_tokens)
    strategy.backward()
    return strategy.optimizer_step(1e-2)[0]


def started(config):
    torch.manual_seed(0)
    return opened(config)


def values_of(strategy):
    return [parameter.detach().clone() for parameter in strategy.trainable()]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(("name", "arguments"), [slow_unless_quick(*each) for each in EVERY])
def test_it_trains_and_goes_on_from_a_checkpoint_as_if_nothing_had_happened(name, arguments, tmp_path):
    strategy, device = started(config_of(name, arguments))
    with device.active():
        strategy.load()
        before = values_of(strategy)
        losses = [step(strategy) for _ in range(3)]
        strategy.save(tmp_path)
        losses.append(step(strategy))
        undisturbed = values_of(strategy)
    assert any(not torch.equal(a, b) for a, b in zip(before, undisturbed, strict=True))
    assert losses[-1] < losses[0]
    strategy, device = started(config_of(name, arguments))
    with device.active():
        strategy.load()
        strategy.restore(tmp_path)
        assert step(strategy) == losses[-1]
        resumed = values_of(strategy)
    assert all(torch.equal(a, b) for a, b in zip(resumed, undisturbed, strict=True))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(("name", "arguments"), [slow_unless_quick(*one) for one in EVERY])
def test_a_step_that_is_undone_leaves_no_trace(name, arguments):
    strategy, device = started(config_of(name, arguments))
    with device.active():
        strategy.load()
        step(strategy)
        kept, copied = values_of(strategy), strategy.host_copy()
        once = step(strategy), values_of(strategy)
        strategy.undo_to(copied)
        assert all(torch.equal(a, b) for a, b in zip(values_of(strategy), kept, strict=True))
        again = step(strategy), values_of(strategy)
    assert once[0] == again[0]
    assert all(torch.equal(a, b) for a, b in zip(once[1], again[1], strict=True))


def counters_of(config, kind):
    strategy, device = opened(config)
    if kind == "replayed":
        strategy = CompiledStrategy(strategy, device)
    found = []
    with device.active():
        strategy.load()
        for _ in range(4):  # one that makes the states, one that is recorded, two that are replayed
            device.reset_peaks()
            step(strategy)
            found.append(dataclasses.asdict(device.stats()))
        if kind == "fake":
            assert state_is_named(strategy)
    return found


def state_is_named(strategy):
    """Return whether every tensor of the states is among those that outlive a phase."""
    named = {id(tensor) for _, tensor in strategy.named_tensors()}
    tensors = [value for state in strategy.optimizer.state.values() for value in state.values()]
    return all(id(tensor) in named for tensor in tensors if isinstance(tensor, torch.Tensor))


@pytest.mark.parametrize(("name", "arguments"), [slow_unless_quick(*one) for one in EVERY])
def test_a_replayed_step_takes_what_a_traced_one_does(name, arguments):
    config = config_of(name, arguments, tensors="fake", dtype="float16")
    fake, replayed = counters_of(config, "fake"), counters_of(config, "replayed")
    assert [c["allocated_bytes"] for c in fake] == [c["allocated_bytes"] for c in replayed]
    assert [c["peak_allocated_bytes"] for c in fake] == [c["peak_allocated_bytes"] for c in replayed]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(("name", "arguments"), EVERY)
def test_it_keeps_what_the_table_says(name, arguments):
    model = torch.nn.Linear(256, 256, bias=False)
    optimizer = stepped(model, name, optim_args=arguments)
    (state,) = optimizer.state.values() or [{}]
    kept = [value for key, value in state.items() if isinstance(value, torch.Tensor) and "qmap" not in key]
    number = sum(value.numel() * value.element_size() for value in kept)
    assert number == pytest.approx(256 * 256 * state_bytes(name, arguments), rel=0.05, abs=4096)


def test_momentum_counts():
    assert (state_bytes("sgd", None), state_bytes("sgd", "momentum=0.9")) == (0, 4)
    assert state_bytes("rmsprop", "momentum=0.9,centered=true") == 12


def test_every_optimizer_of_transformers_is_known():
    assert {name.value for name in OptimizerNames} <= {*OPTIMIZERS, *PACKAGES}


@pytest.mark.parametrize("name", PACKAGES)
def test_what_needs_another_package_is_refused_by_its_name(name):
    with pytest.raises(ConfigError, match=rf"--optimizer {name}: is of the package {PACKAGES[name]}.*allowed: adamw,"):
        validate(RunConfig().with_fields(optimizer=name, device="simulated"))


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("adamw_torch", "momentum=0.9", "adamw_torch has no momentum (allowed with it: none)"),
        ("sgd", "momentum", "'momentum' is no KEY=VALUE"),
        ("sgd", "momentum=much", "'much' is no number"),
        ("sgd", "nesterov=true", "needs a momentum"),
        ("adam", None, "no such optimizer (allowed: adamw, adamw_torch,"),
    ],
)
def test_what_an_optimizer_does_not_take_is_one_line(name, arguments, named):
    with pytest.raises(ConfigError) as refusal:
        validate(RunConfig().with_fields(optimizer=name, optim_args=arguments, device="simulated"))
    (line,) = refusal.value.problems
    assert named in line


def stepped(model, name, **changes):
    optimizer = make_optimizer(RunConfig().with_fields(optimizer=name, **changes), model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


class TestWeights:
    """Which weights decay, and in how many bits states are kept."""

    @staticmethod
    def model(dtype=torch.float32):
        model = torch.nn.Module()
        model.embed = torch.nn.Embedding(64, 128, dtype=dtype)
        model.linear = torch.nn.Linear(128, 128, dtype=dtype)
        model.input_layernorm = torch.nn.LayerNorm(128, dtype=dtype)
        return model

    @staticmethod
    def decays(optimizer):
        return {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}

    def test_biases_and_norms_do_not_decay(self):
        model = self.model()
        decays = self.decays(make_optimizer(RunConfig().with_fields(optimizer="adamw_torch", weight_decay=0.1), model))
        assert decays[id(model.linear.weight)] == decays[id(model.embed.weight)] == 0.1
        assert decays[id(model.linear.bias)] == decays[id(model.input_layernorm.weight)] == 0

    @pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
    def test_those_of_before_decay_all_unless_told_otherwise(self, name):
        model = self.model()
        assert set(self.decays(make_optimizer(RunConfig().with_fields(optimizer=name), model)).values()) == {0.01}
        told = make_optimizer(RunConfig().with_fields(optimizer=name, weight_decay=0.0), model)
        assert set(self.decays(told).values()) == {0}

    def test_options_reach_it(self):
        options = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "learning_rate": 0.5}
        for name in ("adamw", "adamw_torch_fused", "paged_adamw_32bit"):
            (group, *_) = make_optimizer(RunConfig().with_fields(optimizer=name, **options), self.model()).param_groups
            assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.95), 1e-6, 0.5)

    def test_embeddings_keep_32_bits_beside_8(self):
        model = self.model()
        optimizer = stepped(model, "lion_8bit")
        assert optimizer.state[model.embed.weight]["state1"].dtype is torch.float32
        assert optimizer.state[model.linear.weight]["state1"].dtype is torch.uint8

    def test_nothing_of_a_model_outlives_its_optimizer(self):
        from bitsandbytes.optim import GlobalOptimManager

        make_optimizer(RunConfig().with_fields(optimizer="lion_8bit"), self.model())
        assert not GlobalOptimManager.get_instance().module_weight_config_triple

    def test_muon_takes_matrices_alone(self):
        with pytest.raises(ConfigError, match="--optimizer muon: Muon only supports 2D parameters"):
            make_optimizer(RunConfig().with_fields(optimizer="muon"), self.model())

    def test_a_kernel_that_cuda_lacks_is_named(self):
        with pytest.raises(ConfigError, match=r"rmsprop_bnb: has no kernel for the bfloat16 of embed\.weight"):
            make_optimizer(RunConfig().with_fields(optimizer="rmsprop_bnb"), self.model(torch.bfloat16))

    def test_states_of_another_type_than_their_weights_come_back_as_they_were(self):
        model = self.model(torch.bfloat16)
        saved = deepcopy(stepped(model, "adafactor").state_dict())
        resumed = make_optimizer(RunConfig().with_fields(optimizer="adafactor"), model)
        load_optimizer(resumed, saved)
        for before, now in zip(saved["state"].values(), resumed.state_dict()["state"].values(), strict=True):
            assert before.keys() == now.keys()
            for key, value in before.items():
                assert not isinstance(value, torch.Tensor) or torch.equal(now[key], value), key
