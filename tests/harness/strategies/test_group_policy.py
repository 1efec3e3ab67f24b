"""GRPO's parts on the simulated card: what is generated, scored and learned, and what each takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate
from memory_harness.harness.data.batching import Example, eval_batches, train_steps
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import Phase, PhaseRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.loop import evaluate_batch, train_step

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "dry" / "trl_grpo_lora.py"
GROUP, COMPLETION, LENGTH = 4, 4, 24
TINY = RunConfig().with_fields(
    model="tiny-llama", dtype="bfloat16", gpu="h200", quantization="none", objective="grpo", max_length=64,
    num_generations=GROUP, max_completion_length=COMPLETION, gradient_accumulation=2, train_batch_size=4,
    batches=f"4x{LENGTH},4x{LENGTH}", eval_batch_size=GROUP,
)  # fmt: skip


def phases_of(config, *, compiles=True, steps=1, computes=False):
    """Return the phases of so many steps, and the strategy."""
    device = SimulatedDevice(find_card("h200"), 2**40, computes=computes)
    strategy = QLoraStrategy(config, device)
    strategy = CompiledStrategy(strategy, device) if compiles else strategy
    records = []
    recorder = PhaseRecorder(device, records.append)
    with device.active():
        strategy.load()
        for number, batches in enumerate(train_steps((), config, 1) * steps, 1):
            recorder.step = number
            train_step(strategy, recorder, batches, 1e-4)
    return [record for record in records if isinstance(record, PhaseRecord)], strategy


def names(records):
    return [record.phase for record in records]


UPDATE = [*[Phase.DATA, Phase.FORWARD, Phase.BACKWARD] * 2, Phase.OPTIMIZER]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [Phase.ROLLOUT, *UPDATE]),
        ({"beta": 0.1}, [Phase.ROLLOUT, Phase.LOGPROBS, *UPDATE]),
        pytest.param({"num_iterations": 2}, [Phase.ROLLOUT, Phase.LOGPROBS, *UPDATE, *UPDATE], marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_parts_that_its_settings_ask_for(fields, expected):
    records, _ = phases_of(TINY.with_fields(**fields))
    assert names(records) == expected
    rollout = records[0]
    assert (rollout.batch.batch_size, rollout.batch.padded_length) == (8, LENGTH - COMPLETION)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"beta": 0.1, "num_iterations": 2}, {"finetuning_type": "full"}])
@pytest.mark.parametrize("loss", ["full", "chunked"])
def test_steps_that_are_replayed_take_what_running_them_takes(fields, loss):
    config = TINY.with_fields(loss=loss, **fields)
    found = [
        [record.after for record in phases_of(config, compiles=compiles, steps=2)[0]] for compiles in (True, False)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("loss", ["full", "chunked"])
def test_it_computes_with_values_too(loss):
    torch.manual_seed(0)
    config = TINY.with_fields(dtype="float32", loss=loss, beta=0.1, lora_dropout=0.0)
    _, strategy = phases_of(config, compiles=False, computes=True)
    trained = [parameter for parameter in strategy.trainable() if parameter.abs().sum() > 0]
    assert len(trained) == len(strategy.trainable()), "the second matrix of each adapter begins as zeros"


def test_a_rollout_holds_the_keys_and_values_of_all_completions():
    longer = TINY.with_fields(max_completion_length=COMPLETION, batches="64x64", gradient_accumulation=1)
    (short, *_), _ = phases_of(TINY)
    (long, *_), strategy = phases_of(longer)
    model = strategy.inner.model.config
    per_token = 2 * 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim
    grown = long.after.peak_allocated_bytes - short.after.peak_allocated_bytes
    assert grown >= per_token * (64 * 64 - 8 * LENGTH)
    assert long.after.allocated_bytes == short.after.allocated_bytes, "nothing of it stays"


def test_checkpointing_and_training_come_back_after_a_rollout():
    _, strategy = phases_of(TINY.with_fields(gradient_checkpointing=True), compiles=False)
    assert strategy.model.training
    assert strategy.forward_facts.num_checkpointed_layers == strategy.model.config.num_hidden_layers


def test_an_evaluation_generates_what_it_evaluates():
    config = TINY.with_fields(beta=0.1)
    device = SimulatedDevice(find_card("h200"), 2**40, computes=False)
    strategy = CompiledStrategy(QLoraStrategy(config, device), device)
    (batch,) = eval_batches([Example(LENGTH, LENGTH - COMPLETION)], config)
    assert (batch.shape.batch_size, batch.rollout.num_tokens, batch.rollout.is_scored) == (GROUP, COMPLETION, True)
    records = []
    with device.active():
        strategy.load()
        evaluate_batch(strategy, PhaseRecorder(device, records.append), batch)
    assert [record.phase for record in records if isinstance(record, PhaseRecord)] == [Phase.EVAL]


# What is generated from which prompts.


def rollouts(config, prompts):
    examples = [Example(length + COMPLETION, length) for length in prompts]
    return [[batch.rollout for batch in step if batch.rollout] for step in train_steps(examples, config, 1)]


@pytest.mark.parametrize("batching", ["bucketed", "dynamic", "padded"])
def test_each_prompt_is_completed_as_often_as_a_group_is_large(batching):
    config = TINY.with_fields(batches=None, batching=batching, pad_to_multiple_of=1)
    found = rollouts(config, [5, 9, 7, 11])
    assert [len(step) for step in found] == [1, 1], "8 completions are two prompts' groups"
    for (rollout,) in found:
        assert len(rollout.prompt_lengths) == 8
        if batching == "padded":
            assert max(rollout.prompt_lengths) == config.data.max_length - COMPLETION
    if batching == "bucketed":
        assert sorted(max(rollout.prompt_lengths) for (rollout,) in found) == [7, 11]


def test_completions_are_learned_as_often_as_asked_and_generated_once():
    config = TINY.with_fields(batches=None, num_iterations=3)
    assert [len(step) for step in rollouts(config, [5, 5, 5, 5])] == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"loss": "liger"}, "--loss liger: is not made for --objective grpo"),
        ({"max_completion_length": 64}, "--max-completion-length 64: leaves prompts no room in --max-length 64"),
        (
            {"max_completion_length": 30},
            "--batches 4x24,4x24: leaves prompts no room beside --max-completion-length 30",
        ),
        ({"batches": None, "num_generations": 3, "do_eval": False}, "--num-generations 3: the 8 completions of a step"),
        ({"eval_batch_size": 6}, "--eval-batch-size 6: is no whole groups of --num-generations 4"),
        ({"num_gpus": 2}, "--num-gpus 2: is not simulated with --objective grpo"),
        ({"attention": "flash_attention_2"}, "--attention flash_attention_2: prompts of different lengths"),
        ({"train_on_prompts": True}, "--train-on-prompts: --objective grpo learns of completions alone"),
        ({"finetuning_type": "full", "beta": 0.1}, "--objective grpo: compares with the model without its adapter"),
        ({"num_generations": 1}, "--num-generations 1: out of range (allowed: 2 to 10000)"),
        ({"eval_generate": 4}, "--eval-generate 4: --objective grpo generates in its evaluations anyway"),
        ({"objective": "sft", "max_completion_length": 512}, "--num-generations 4: is for --objective grpo"),
        (
            {"objective": "dpo", "beta": 0.0, "num_generations": 8, "max_completion_length": 512},
            "--beta 0: --objective",
        ),
    ],
)
def test_what_cannot_go_together_is_one_line(fields, line):
    with pytest.raises(ConfigError) as raised:
        validate(TINY.with_fields(**fields))
    (problem,) = raised.value.problems
    assert problem.startswith(line)


@pytest.mark.slow
def test_each_part_takes_what_trl_takes_in_a_dry_run(tmp_path):
    """The oracle is TRL's own trainer, run dry: its generation, its log-probabilities without a graph, its update."""
    from memory_harness.probes.session.dry_run import DryRun

    card = find_card("h200")
    log = DryRun(str(SCRIPT), (), card, card.budget_bytes, max_steps=2, is_quiet=True).run(tmp_path / "log.jsonl")
    (tmp_path / "config.json").write_text(SCRIPT.with_name("trl_grpo_lora.json").read_text(encoding="utf-8"))
    config = TINY.with_fields(
        model=str(tmp_path), loss="chunked", beta=0.1, optimizer="adamw_torch_fused", max_completion_length=24,
        max_length=280, batches="8x280,8x280", target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    )  # fmt: skip
    records, _ = phases_of(config, steps=2)
    dry = log.peaks()
    pairs = {
        Phase.ROLLOUT: Phase.GENERATE,
        Phase.LOGPROBS: Phase.EVAL,
        Phase.FORWARD: Phase.FORWARD,
        Phase.BACKWARD: Phase.BACKWARD,
        Phase.OPTIMIZER: Phase.OPTIMIZER,
    }
    for ours, theirs in pairs.items():
        peak = max(record.after.peak_allocated_bytes for record in records if record.phase is ours)
        assert peak == pytest.approx(dry[theirs].peak_allocated_bytes, rel=0.001), ours


def test_training_is_refused_in_one_line():
    from memory_harness.probes.session.gate import check_trainable

    with pytest.raises(ConfigError) as raised:
        check_trainable("--train", TINY, computes=True)
    assert raised.value.problems[0].startswith("--train: --objective grpo is simulated only")
