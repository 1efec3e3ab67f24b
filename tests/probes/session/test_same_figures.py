"""One training watched from outside, recorded by its own loop, and followed by a callback: the same figures."""

from __future__ import annotations

import runpy
from collections import defaultdict
from pathlib import Path

import pytest

from memory_harness.configs.units import KIB
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.probes.session.watch import watch_script
from memory_harness.reports.contents import highest_peaks

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = """
import torch

torch.manual_seed(0)
ids = [torch.arange(64).roll(i).repeat(8, 1) for i in range(4)]
model = torch.nn.Sequential(torch.nn.Embedding(64, 256), torch.nn.Linear(256, 1024), torch.nn.Linear(1024, 64))


def loss_of(batch):
    return torch.nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten())


optimizer = torch.optim.AdamW(model.parameters())
"""
BY_HAND = """
for batch in ids:
    loss_of(batch).backward()
    optimizer.step()
    optimizer.zero_grad()
"""
RECORDED = """
from memory_harness import Recorder

with Recorder.open("recorded", device="simulated", budget="1 GiB") as recorder:
    for batch in ids:
        with recorder.step(batch):
            with recorder.phase("forward"):
                loss = loss_of(batch)
            with recorder.phase("backward"):
                loss.backward()
            with recorder.phase("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
"""
TRAINER = """
import os

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from memory_harness import MemoryCallback

torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=512, use_cache=False, **sizes))
rows = [{"input_ids": torch.arange(64) + i, "labels": torch.arange(64) + i} for i in range(8)]
arguments = TrainingArguments(
    "out", max_steps=4, per_device_train_batch_size=2, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True
)
callbacks = [MemoryCallback("called_back", device="simulated", budget="1 GiB")] if os.environ.get("CALLED_BACK") else []
Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()
"""
IN_STEP = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
KINDS = ("weights", "gradients", "optimizer", "activations", "workspaces")
FEW_BYTES = 32 * KIB
"""of batches and buffers that were made before a recorder was opened"""


def watched(path: Path) -> RunLog:
    """Return what watching a script gives."""
    log = path.with_suffix(".jsonl")
    watch_script(path, (), log, device="simulated", gpu=None, budget_bytes=2**30)
    return read_run_log(log)


def figures(log: RunLog) -> tuple[dict[Phase, int], dict[Phase, dict[str, int]]]:
    """Return the highest allocation of the phases of a step, and what it was for."""
    peaks: dict[Phase, int] = defaultdict(int)
    for record in log.phases:
        if record.phase in IN_STEP:
            peaks[record.phase] = max(peaks[record.phase], record.after.peak_allocated_bytes)
    kinds = {}
    for phase, record in highest_peaks(log).items():
        if phase in IN_STEP:
            kinds[phase] = {kind: record.kinds.get(kind, 0) for kind in KINDS}
    return peaks, kinds


def assert_same(one: RunLog, other: RunLog) -> None:
    """Assert that two logs have the same figures."""
    (peaks, kinds), (others_peaks, others_kinds) = figures(one), figures(other)
    assert len(one.steps) == len(other.steps) == 4
    assert peaks == pytest.approx(others_peaks, abs=FEW_BYTES)
    assert kinds.keys() == others_kinds.keys()
    for phase, sizes in kinds.items():
        assert sizes == pytest.approx(others_kinds[phase], abs=FEW_BYTES)


def test_a_loop_recorded_and_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "by_hand.py").write_text(MODEL + BY_HAND, encoding="utf-8")
    (tmp_path / "with_recorder.py").write_text(MODEL + RECORDED, encoding="utf-8")
    runpy.run_path("with_recorder.py")
    assert_same(watched(tmp_path / "by_hand.py"), read_run_log(tmp_path / "recorded.jsonl"))


def test_gradients_by_function_are_passed_on(tmp_path):
    """Their tensors have no memory to look at: `torch.func` takes gradients by `torch.autograd.grad` itself."""
    lines = (
        "import torch",
        "from torch.func import functional_call, grad, vmap",
        "model = torch.nn.Linear(6, 3)",
        "values = {name: value.detach() for name, value in model.named_parameters()}",
        "def loss(values, sample): return functional_call(model, values, (sample,)).sum()",
        "for _ in range(3):",
        "    found = vmap(grad(loss), in_dims=(None, 0))(values, torch.randn(8, 6))",
        "    values = {name: value - 0.1 * found[name].mean(0) for name, value in values.items()}",
    )
    (tmp_path / "by_function.py").write_text("\n".join(lines), encoding="utf-8")
    assert watched(tmp_path / "by_function.py").outcome is Outcome.COMPLETED


@pytest.mark.slow
def test_a_trainer_called_back_and_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAINER, encoding="utf-8")
    seen_from_outside = watched(tmp_path / "train.py")
    monkeypatch.setenv("CALLED_BACK", "yes")
    runpy.run_path("train.py", run_name="__main__")
    assert_same(seen_from_outside, read_run_log(tmp_path / "called_back.jsonl"))
