"""What lives at the peaks of a loop that is observed while it runs."""

import torch

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.harness.observe.own_loop import Recorder
from memory_harness.reports.contents import highest_peaks


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = (torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU()) for _ in range(3))
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def recorded(path, num_steps=6, kept=None, **batches):
    """Return the log of a small training.

    Args:
        kept: list to which each step adds a tensor of 1 MiB.
        batches: sizes by step, 64 where it is not given.
    """
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    with Recorder.open(path, device="simulated", budget="256 MiB") as recorder:
        for step in range(num_steps):
            batch = torch.ones(batches.get(f"step{step + 1}", 64), 256)
            with recorder.step(batch):
                with recorder.phase("forward"):
                    loss = net(batch).square().mean()
                with recorder.phase("backward"):
                    loss.backward()
                with recorder.phase("optimizer"):
                    optimizer.step()
                    optimizer.zero_grad()
            if kept is not None:
                kept.append(torch.ones(256, 1024))
    return read_run_log(path.with_suffix(".jsonl"))


def test_kinds_layers_and_calls_of_each_phase(tmp_path):
    log = recorded(tmp_path / "run")
    peaks = highest_peaks(log)
    weights = 3 * (256 * 256 + 256) * 4
    assert {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER} <= set(peaks)
    optimizer = peaks[Phase.OPTIMIZER].kinds
    assert optimizer["weights"] == optimizer["gradients"] == weights
    assert optimizer["optimizer"] >= 2 * weights
    forward = peaks[Phase.FORWARD]
    assert forward.kinds["activations"] >= 4 * 64 * 256 * 4  # three outputs that are saved, and one that is not
    of_layers = [forward.layers[f"layers.{number}"]["activations"] for number in range(3)]
    assert of_layers == [64 * 256 * 4] * 3
    assert sum(of_layers) < forward.kinds["activations"]  # the loss is of no layer
    assert any("test_phase_peaks.py" in stack and stack.startswith("activations;") for stack in forward.stacks)
    for phase, record in peaks.items():
        assert record.allocated_bytes <= log.peaks()[phase].peak_allocated_bytes
        # views and freed memory of before are not known to the last byte
        assert abs(sum(record.kinds.values()) - record.allocated_bytes) < 0.3 * MIB, phase
        assert sum(record.stacks.values()) == sum(record.kinds.values())


def test_a_larger_batch_is_looked_at_later_on(tmp_path):
    log = recorded(tmp_path / "run", num_steps=8, step7=512)
    peaks = highest_peaks(log)
    assert peaks[Phase.FORWARD].step == 7
    assert peaks[Phase.FORWARD].allocated_bytes == log.peaks()[Phase.FORWARD].peak_allocated_bytes


def test_what_grows_is_looked_at_again_a_whole_step_at_a_time(tmp_path):
    log = recorded(tmp_path / "run", num_steps=40, kept=[])
    peaks = highest_peaks(log)
    for phase in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER):
        # a look follows each rise by a quarter
        assert peaks[phase].allocated_bytes > log.peaks()[phase].peak_allocated_bytes / 1.25 - MIB
        assert peaks[phase].kinds["made before"] > 20 * MIB
        assert peaks[phase].layers  # of what the forward pass of the same step has made


def test_it_changes_nothing_of_what_is_measured(tmp_path, monkeypatch):
    first = recorded(tmp_path / "looked")
    monkeypatch.setattr("memory_harness.harness.observe.phase_peaks.MAX_RECORDED", 0)
    second = recorded(tmp_path / "not_looked")
    assert not second.peaks_seen
    assert [record.after for record in first.phases] == [record.after for record in second.phases]
