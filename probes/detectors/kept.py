"""What a survivor is, by what holds it and by its shape."""

import re
from collections.abc import Sequence
from math import prod

from memory_harness.harness.log.records import (
    GROWING_TENSOR,
    HOOK,
    OF_METRIC,
    OPTIMIZER_STATE,
    TRACEBACK,
    BatchShape,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog

CACHE_DIMENSIONS = 4
"""Of keys and of values: batch, heads, tokens, head size."""
MORE_THAN_ONE = 1.2
"""Tensors of the largest's size that a unit must leave before there are several of them: shorter ones count as less."""
DTYPE_BYTES = {"float32": 4, "float64": 8}
"""of an element; the others take 2"""

_IN_CACHE_OBJECT = re.compile(
    r"\b(?:Dynamic|Static|\w*Quantized)(?:SlidingWindow|Indexed)?(?:Layer|Cache)\.(?:key|value)s?(?:_cache)?\b"
)
"""Links of a holder: attributes of transformers' caches and of their layers."""

_LIMIT = re.compile(r"\bat most (\d+)")
"""In a link of a holder: a deque that lets the first go when it has so many."""


def is_of_exception(survivor: SurvivorRecord) -> bool:
    """Return whether a local variable of a frame that a traceback keeps holds it."""
    links = [link.strip() for link in survivor.holder.rsplit(" (", 1)[0].replace(":", ",").split(",")]
    return TRACEBACK in links or f"kept by a {TRACEBACK}" in links


def is_of_hook(survivor: SurvivorRecord) -> bool:
    """Return whether a function that modules call as a hook holds it, or has put it where it is."""
    return HOOK in survivor.holder


def is_of_optimizer(survivor: SurvivorRecord) -> bool:
    """Return whether it is a state of an optimizer that is not one of a list of several, which something adds to."""
    outer, _, _ = survivor.holder.partition(OPTIMIZER_STATE)
    return outer != survivor.holder and "list of" not in outer and "dict with" not in outer


def is_of_old_optimizer(survivor: SurvivorRecord) -> bool:
    """Return whether it is a state of one of several optimizers that something collects."""
    return OPTIMIZER_STATE in survivor.holder and not is_of_optimizer(survivor)


def is_of_parameters(survivor: SurvivorRecord) -> bool:
    """Return whether it is a parameter of a module."""
    return "attribute `_parameters` of" in survivor.holder


def ends_within(survivor: SurvivorRecord, room_bytes: int) -> bool:
    """Return whether what holds it, without graphs, has a limit that is reached before so many bytes more are taken."""
    limit = _LIMIT.search(survivor.holder)
    if limit is None or survivor.has_grad_fn or not survivor.shape:
        return False
    return int(limit[1]) * _num_bytes(survivor) <= room_bytes


def is_of_metric(survivor: SurvivorRecord) -> bool:
    """Return whether it is the state of a metric."""
    return OF_METRIC in survivor.holder


def is_of_cache(log: RunLog, survivor: SurvivorRecord) -> bool:
    """Return whether a cache object holds it, or it has the shape of the model's keys and values."""
    if _IN_CACHE_OBJECT.search(survivor.holder):
        return True
    model = log.run.model
    if model is None or len(survivor.shape) != CACHE_DIMENSIONS or survivor.has_grad_fn:
        return False
    return 0 < model.num_kv_heads == survivor.shape[1] and 0 < model.head_dim == survivor.shape[3]


def are_caches(log: RunLog, survivors: Sequence[SurvivorRecord]) -> bool:
    """Return whether survivors are keys and values: pairs of one shape, of no fewer tokens than the batches had.

    Pictures have four dimensions too, but fewer rows than a batch has positions.
    """
    if not survivors or any(len(survivor.shape) != CACHE_DIMENSIONS or survivor.has_grad_fn for survivor in survivors):
        return False
    if all(survivor.shape[2] == survivor.shape[3] for survivor in survivors):
        return False  # attention's weights, tokens × tokens
    phases = {survivor.phase for survivor in survivors}
    batches = [record.batch for record in log.phases if record.batch and record.phase in phases]
    tokens = max(survivor.shape[2] for survivor in survivors)
    is_as_long = 1 < max((batch.padded_length for batch in batches), default=0) <= tokens
    if _is_longer_than_calls(batches, survivors[0]):
        return survivors[0].num_tensors > 1
    return _come_in_pairs(survivors) and (is_as_long or _gets_longer(batches, survivors[0]))


def _is_longer_than_calls(batches: Sequence[BatchShape], survivor: SurvivorRecord) -> bool:
    """Return whether a tensor has several tokens of the rows that a model gets one at a time."""
    rows, _, tokens, _ = survivor.shape
    one_at_a_time = bool(batches) and all((batch.batch_size, batch.padded_length) == (rows, 1) for batch in batches)
    return one_at_a_time and tokens > 1 and not survivor.holder.startswith(GROWING_TENSOR)


def _gets_longer(batches: Sequence[BatchShape], survivor: SurvivorRecord) -> bool:
    """Return whether a tensor that is replaced by larger ones grows along its tokens, where a model gets one at a time.

    Joined pictures have more rows than a batch, and joined channels grow by no less than one of them.
    """
    if not survivor.holder.startswith(GROWING_TENSOR) or not batches:
        return False
    rows, channels, tokens, _ = survivor.shape
    if tokens == 1 or any((batch.batch_size, batch.padded_length) != (rows, 1) for batch in batches):
        return False
    grown = survivor.bytes_per_step / survivor.num_tensors
    return grown < _num_bytes(survivor) / channels


def _come_in_pairs(survivors: Sequence[SurvivorRecord]) -> bool:
    largest = survivors[0]
    alike = [survivor for survivor in survivors if survivor.shape == largest.shape]
    if len(alike) > 1:
        return True
    if largest.holder.startswith(GROWING_TENSOR):
        return largest.num_tensors > 1
    return largest.bytes_per_step >= MORE_THAN_ONE * _num_bytes(largest)


def _num_bytes(survivor: SurvivorRecord) -> int:
    """Return the bytes of the largest tensor of a survivor."""
    return prod(survivor.shape) * DTYPE_BYTES.get(survivor.dtype, 2)
