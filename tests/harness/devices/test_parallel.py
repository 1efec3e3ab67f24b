"""Several GPUs train as one does; what goes wrong on one of them goes wrong on none alone."""

from __future__ import annotations

import pytest
import torch

from memory_harness.harness.devices import parallel
from memory_harness.harness.log.errors import PeerLost
from memory_harness.harness.log.manifest import START, Manifest, newest_checkpoint, other_gpus, read_manifest
from memory_harness.harness.log.records import Outcome, Phase, PhaseBegin, StepRecord
from memory_harness.harness.log.runlog import collect, read_rank_logs
from memory_harness.harness.simulate.allocator import AllocatorOutOfMemory
from memory_harness.harness.train import recovery
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import open_run
from tests.harness.devices.parallel_runs import Watcher, train_together
from tests.harness.train.training_runs import CONFIG, prepared, train

TWO = CONFIG.with_fields(num_gpus=2, gradient_accumulation=2, samples=24, lora_dropout=0.0, generate_batch_size=1)
"""Steps of four sequences, the last of fewer; evaluations in between."""

ADDED_OTHERWISE = 1e-5
"""Relative difference of float32 sums in another order."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_together(tmp_path_factory.mktemp("alone") / "run", TWO.with_fields(num_gpus=1))[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return train_together(tmp_path_factory.mktemp("both") / "run", TWO)


def are_identical(parts):
    first, *others = (part.adapter for part in parts)
    return all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.slow
def test_two_train_as_one_does(alone, both):
    first, second = both
    assert first.outcome is second.outcome is alone.outcome is Outcome.COMPLETED
    assert [step.target_tokens for step in first.log.steps] == [step.target_tokens for step in alone.log.steps]
    assert [sorted(s.lengths) for s in first.log.steps] == [sorted(s.lengths) for s in alone.log.steps]
    assert first.losses == second.losses
    assert first.losses == pytest.approx(alone.losses, rel=ADDED_OTHERWISE)
    assert first.losses[0] == pytest.approx(alone.losses[0], rel=1e-6)
    assert are_identical(both)
    assert first.replies == second.replies
    assert [(r.prompt, r.sample) for r in first.replies] == [(r.prompt, r.sample) for r in alone.replies]


@pytest.mark.slow
def test_each_does_a_part_of_the_work(alone, both):
    for phase in (Phase.FORWARD, Phase.EVAL, Phase.GENERATE):
        counts = [sum(record.phase is phase for record in part.log.phases) for part in both]
        assert all(counts)
        assert phase is not Phase.EVAL or sum(counts) == sum(r.phase is phase for r in alone.log.phases)


class Failing(Watcher):
    """Makes the first allocations of a phase in a step fail, as often as asked for."""

    def __init__(self, phase, step, times=1):
        self.at, self.times = (phase, step), times
        self._now = (None, 0)

    def on_record(self, record):
        if isinstance(record, PhaseBegin):
            self._now = (record.phase, record.step)

    def on_device(self, device):
        allocator = device.memory.simulated.allocator
        malloc = allocator.malloc

        def failing(num_bytes, stream=0):
            if self._now == self.at and self.times:
                self.times -= 1
                raise AllocatorOutOfMemory(num_bytes, 0, 0, 0)
            return malloc(num_bytes, stream)

        allocator.malloc = failing


@pytest.fixture
def guarded(monkeypatch):
    """Injected failures come although there is room, so every optimizer step has to expect one."""
    monkeypatch.setattr(recovery, "GUARD_FACTOR", 10**9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "rank"),
    [
        (Phase.FORWARD, 1),
        (Phase.BACKWARD, 0),
        (Phase.OPTIMIZER, 1),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in ((Phase.FORWARD, 0), (Phase.BACKWARD, 1))),
        pytest.param(Phase.OPTIMIZER, 0, marks=pytest.mark.slow),
    ],
)
def test_out_of_memory_on_one_changes_nothing(phase, rank, both, guarded, tmp_path):
    parts = train_together(tmp_path / "run", TWO, lambda r: Failing(phase, 3, times=int(r == rank)))
    for part, undisturbed in zip(parts, both, strict=True):
        assert part.outcome is Outcome.COMPLETED
        assert part.losses == undisturbed.losses
        assert [(oom.phase, oom.step) for oom in part.log.ooms] == [(phase, 3)]
        assert [(r.action, r.phase) for r in part.log.recoveries] == [("clear-cache", phase)]
    assert are_identical([*parts, both[0]])


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.EVAL, Phase.GENERATE])
def test_what_a_gpu_evaluates_or_answers_is_its_own_affair(phase, both, tmp_path):
    step = 4 if phase is Phase.EVAL else 5
    parts = train_together(tmp_path / "run", TWO, lambda r: Failing(phase, step, times=r))
    assert [part.losses for part in parts] == [part.losses for part in both]
    assert [part.replies for part in parts] == [part.replies for part in both]
    assert [len(part.log.ooms) for part in parts] == [0, 1]


@pytest.mark.slow
def test_smaller_micro_batches_are_those_of_all(both, tmp_path):
    parts = train_together(tmp_path / "run", TWO, lambda r: Failing(Phase.BACKWARD, 3, times=2 * r))
    for part in parts:
        assert [r.action for r in part.log.recoveries] == ["clear-cache", "split-micro-batch"]
        assert [s.micro_steps for s in part.log.steps][:3] == [2, 2, 4]
        assert part.losses == pytest.approx(both[0].losses, rel=ADDED_OTHERWISE)
    assert are_identical(parts)


@pytest.mark.slow
def test_what_one_cannot_help_stops_all_at_a_checkpoint(tmp_path, both):
    config = TWO.with_fields(train_batch_size=1)
    parts = train_together(tmp_path / "run", config, lambda r: Failing(Phase.FORWARD, 3, times=10 * r))
    for part in parts:
        assert part.outcome is part.log.outcome is Outcome.OOM
        assert (part.log.recoveries[-1].action, part.log.recoveries[-1].detail) == ("stop", "checkpoint-2")
        assert part.log.fatal_oom.phase is Phase.FORWARD


@pytest.mark.slow
def test_a_model_that_does_not_fit_one_of_them_ends_all(tmp_path):
    for part in train_together(tmp_path / "run", TWO, lambda r: Failing(Phase.LOAD, 0, times=r)):
        assert part.outcome is part.log.outcome is Outcome.OOM
        assert part.log.fatal_oom.phase is Phase.LOAD
        assert part.log.fatal_oom.requested_bytes


class Stopping(Watcher):
    """Asks to stop from a step on."""

    def __init__(self, step):
        self.step, self.signal = step, ""

    def on_record(self, record):
        if isinstance(record, StepRecord) and record.step == self.step:
            self.signal = "SIGTERM"

    def stop(self):
        return self.signal


@pytest.mark.slow
def test_a_stop_takes_effect_on_all_and_what_follows_is_the_same_bit_by_bit(tmp_path):
    config = TWO.with_fields(lora_dropout=0.1)
    whole = train_together(tmp_path / "whole", config)
    first = train_together(tmp_path / "run", config, lambda rank: Stopping(3 if rank else None))
    assert {part.outcome for part in first} == {Outcome.STOPPED}
    second = train_together(tmp_path / "run", config, resume=True)
    assert second[0].losses == whole[0].losses
    assert are_identical([*whole, *second])
    assert second[0].replies == whole[0].replies


@pytest.mark.slow
def test_it_goes_on_with_one_gpu_whose_log_is_the_only_one_then(tmp_path):
    run, one = tmp_path / "run", TWO.with_fields(num_gpus=1)
    train_together(run, TWO, lambda rank: Stopping(2))
    manifest = read_manifest(newest_checkpoint(run))
    assert "--num-gpus 1 instead of 2, --sharding none instead of ddp:" in other_gpus(manifest, one)
    assert other_gpus(manifest, TWO) == ""
    assert train(run, one, resume=run).outcome is Outcome.COMPLETED
    assert len(read_rank_logs(run)) == 1


def test_another_way_to_share_the_model_is_said():
    manifest = Manifest(START, TWO.to_dict(), TWO.fingerprint(), "", {})
    shards = TWO.with_fields(sharding="fsdp")
    assert "goes on with --sharding fsdp instead of ddp:" in other_gpus(manifest, shards)
    assert other_gpus(manifest, TWO.with_fields(sharding="ddp")) == ""


def test_of_what_the_library_says_of_a_lost_process_little_is_kept():
    said = f"[pair.cc:553] Connection closed by peer {'x' * 500}\nGLHF!"
    with pytest.raises(PeerLost) as lost, parallel._peer_errors():
        raise RuntimeError(said)
    assert "pair.cc:553" in str(lost.value)
    assert "GLHF" not in str(lost.value)
    assert len(str(lost.value)) < 200


def simulated(config, folder):
    """Run without values: one of the GPUs, the others not there."""
    records = []
    execute(open_run(config, prepared(config)), records.append, folder)
    return collect(records)


def test_a_simulation_shows_what_one_of_them_takes(tmp_path):
    config = CONFIG.with_fields(tensors="fake", gradient_accumulation=4, samples=40, batching="padded")
    one, two = (simulated(config.with_fields(num_gpus=number), tmp_path) for number in (1, 2))
    assert two.outcome is Outcome.COMPLETED
    assert [step.lengths for step in two.steps] == [step.lengths for step in one.steps]
    counts = [sum(r.phase is Phase.FORWARD and r.step == 1 for r in log.phases) for log in (one, two)]
    assert counts == [4, 2]
    assert two.peaks()[Phase.BACKWARD] == one.peaks()[Phase.BACKWARD]
    three = simulated(config.with_fields(num_gpus=4), tmp_path)
    # one micro-batch each: no backward pass adds to gradients that are there
    assert three.peaks()[Phase.BACKWARD].peak_allocated_bytes <= one.peaks()[Phase.BACKWARD].peak_allocated_bytes
