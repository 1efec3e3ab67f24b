"""Two processes that share every layer out train as one does that has it whole."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from memory_harness.configs.launch import Launched
from memory_harness.configs.models import find_model
from memory_harness.harness.devices.parallel import join, local_part
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint
from memory_harness.harness.train.run import open_device
from tests.harness.devices.parallel_runs import in_processes, train_together
from tests.harness.devices.test_parallel import ADDED_OTHERWISE, TWO, Failing, Stopping, are_identical, guarded  # noqa: F401

SHARED = TWO.with_fields(sharding="fsdp")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model's weights on disk: random ones are drawn in another order where adapters are made layer by layer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_random_checkpoint(find_model("tiny-llama"), folder, torch.float32, open_device(TWO))
    for tokenizer in folder.glob("*token*"):  # the tiny model's own is made of bytes
        tokenizer.unlink()
    return str(folder)


def test_one_two_and_two_that_share_layers_have_the_same_losses(checkpoint, tmp_path):
    short = {"model": checkpoint, "samples": 10, "generate_prompts": 1}
    (alone,) = train_together(tmp_path / "alone", TWO.with_fields(num_gpus=1, **short))
    copies = train_together(tmp_path / "copies", TWO.with_fields(**short))
    shared = train_together(tmp_path / "shared", SHARED.with_fields(**short))
    for part in (alone, *copies, *shared):
        assert part.outcome is Outcome.COMPLETED
        assert part.losses == pytest.approx(alone.losses, rel=ADDED_OTHERWISE)
    assert shared[0].losses == shared[1].losses
    assert are_identical(copies)
    assert [reply.token_ids for reply in shared[0].replies] == [reply.token_ids for reply in shared[1].replies]


def weights_of(rank, checkpoint, meeting):
    """Return each 4-bit weight's bytes, of this rank's share and once gathered, and how it was quantised."""
    torch.set_num_threads(1)
    config = (SHARED if meeting else TWO.with_fields(num_gpus=1)).with_fields(model=checkpoint)
    device = open_device(config, join(Launched(rank, rank, 2, 2), meeting) if meeting else None)
    strategy = QLoraStrategy(config, device)
    with device.active():
        strategy.load()
        layers = {name: m for name, m in strategy.model.named_modules() if isinstance(m, Linear4bit)}
        held = {name: local_part(m.weight).untyped_storage().nbytes() for name, m in layers.items()}
        if meeting:
            for module in strategy.model.modules():
                if hasattr(module, "unshard"):
                    module.unshard()
        found = {name: local_part(m.weight).detach().view(torch.uint8).flatten() for name, m in layers.items()}
        values = {name: weight.tolist() for name, weight in found.items()}
        constants = {name: m.quant_state.absmax.tolist() for name, m in layers.items()}
    return held, values, constants


@pytest.mark.slow
def test_weights_in_4_bits_are_neither_changed_nor_copied_to_each(checkpoint, tmp_path):
    (whole,) = in_processes(1, lambda rank: weights_of(rank, checkpoint, ""))
    both = in_processes(2, lambda rank: weights_of(rank, checkpoint, f"file://{tmp_path / 'meeting'}"))
    assert whole[1]
    for held, gathered, constants in both:
        for name, weight in whole[1].items():
            assert held[name] * 2 == whole[0][name]
            assert gathered[name] == weight
            assert constants[name] == whole[2][name]


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank"), [(Phase.FORWARD, 1), (Phase.BACKWARD, 0), (Phase.OPTIMIZER, 1)])
def test_out_of_memory_on_one_is_undone_on_both(phase, rank, guarded, tmp_path):  # noqa: F811
    undisturbed = train_together(tmp_path / "undisturbed", SHARED)
    parts = train_together(tmp_path / "run", SHARED, lambda r: Failing(phase, 3, times=int(r == rank)))
    for part in parts:
        assert part.outcome is Outcome.COMPLETED
        assert part.losses == undisturbed[0].losses
        assert [(oom.phase, oom.step) for oom in part.log.ooms] == [(phase, 3)]
        assert [r.action for r in part.log.recoveries] == ["clear-cache"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.EVAL, Phase.GENERATE])
def test_what_one_has_no_room_to_evaluate_or_answer_both_cut_alike(phase, tmp_path):
    step = 4 if phase is Phase.EVAL else 5
    parts = train_together(tmp_path / "run", SHARED, lambda r: Failing(phase, step, times=r))
    assert [part.outcome for part in parts] == [Outcome.COMPLETED] * 2
    assert parts[0].losses == parts[1].losses
    assert [len(part.log.ooms) for part in parts] == [1, 1]


@pytest.mark.slow
def test_it_is_resumed_bit_by_bit_and_by_another_number_of_processes_up_to_rounding(checkpoint, tmp_path):
    config = SHARED.with_fields(lora_dropout=0.1, model=checkpoint)
    whole = train_together(tmp_path / "whole", config)
    stopped = train_together(tmp_path / "run", config, lambda rank: Stopping(3 if rank else None))
    assert {part.outcome for part in stopped} == {Outcome.STOPPED}
    assert train_together(tmp_path / "run", config, resume=True)[0].losses == whole[0].losses

    without_dropout = SHARED.with_fields(model=checkpoint)
    undisturbed = train_together(tmp_path / "undisturbed", without_dropout)
    for number in (1, 4):
        run, others = tmp_path / f"on-{number}", without_dropout.with_fields(num_gpus=number)
        train_together(run, without_dropout, lambda rank: Stopping(3))
        config = others if number > 1 else TWO.with_fields(num_gpus=1, model=checkpoint)
        parts = train_together(run, config, resume=True)
        assert parts[0].losses == pytest.approx(undisturbed[0].losses, rel=ADDED_OTHERWISE)
