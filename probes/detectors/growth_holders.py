"""Explanations of growth by what holds it: a caught exception, a generation's cache, the state of a metric, a model."""

from collections.abc import Callable, Sequence

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import Phase, SurvivorRecord
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import EXPLAINED_SHARE, Explanation, floor_rise, grows_to_the_end, span
from memory_harness.probes.detectors.growth_contents import hang_on_graphs, is_collection
from memory_harness.probes.detectors.kept import (
    are_caches,
    is_of_exception,
    is_of_hook,
    is_of_metric,
    is_of_old_optimizer,
    is_of_optimizer,
)
from memory_harness.probes.detectors.reading import main_survivor, records_of, survivors_of
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES

SAME_SHARE = 0.02
"""Relative error within which what is kept counts as what was returned: the allocator's rounding of several tensors."""


def in_exceptions(evidence: Evidence) -> Explanation | None:
    """Explain exceptions that were caught and are kept: a traceback holds its frames, and they their variables."""
    held = _held(evidence, is_of_exception)
    return _explanation(
        evidence,
        held,
        cause="exception-holds-frames",
        title="Caught exceptions keep {} of tensors",
        reason="An exception that is kept has a traceback, and that every frame with its variables.",
    )


def in_caches(evidence: Evidence) -> Explanation | None:
    """Explain keys and values of earlier calls that are kept."""
    held = _held(evidence, lambda survivor: len(survivor.shape) == 4)
    if not are_caches(evidence.log, held):
        return None
    shape = " × ".join(map(str, held[0].shape))
    return _explanation(
        evidence,
        held,
        cause="kv-cache-held",
        title="Keys and values of earlier calls are kept: {}",
        reason=f"What survives are keys and values of {shape}, batch × heads × tokens × head size.",
    )


def in_metrics(evidence: Evidence) -> Explanation | None:
    """Explain a state that each update of a metric adds to, and that nothing resets."""
    return _explanation(
        evidence,
        _held(evidence, is_of_metric),
        cause="metric-never-reset",
        title="The state of a metric has grown by {}, and is never reset",
        reason="Each update adds to the state of an object that computes a metric from it.",
    )


def in_hooks(evidence: Evidence) -> Explanation | None:
    """Explain what hooks of modules keep, with each pass or now and then."""
    return _explanation(
        evidence,
        _held(evidence, is_of_hook),
        cause="hook-holds-activations",
        title="Hooks keep {} of what passes through the layers",
        reason="A hook puts what it is handed where it stays, or is registered again and again and never removed.",
    )


def in_graphs(evidence: Evidence) -> Explanation | None:
    """Explain graphs that something keeps now and then, or a little with every step."""
    survivors = survivors_of(evidence.log)
    return _explanation(
        evidence,
        [survivor for survivor in survivors if survivor.has_grad_fn] if hang_on_graphs(evidence.log) else [],
        cause="retained-graph",
        title="{} of computation graphs are kept",
        reason="The tensors that survive carry a grad_fn: something refers to a loss, or to another result with a "
        "graph, long after its step.",
    )


def in_optimizer(evidence: Evidence) -> Explanation | None:
    """Explain states that an optimizer gets more of to the end: of parameters that others have taken the place of."""
    survivors = survivors_of(evidence.log)
    held = [survivor for survivor in survivors if is_of_optimizer(survivor) and "list of" not in survivor.holder]
    return _explanation(
        evidence,
        # the gradients of these parameters stay as well
        held if _bytes_of(held) > _bytes_of(survivors) / 2 else [],
        cause="optimizer-states-twice",
        title="An optimizer's states have grown by {}",
        reason="States of parameters that have been replaced by others are still there: the optimizer keeps them, by "
        "the old parameters, until they are deleted from its `state`.",
    )


def in_old_optimizers(evidence: Evidence) -> Explanation | None:
    """Explain states of optimizers that others have taken the place of, and a list or the like keeps."""
    return _explanation(
        evidence,
        _held(evidence, is_of_old_optimizer),
        cause="optimizer-states-twice",
        title="The states of earlier optimizers take {}",
        reason="Optimizers were made anew, and the ones before are kept, by themselves or by schedulers, with their "
        "states.",
    )


