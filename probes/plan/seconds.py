"""How long the training of an epoch takes: its arithmetic, the bytes it moves and its launches, of a few batches.

Not counted: evaluation, optimizer steps (of adapters, a hundredth of a step) and copies to and from the host, which
run beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from memory_harness.configs.cards import Speeds
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.step_graphs import forbids_graph, takes_graphs
from memory_harness.harness.data.batching import Batch, train_steps
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.simulate.work import WorkMeter
from memory_harness.harness.techniques.step_graphs import MAX_TOKENS
from memory_harness.probes.plan.predict import RecordedModel

NUM_BATCHES = 3
"""that are traced, from the shortest third to the longest"""


def epoch_seconds(config: RunConfig, speeds: Speeds) -> float:
    """Return the predicted seconds of an epoch's training where so much is computed and moved a second."""
    recorded = RecordedModel(config)  # one of its own: what passes here unrecorded is in no prediction's
    batches = list(chain.from_iterable(train_steps(prepare(config).train, config, 1)))
    by_shape: dict[tuple[int, int], float] = {}
    seconds = []
    for batch in _typical(batches):
        shape = (batch.shape.batch_size, batch.shape.padded_length)
        if shape not in by_shape:
            by_shape[shape] = batch_seconds(recorded, config, batch, speeds)
        seconds.append(by_shape[shape])
    return sum(seconds) / len(seconds) * len(batches)


def batch_seconds(recorded: RecordedModel, config: RunConfig, batch: Batch, speeds: Speeds) -> float:
    """Return the predicted seconds of a micro-batch, forwards and backwards."""
    meter = _work(recorded, config, batch, speeds)
    if _is_replayed(config, batch):
        return meter.device_seconds
    return max(meter.device_seconds, meter.host_seconds)


def _work(recorded: RecordedModel, config: RunConfig, batch: Batch, speeds: Speeds) -> WorkMeter:
    strategy, device = recorded.strategy.inner, recorded.device
    strategy.config = config.with_fields(cuda_graphs="none")  # what is captured runs as it is
    recorded.strategy.restart(device.budget_bytes, config.device.expandable_segments)
    meter = WorkMeter(speeds)
    try:
        with device.active():
            recorded.strategy.load()
            device.tracer.meter = meter
            strategy.put(batch, training=True)
            strategy.forward(batch.shape.target_tokens)
            strategy.backward()
    finally:
        device.tracer.meter = None
    return meter


def _is_replayed(config: RunConfig, batch: Batch) -> bool:
    tokens = batch.shape.padded_tokens
    is_forbidden = forbids_graph(config, config.model.recomputed(1, tokens))
    return takes_graphs(config) and tokens <= MAX_TOKENS and not is_forbidden


def _typical(batches: Sequence[Batch]) -> list[Batch]:
    """Return the middle one of each part of the batches, from the shortest to the longest."""
    by_tokens = sorted(batches, key=lambda batch: batch.shape.padded_tokens)
    number = min(NUM_BATCHES, len(batches))
    return [by_tokens[(2 * part + 1) * len(batches) // (2 * number)] for part in range(number)]
