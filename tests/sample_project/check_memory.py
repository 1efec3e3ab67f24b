"""What the project promises about its memory, on a simulated card."""

import pytest
import torch
from own_loop import HIDDEN, LENGTH, VOCABULARY, loss_of, train_step
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from harness.callback import MemoryCallback
from harness.recorder import Recorder
from harness.runlog import read_run_log
from probes.detectors import detect

history = []


@pytest.mark.memory_budget("64 MiB", device="simulated")
def test_a_step_fits(model, optimizer, ids):
    train_step(model, optimizer, ids)


@pytest.mark.memory_budget("64 MiB", device="simulated")
def test_a_batch_that_is_too_large(model, optimizer):
    train_step(model, optimizer, torch.zeros(512, LENGTH, dtype=torch.int64))


@pytest.mark.memory_leak("16 KiB", steps=12, device="simulated")
def test_steps_leave_nothing(model, optimizer, ids):
    train_step(model, optimizer, ids)


@pytest.mark.memory_leak("16 KiB", steps=12, device="simulated")
def test_steps_that_keep_their_losses(model, ids):
    history.append(loss_of(model, ids))


@pytest.mark.memory_budget("20 MiB", phase="backward", device="simulated")
def test_the_backward_pass_alone(memory_probe, model, optimizer, ids):
    with memory_probe.record() as r, r.step(ids):
        with r.phase("forward"):
            loss = loss_of(model, ids)
        with r.phase("backward"):
            loss.backward()


def test_what_a_function_takes(memory_probe, model, ids):
    measured = memory_probe.call(lambda: model(ids))
    logits = ids.numel() * VOCABULARY * 4
    assert measured.fits
    assert logits < measured.peaks["STEP"] == measured.predicted_peak
    assert measured.causes == []


def test_the_recorder(tmp_path, model, optimizer, ids):
    with Recorder.open(tmp_path / "log", device="simulated", budget="64 MiB") as r:
        r.describe(model)
        for _ in range(5):
            with r.step(ids) as step:
                step.loss = train_step(model, optimizer, ids).item()
    log = read_run_log(tmp_path / "log.jsonl")
    assert [s.step for s in log.steps] == [1, 2, 3, 4, 5]
    assert log.steps[-1].loss < log.steps[0].loss
    assert log.run.model.vocab_size == VOCABULARY
    assert log.run.model.hidden_size == HIDDEN


def test_the_trainer(tmp_path):
    config = LlamaConfig(
        vocab_size=16384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip
    ids = torch.arange(64) % 61
    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}] * 8
    arguments = TrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=1, gradient_accumulation_steps=2, num_train_epochs=2,
        eval_strategy="epoch", save_strategy="epoch", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    memory = MemoryCallback(tmp_path / "log", device="simulated", budget="80 MiB")
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, eval_dataset=rows, callbacks=[memory])
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    memory.close()
    log = read_run_log(tmp_path / "log.jsonl")
    assert [s.lengths for s in log.steps] == [(64, 64)] * 4
    assert all(s.loss > 0 for s in log.steps)
    assert detect(log)[0].cause == "eval-batch-logits"
