"""Causes that the stacks of a memory snapshot prove."""

from memory_harness.configs.units import GIB
from memory_harness.harness.log.snapshot import replay_snapshot
from memory_harness.probes.traceback.held import snapshot_causes


def taken(*names: str, size: int = 6 * GIB) -> dict:
    frames = [{"filename": "/venv/site-packages/transformers/trainer_pt_utils.py", "line": 9, "name": n} for n in names]
    weights = {"address": 0, "size": 2 * GIB, "state": "active_allocated", "frames": []}
    made = {"address": 1, "size": size, "state": "active_allocated", "frames": frames}
    segment = {
        "device": 0,
        "address": 0,
        "total_size": 9 * GIB,
        "allocated_size": 2 * GIB + size,
        "blocks": [weights, made],
    }
    return {"segments": [segment], "device_traces": [[]]}


def causes(snapshot: dict) -> list[str]:
    return [candidate.cause for candidate in snapshot_causes(replay_snapshot(snapshot, "x"))]


def test_outputs_that_evaluation_joined_and_still_holds_are_named():
    assert causes(taken("torch_pad_and_concatenate", "nested_concat", "evaluation_loop")) == ["logits-hoarded"]


def test_other_tensors_and_small_ones_are_not():
    assert causes(taken("forward", "train")) == []
    assert causes(taken("nested_concat", "evaluation_loop", size=GIB // 10)) == []
