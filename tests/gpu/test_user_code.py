"""On a GPU: other people's loops, scripts and tests, and the whole way of the smallest preset."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from memory_harness import MemoryCallback, Recorder
from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.probes.detectors import detect
from memory_harness.reports import entry

pytestmark = pytest.mark.gpu

SCRIPT = """
import torch
from torch import nn

device = torch.device("cuda")
model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512)).to(device)
optimizer = torch.optim.AdamW(model.parameters())
history = []
for step in range(60):
    outputs = model(torch.randn(64, 256, device=device))
    loss = outputs.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append({kept})
"""


def watch(kept, folder):
    script = folder / "script.py"
    script.write_text(SCRIPT.format(kept=kept), encoding="utf-8")
    report = folder / "report.json"
    code = entry.main(["--watch", str(script), "--output", str(folder / "runs"), "--json", str(report)])
    return code, json.loads(report.read_text(encoding="utf-8"))


def test_a_script_that_keeps_its_outputs(tmp_path):
    code, report = watch("outputs.detach()", tmp_path)
    assert (code, report["source"]) == (1, "cuda")
    (finding,) = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert finding["cause"] == "tensors-logged"
    assert "script.py:" in finding["where"]


def test_a_script_that_keeps_numbers(tmp_path):
    code, report = watch("loss.item()", tmp_path)
    assert (code, report["source"]) == (0, "cuda")
    assert not [finding for finding in report["findings"] if finding["severity"] == "error"]


def test_a_loop_of_ones_own(tmp_path):
    model = nn.Linear(1024, 1024, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    with Recorder.open(tmp_path / "log") as r:
        for _ in range(4):
            batch = torch.randn(64, 1024, device="cuda")
            with r.step(batch):
                with r.phase("forward"):
                    loss = model(batch).mean()
                with r.phase("backward"):
                    loss.backward()
                with r.phase("optimizer"):
                    optimizer.step()
                    optimizer.zero_grad()
    log = read_run_log(tmp_path / "log.jsonl")
    assert log.run.source == "cuda"
    assert len(log.steps) == 4
    assert log.peak_allocated_bytes >= 4 * 4 * MIB  # weights, gradients, two moments


def test_the_stock_trainer(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4000, num_key_value_heads=2, **sizes))
    samples = [{"input_ids": [1] * 64, "labels": [1] * 64} for _ in range(32)]
    arguments = {"report_to": [], "num_train_epochs": 1, "per_device_train_batch_size": 2, "eval_strategy": "epoch"}
    trainer = Trainer(
        model,
        TrainingArguments(tmp_path / "trainer", **arguments),
        train_dataset=samples,
        eval_dataset=samples,
        callbacks=[MemoryCallback(tmp_path / "log")],
    )
    trainer.train()
    log = read_run_log(tmp_path / "log.jsonl")
    assert log.run.source == "cuda"
    assert {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVAL} <= set(log.peaks())
    assert not [finding for finding in detect(log) if finding.severity == "error"]


@pytest.mark.memory_budget("64 MiB", device="cuda")
def test_a_budget_of_a_test():
    torch.ones(16 * MIB, dtype=torch.uint8, device="cuda")


def test_the_smallest_preset_goes_the_whole_way(tmp_path):
    arguments = ["--preset", "smoke_cpu", "--device", "cuda", "--train", "--output", str(tmp_path)]
    assert entry.main(arguments) == 0
    (folder,) = Path(tmp_path).glob("*-train")
    log = read_run_log(folder / "run.jsonl")
    assert log.run.source == "cuda"
    assert log.steps[-1].loss < log.steps[0].loss
