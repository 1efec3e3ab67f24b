"""A script that has several cards for itself: tensors lie on one of them, and each card counts its own."""

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from memory_harness.configs.cards import find_card
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import load_preset
from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.records import PhaseRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.loop import load, train_step
from memory_harness.harness.train.run import simulate_card
from memory_harness.probes.plan.predict import uniform_batch

MIB = 2**20
CARD = "l4"


@pytest.fixture
def cards():
    device = DryRunDevice(find_card(CARD), 2**30, num_cards=2, told=1)
    with device.active():
        yield device


def allocated():
    return [torch.cuda.memory_allocated(number) for number in range(torch.cuda.device_count())]


def test_what_is_made_on_a_card_counts_there(cards):
    one = torch.empty(MIB, device="cuda:1")
    zero = one.to("cuda:0", torch.float16)
    assert (one.device, zero.device) == (torch.device("cuda:1"), torch.device("cuda:0"))
    assert (one.get_device(), zero.is_cuda) == (1, True)
    assert allocated() == [2 * MIB, 4 * MIB]
    made = [one * 2, torch.zeros_like(zero), one.clone()]
    assert [tensor.get_device() for tensor in made] == [1, 0, 1]
    assert allocated() == [4 * MIB, 12 * MIB]
    del made, zero
    assert allocated() == [0, 4 * MIB]
    assert torch.cuda.mem_get_info(0)[0] < torch.cuda.mem_get_info(1)[0] + 12 * MIB
    torch.cuda.empty_cache()
    assert [torch.cuda.memory_reserved(number) for number in (0, 1)] == [0, 20 * MIB]


def test_cuda_without_a_number_is_the_present_card(cards):
    with torch.cuda.device(1):
        assert torch.empty(1, device="cuda").get_device() == torch.cuda.current_device() == 1
    assert torch.empty(1).cuda().get_device() == 0
    assert torch.nn.Linear(2, 2).cuda(1).weight.get_device() == 1
    torch.cuda.set_device(1)
    assert torch.empty(1).cuda().get_device() == 1


def test_an_operator_on_two_cards_fails_as_on_gpus(cards):
    zero, one = (torch.ones(4, device=f"cuda:{number}") for number in (0, 1))
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cuda:1"):
        zero + one
    with pytest.raises(RuntimeError, match=r"invalid device ordinal \(2\)"):
        zero.to("cuda:2")


def test_a_gradient_goes_back_to_where_the_copy_was_made_from(cards):
    first, second = torch.nn.Linear(512, 512).to("cuda:0"), torch.nn.Linear(512, 512).to("cuda:1")
    optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()])
    hidden = first(torch.ones(64, 512, device="cuda:0"))
    before = allocated()
    moved = hidden.to("cuda:1")
    assert allocated() == [before[0], before[1] + 64 * 512 * 4]
    second(moved).sum().backward()
    torch.nn.utils.clip_grad_norm_([*first.parameters(), *second.parameters()], 1.0)
    assert [layer.weight.grad.get_device() for layer in (first, second)] == [0, 1]
    before = allocated()
    optimizer.step()
    # two moments of a weight and its bias
    assert [now - then for now, then in zip(allocated(), before, strict=True)] == [2 * 4 * (512 * 512 + 512)] * 2


def test_each_card_has_the_budget_and_memory_runs_out_on_one(cards):
    cards.on_out_of_memory(lambda error: None)
    kept = torch.empty(600 * MIB, dtype=torch.uint8, device="cuda:0")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(600 * MIB, dtype=torch.uint8, device="cuda:0")
    assert cards.failed == 0
    del kept
    torch.empty(600 * MIB, dtype=torch.uint8, device="cuda:1")
    assert [stats.peak_allocated_bytes // MIB for stats in cards.stats_of_run()] == [600, 600]
    assert cards.stats().peak_allocated_bytes == 600 * MIB


def test_a_model_laid_out_by_its_device_map_takes_on_each_card_what_the_split_recipe_takes(tmp_path):
    """Of the recipe, what its loop has beside: labels of their own, the summed loss, the scale."""
    config = transformers_config(find_model("tiny-llama"))
    config.save_pretrained(tmp_path)
    by_script, by_recipe = taken_by_script(tmp_path), taken_by_recipe()
    for script, recipe in zip(by_script, by_recipe, strict=True):
        for ours, theirs in zip(script, recipe, strict=True):
            assert abs(ours - theirs) <= 4 * 1024


def taken_by_script(folder):
    """Return of each card the peak of the second step, and what stays after it."""
    device = DryRunDevice(find_card(CARD), 4 * 2**30, num_cards=2)
    with device.active():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            ),
            device_map="auto",
        )
        assert set(model.hf_device_map.values()) == {0, 1}
        lora = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, lora)
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
        for _ in range(2):
            for number in range(2):
                torch.cuda.reset_peak_memory_stats(number)
            ids = torch.zeros(2, 64, dtype=torch.int64, device="cuda")
            output = model(input_ids=ids, labels=ids, use_cache=False)
            output.loss.backward()
            del output, ids
            optimizer.step()
            optimizer.zero_grad()
        peaks = [torch.cuda.max_memory_allocated(number) for number in range(2)]
        return list(zip(peaks, allocated(), strict=True))


def taken_by_recipe():
    config = load_preset("smoke_cpu").with_fields(
        tensors="fake",
        dtype="bfloat16",
        gpu=CARD,
        num_gpus=2,
        sharding="split",
        autocast="none",
        optimizer="adamw_torch",
        max_grad_norm=0.0,
        gradient_checkpointing=False,
        target_modules=("q_proj", "v_proj"),
        lora_rank=8,
        lora_dropout=0.0,
        hold_outputs=True,
    )
    device = simulate_card(config, find_card(CARD))
    strategy, found = CompiledStrategy(QLoraStrategy(config, device), device), []
    for strategy.card_number in range(2):
        strategy.restart(UNLIMITED, False)
        records = []
        recorder = PhaseRecorder(device, records.append)
        with device.active():
            load(strategy, recorder)
            for recorder.step in (1, 2):
                train_step(strategy, recorder, [uniform_batch((2, 64), 0)], 0.0)
        second = [record.after for record in records if isinstance(record, PhaseRecord) and record.step == 2]
        found.append((max(stats.peak_allocated_bytes for stats in second), second[-1].allocated_bytes))
    return found


def test_layers_on_several_cards_that_are_replayed_take_what_layers_take_that_run(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 320}
    LlamaConfig(num_hidden_layers=6, dtype="bfloat16", use_cache=False, **sizes).save_pretrained(tmp_path)
    (num_run, by_running), (num_replayed, by_replaying) = (trained(tmp_path, replays=how) for how in (False, True))
    assert num_run == 0 < num_replayed
    assert by_running == by_replaying


def trained(folder, *, replays):
    """Return how many layers were replayed, and the counters of each card."""
    device = DryRunDevice(find_card(CARD), 4 * 2**30, num_cards=2)
    device.replays_layers = replays
    with device.active():
        model = LlamaForCausalLM.from_pretrained(folder, device_map="auto")
        assert set(model.hf_device_map.values()) == {0, 1}
        optimizer = torch.optim.SGD(model.parameters())
        for _ in range(3):
            ids = torch.zeros(2, 32, dtype=torch.int64, device="cuda")
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return device.layers.num_replayed, device.stats_of_run()