def in_collections(evidence: Evidence) -> Explanation | None:
    """Explain plain tensors that a list or the like collects, at whatever steps."""
    held = _held(evidence, lambda survivor: not survivor.has_grad_fn and is_collection(survivor))
    return _explanation(
        evidence,
        held if evidence.log.run.script else [],
        cause="tensors-logged",
        title="{} of tensors have come to be kept",
        reason="A list or the like keeps tensors without a graph, and gets more of them.",
    )


def between_steps(evidence: Evidence) -> Explanation | None:
    """Explain what is made between steps, where a model is copied or saved, and kept by a list or the like."""
    made_between = (Phase.CHECKPOINT, Phase.GENERATE, Phase.EVAL, Phase.DATA)
    held = _held(evidence, lambda survivor: survivor.phase in made_between and is_collection(survivor))
    return _explanation(
        evidence,
        held,
        cause="tensors-logged",
        title="Between the steps {} of tensors have come to be kept",
        reason="They are made after a step, without a graph, and each time more of them are kept.",
    )


def in_outputs(evidence: Evidence) -> Explanation | None:
    """Explain outputs of a model that calls between the steps leave: its logits, or more than these."""
    held = _held(evidence, lambda survivor: survivor.phase is Phase.EVAL and is_collection(survivor))
    calls = [record.forward for record in records_of(evidence.log, Phase.EVAL) if record.forward is not None]
    if not held or not calls:
        return None
    kept, logits, returned = _bytes_of(held), calls[0].logits_bytes, calls[0].output_bytes
    is_logits = abs(kept - logits) <= SAME_SHARE * logits
    if is_logits and not _evaluates(evidence):
        return None  # one call now and then, whose result is put into a list, is no evaluation
    made_by_call = any(survivor.site.split(" ")[0] == calls[0].where for survivor in held)
    is_more = made_by_call and logits < kept <= (1 + SAME_SHARE) * returned
    if not is_logits and not is_more and abs(kept - returned) > SAME_SHARE * returned:
        return None
    return _explanation(
        evidence,
        held,
        cause="logits-hoarded" if is_logits else "outputs-hoarded",
        title="{} of what the model has returned is kept",
        reason=f"Of the {format_bytes(returned)} that a call between the steps returns, {format_bytes(kept)} stays.",
    )


def _evaluates(evidence: Evidence) -> bool:
    """Return whether several batches in a row go through the model without training it."""
    steps = [record.step for record in records_of(evidence.log, Phase.EVAL)]
    return len(steps) > len(set(steps))


def _held(evidence: Evidence, is_held: Callable[[SurvivorRecord], bool]) -> list[SurvivorRecord]:
    """Return what steps leave, of which something is true, where that is nearly all that they leave."""
    survivors = survivors_of(evidence.log)
    held = [survivor for survivor in survivors if is_held(survivor)]
    is_most = _bytes_of(held) >= EXPLAINED_SHARE * _bytes_of(survivors)
    return held if is_most else []


def _bytes_of(survivors: Sequence[SurvivorRecord]) -> int:
    return sum(survivor.bytes_per_step for survivor in survivors)


def _explanation(
    evidence: Evidence, held: Sequence[SurvivorRecord], *, cause: str, title: str, reason: str
) -> Explanation | None:
    """Return the explanation by what is held, where memory keeps growing; the title takes by how much it has grown."""
    growth = evidence.later_steps
    rise = floor_rise(growth)
    if not held or rise < MIN_GROWTH_BYTES or not grows_to_the_end(evidence):
        return None
    first, last = span(growth)
    return Explanation(
        cause=cause,
        title=title.format(format_bytes(rise)),
        reason=f"{reason} From step {first} to {last} {format_bytes(rise)} came to stay.",
        grown_bytes=rise,
        steps=(first, last),
        survivor=main_survivor(held),
        evidence={"grown_bytes": rise, "survivors_bytes": _bytes_of(held)},
    )
