"""What the project promises about its memory, on a simulated card."""

import copy

import pytest
import torch
from own_loop import HIDDEN, LENGTH, VOCABULARY, loss_of, train_step
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from memory_harness import MemoryCallback, Recorder
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.probes.detectors import detect

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
def test_steps_that_keep_their_logits(model, ids):
    history.append(model(ids).detach())


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


def make_trainer(folder, vocab_size, budget):
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip
    ids = torch.arange(64) % 61
    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}] * 9
    arguments = TrainingArguments(
        str(folder / "out"), per_device_train_batch_size=1, gradient_accumulation_steps=3, num_train_epochs=2,
        eval_strategy="epoch", save_strategy="epoch", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    memory = MemoryCallback(folder / "log", device="simulated", budget=budget)
    return memory, Trainer(
        LlamaForCausalLM(config), arguments, train_dataset=rows, eval_dataset=rows, callbacks=[memory]
    )


def test_the_trainers_default_evaluation_batch(tmp_path):
    memory, trainer = make_trainer(tmp_path, 16384, "80 MiB")
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    memory.close()
    log = read_run_log(tmp_path / "log.jsonl")
    assert (log.fatal_oom.phase, log.fatal_oom.step, log.fatal_oom.batch.batch_size) == ("EVAL", 3, 8)
    assert detect(log)[0].cause == "eval-batch-logits"


def test_the_trainers_phases(tmp_path):
    _, trainer = make_trainer(tmp_path, 64, "2 GiB")
    trainer.train()
    log = read_run_log(tmp_path / "log.jsonl")
    assert (log.outcome, log.run.total_steps, log.run.steps_per_epoch) == ("completed", 6, 3)
    assert [(s.step, s.epoch, s.micro_steps, s.lengths) for s in log.steps] == [
        (step, 1 + (step > 3), 3, (64, 64, 64)) for step in range(1, 7)
    ]
    assert all(0 < s.loss < 10 and 0 < s.learning_rate <= 5e-5 for s in log.steps)
    third = [(p.phase, p.micro_step, p.index) for p in log.phases if p.step == 3]
    micro_batches = [(phase, micro, 0) for micro in range(3) for phase in ("DATA", "FORWARD", "BACKWARD")]
    boundary = [("OPTIMIZER", 2, 0), ("EVAL", 2, 0), ("EVAL", 2, 1), ("CHECKPOINT", 2, 0)]
    assert third == micro_batches + boundary
    assert [(e.step, e.num_batches) for e in log.evals] == [(3, 2), (6, 2)]
    assert all(p.forward.has_graph for p in log.phases if p.phase == "FORWARD")
    assert {f.severity for f in detect(log)} <= {"info"}


def test_predicting_alone(tmp_path):
    _, trainer = make_trainer(tmp_path, 64, "2 GiB")
    trainer.predict(trainer.eval_dataset)
    log = read_run_log(tmp_path / "log.jsonl")
    assert log.outcome == "completed"
    assert [(p.phase, p.batch.batch_size) for p in log.phases] == [("EVAL", 8), ("EVAL", 1)]


class Bug(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise RuntimeError("a bug")


def test_a_trainer_that_failed_is_followed_by_another(tmp_path):
    """As in a notebook: the cell that failed is run again with other values, and nobody closes anything."""
    _, trainer = make_trainer(tmp_path / "first", 16384, "20 MiB")
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    _, trainer = make_trainer(tmp_path / "second", 16384, "2 GiB")
    trainer.add_callback(Bug())
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.train()
    _, trainer = make_trainer(tmp_path / "third", 64, "2 GiB")
    trainer.train()
    logs = [read_run_log(tmp_path / name / "log.jsonl") for name in ("first", "second", "third")]
    assert [log.outcome for log in logs] == ["oom", "error", "completed"]
    assert [log.steps[-1].step for log in logs[1:]] == [1, 6]


def test_a_callback_that_is_added_later_and_a_model_that_is_made_anew(tmp_path):
    _, trainer = make_trainer(tmp_path, 64, "2 GiB")
    trainer.pop_callback(MemoryCallback)
    trainer.add_callback(MemoryCallback(tmp_path / "later", device="simulated"))
    model = copy.deepcopy(trainer.model)
    trainer.model_init = lambda: copy.deepcopy(model)
    trainer.train()
    trainer.train()
    for name in ("later", "later-2"):
        log = read_run_log(tmp_path / f"{name}.jsonl")
        assert log.peaks().keys() == {"DATA", "FORWARD", "BACKWARD", "OPTIMIZER", "EVAL", "CHECKPOINT"}
        assert [s.micro_steps for s in log.steps] == [3] * 6


def test_the_forward_passes_of_a_copy_are_not_the_models(tmp_path):
    memory, trainer = make_trainer(tmp_path, 64, "2 GiB")
    copied = copy.deepcopy(trainer.model)
    copied.eval()(trainer.eval_dataset[0]["input_ids"][None])
    memory.close()
    assert not list(tmp_path.glob("*.jsonl"))
