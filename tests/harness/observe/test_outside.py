"""The series of what lies outside of PyTorch's tensors, from a scripted driver, in every way to record a loop."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from memory_harness.configs.cards import find_card
from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import DriverUse, GpuProcess, Phase, PoolUse, record_from_dict, record_to_dict
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.harness.observe.own_loop import Recorder
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.probes.session.watch import watch_script

SCRIPT = """
import torch
from torch import nn
model = nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(6):
    model(torch.randn(4, 64)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.fixture
def other_grows(monkeypatch):
    """Another process takes 100 MiB more each time the driver is asked."""
    asked = iter(range(1, 1000))

    def driver_use(device):
        own = device.stats().reserved_bytes + GIB // 2
        other = GpuProcess(77, "game", 100 * MIB * next(asked))
        return DriverUse(own + other.used_bytes, 16 * GIB, own, (other,))

    monkeypatch.setattr(SimulatedDevice, "driver_use", driver_use)


def check(log):
    taken = [record.foreign_bytes for record in log.drivers]
    assert taken == [100 * MIB * (i + 1) for i in range(len(taken))]
    assert len(taken) >= len(log.steps) >= 6
    assert {record.outside_bytes for record in log.drivers} == {GIB // 2}
    assert {step.step for step in log.steps} <= {record.step for record in log.drivers}


@pytest.mark.usefixtures("other_grows")
def test_of_a_watched_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    options = {"device": "simulated", "gpu": None, "budget_bytes": None}
    check(watch_script(str(script), (), tmp_path / "log.jsonl", **options))


@pytest.mark.usefixtures("other_grows")
def test_of_a_loop_of_ones_own(tmp_path):
    model = nn.Linear(64, 64)
    with Recorder.open(tmp_path / "mine", device="simulated") as recorder:
        for _ in range(6):
            with recorder.step(torch.randn(4, 64)):
                model(torch.randn(4, 64)).mean().backward()
    assert recorder.log is not None
    check(read_run_log(recorder.log))


@pytest.mark.slow
@pytest.mark.usefixtures("other_grows")
def test_of_transformers_trainer(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    from memory_harness import MemoryCallback

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 8
    arguments = TrainingArguments(str(tmp_path / "out"), max_steps=6, use_cpu=True, report_to=[], save_strategy="no")
    Trainer(model, arguments, train_dataset=rows, callbacks=[MemoryCallback(tmp_path / "mine")]).train()
    check(read_run_log(tmp_path / "mine.jsonl"))


def recorded(device, num_steps, before_step=lambda step: None):
    """Return the driver's and the pools' records of empty steps."""
    records = []
    recorder = PhaseRecorder(device, records.append)
    for step in range(1, num_steps + 1):
        before_step(step)
        recorder.step = step
        with recorder.phase(Phase.FORWARD):
            pass
        recorder.end_step([], None, None, 0.0, 0.0)
    return [record for record in records if record.kind in ("driver", "pool")]


@pytest.fixture
def device():
    return SimulatedDevice(find_card("t4"), GIB, computes=True, lowered=False)


def test_a_card_of_ones_own_has_no_series(device):
    assert recorded(device, 3) == []


def test_only_changes_are_written(device):
    def before_step(step):
        if step == 2:
            device.take_beside(library_bytes=64 * MIB)
        if step == 4:
            device.take_beside(elsewhere_bytes=32 * MIB)

    records = recorded(device, 6, before_step)
    context = find_card("t4").context_bytes
    assert [(r.step, r.outside_bytes, r.foreign_bytes) for r in records] == [
        (2, context + 64 * MIB, 0),
        (4, context + 64 * MIB, 32 * MIB),
    ]
    assert device.stats() == replace(device.stats(), reserved_bytes=0)


def test_pools_are_written_where_there_are_any(device):
    def before_step(step):
        device.set_aside(PoolUse(pinned_bytes=MIB * (step // 2)))

    assert [(r.step, r.use.pinned_bytes) for r in recorded(device, 5, before_step)] == [(2, MIB), (4, 2 * MIB)]


def test_the_records_survive_as_plain_data(device):
    device.take_beside(elsewhere_bytes=MIB)
    device.set_aside(PoolUse(1, 2, 3, 4))
    records = recorded(device, 1)
    assert [record.kind for record in records] == ["driver", "pool"]
    assert [record_from_dict(record_to_dict(record)) for record in records] == records
