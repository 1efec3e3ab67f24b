"""A failed allocation that a trainer's own step catches: the callback judges it as `--watch` does."""

import sys

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.probes.session.watch import watch_script
from memory_harness.reports.summary import exit_code, result_of_log

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

class Careful(Trainer):
    num_done = 0
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.num_done += 1
        if self.num_done == 3:
            torch.empty(10**9)
        return loss
    def training_step(self, model, inputs, *args, **kwargs):
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        except torch.OutOfMemoryError:
            HANDLE

sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 8
arguments = TrainingArguments("OUT", max_steps=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True)
Careful(model, arguments, train_dataset=rows, callbacks=CALLBACKS).train()
"""
WITH_CALLBACK = '[__import__("memory_harness").MemoryCallback("LOG", device="simulated", budget="64 MiB")]'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handle", "code"),
    [("return torch.zeros(())", 1), ("return super().training_step(model, inputs, *args, **kwargs)", 0)],
    ids=["skipped", "done again"],
)
def test_both_judge_alike(handle, code, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    text = SCRIPT.replace("HANDLE", handle).replace("OUT", str(tmp_path / "out"))
    watched, called_back = tmp_path / "mine.py", tmp_path / "called_back.py"
    watched.write_text(text.replace("CALLBACKS", "[]"), encoding="utf-8")
    called_back.write_text(text.replace("CALLBACKS", WITH_CALLBACK.replace("LOG", str(tmp_path / "log"))), "utf-8")
    exec(compile(called_back.read_text("utf-8"), str(called_back), "exec"), {"__name__": "called_back"})
    by_callback = result_of_log(read_run_log(tmp_path / "log.jsonl"))
    place = {"device": "simulated", "gpu": None, "budget_bytes": 64 * MIB}
    by_watch = result_of_log(watch_script(str(watched), (), tmp_path / "watched.jsonl", **place))
    verdicts = {(result.verdict, exit_code(result)) for result in (by_callback, by_watch)}
    assert verdicts == {("fail" if code else "pass", code)}
