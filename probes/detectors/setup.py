"""Offsets from the start or from one event on: checkpointing lost, weights that train or are cast, memory of others."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memory_harness.configs.optimizers import state_bytes
from memory_harness.configs.strategies import capabilities_of
from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.records import (
    BEFORE_LOAD,
    HOST_CONTAINER,
    HOST_STEPS,
    NEVER_TRAINED,
    OF_WORKERS,
    OLD_MODEL,
    OPTIMIZER_SETTING,
    SUMMED_LOSSES,
    UPCAST,
    ModelFacts,
    Phase,
    PhaseRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import floor_rise, rises_to_the_end
from memory_harness.probes.detectors.kept import is_of_optimizer
from memory_harness.probes.detectors.outside import explains_host_growth
from memory_harness.probes.detectors.reading import (
    error_at_failure,
    fatal_finding,
    how_it_is_kept,
    is_tight,
    left_bytes,
    line_of,
    line_of_unit,
    main_survivor,
    peak_rise_bytes,
    records_of,
    setting_at,
    severity_without,
    survivors_at_failure,
    survivors_of,
)
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES, MIN_STEPS, robust_slope
from memory_harness.probes.findings import Finding, Severity

MIN_FORWARDS = 3
"""Forward passes with and without checkpointing before a script is said to have lost it."""
MORE_THAN_CHECKPOINTED = 0.25
"""What a pass must hold more than one with checkpointing did, as a share of that, before it kept its activations."""
STATE_SHARE = 0.02
"""Share of the budget from which the optimizer's states are worth a line; a LoRA of rank 8 on an 8B model has 0.4 %."""
WIDE_SHARE = 0.1
"""Share of the weights from which it matters that they are not quantised: embeddings and head are left out."""
PACKED_BYTES = 0.516
"""of a weight in 4 bits, with its share of the constants: a byte for 64 weights, 4 bytes for 256 such bytes"""
STEP_HOST_NOISE_BYTES = MIB
"""Resident memory that a step may add without being said to leak: the C library's arenas and Python's own grow a
little."""
WORKER_NOISE_BYTES = MIB // 4
"""The same of processes that load data, in which nothing else goes on."""
STILL_PILING_UP = 0.6
"""Share of the steps up to which a container must have got more before it piles up: a cache of data has filled."""
HOST_BURN_IN = 0.25
"""Share of the steps whose resident memory is left out: libraries load lazily, caches fill."""
HOST_MIN_STEPS = 12
"""Steps after that before resident memory is said to grow."""


def checkpointing_lost(evidence: Evidence) -> Finding | None:
    """Find training steps without gradient checkpointing although it is configured."""
    log = evidence.log
    forwards = _known_forwards(log)
    without = [record for record in forwards if record.forward and record.forward.num_checkpointed_layers == 0]
    if log.run.script:
        configured = "Layers were checkpointed before"
        if not _is_lost_for_good(evidence, forwards, without):
            return None
    else:
        configured = "Gradient checkpointing is configured"
        without = [record for record in without if _asks_for_checkpointing(evidence, record)]
        if not evidence.has_config or not without:
            return None
    first, oom = without[0], log.fatal_oom
    event = None if first is forwards[0] else _last_event_before(log, first)
    since = f" after the {event.phase} phase of step {event.step}" if event else ""
    extra = _graph_growth(log, first.step) or _more_at_failure(log, first)
    more = f": {format_bytes(extra)} more than a pass with checkpointing kept." if extra > 0 else "."
    severity: Severity = "warning"
    if oom is not None and oom.step >= first.step:
        severity = severity_without(log, extra, Phase.FORWARD, Phase.BACKWARD, Phase.EVAL)
    return Finding(
        cause="checkpointing-lost",
        severity=severity,
        title=f"From step {first.step} on no layer is checkpointed",
        explanation=f"{configured}, but in {len(without)} of {len(forwards)} forward "
        f"passes no layer used it, the first{since}. Every layer keeps its activations then{more}",
        phase=Phase.FORWARD,
        steps=(first.step, without[-1].step),
        bytes=max(0, extra) or None,
        where=first.forward.switched_at if first.forward else None,
        evidence={"num_forwards_without": len(without), "num_forwards": len(forwards), "extra_bytes": extra},
    )


def _known_forwards(log: RunLog) -> list[PhaseRecord]:
    """Return the training's forward passes of which it is known how they were made.

    One that ran out of memory in evaluation mode, with gradients, may have been to be one.
    """
    oom = log.fatal_oom
    found = []
    for record in log.phases:
        has_failed = (
            oom is not None and record.step == oom.step and record.phase is oom.phase and record is log.phases[-1]
        )
        may_train = (
            record.phase is Phase.EVAL and has_failed and record.forward is not None and record.forward.has_graph
        )
        if record.forward is not None and (record.phase is Phase.FORWARD or may_train):
            found.append(record)
    return found


def _more_at_failure(log: RunLog, first: PhaseRecord) -> int:
    """Return how much more the pass that ran out of memory held than those before for as many tokens; 0 if unknown."""
    before = [record for record in records_of(log, Phase.FORWARD) if record.batch and 1 < record.step < first.step]
    if log.fatal_oom is None or first.batch is None or not before:
        return 0
    per_token = np.median([peak_rise_bytes(record) / record.batch.padded_tokens for record in before if record.batch])
    return max(0, peak_rise_bytes(first) - round(float(per_token) * first.batch.padded_tokens))


def _asks_for_checkpointing(evidence: Evidence, record: PhaseRecord) -> bool:
    """Return whether any layer is to recompute its activations in a batch, by the configuration of the run."""
    tokens = record.batch.padded_tokens if record.batch else 0
    return evidence.config.model.recomputed(1, tokens).layers > 0


def _is_lost_for_good(evidence: Evidence, forwards: list[PhaseRecord], without: list[PhaseRecord]) -> bool:
    """Return whether a script's forward passes were checkpointed up to one, and none since; it keeps more then."""
    trained = {step.step for step in evidence.steps}
    num_with = len(forwards) - len(without)
    if num_with < MIN_FORWARDS or not without or forwards[num_with:] != without:
        return False
    oom = evidence.log.fatal_oom
    if oom is not None and oom.step == without[0].step:  # the first pass without it, or its backward pass
        return _holds_much_more(evidence.log, without[0])
    if len(without) < MIN_FORWARDS:
        return False
    is_one_training = all(record.step in trained for record in (forwards[num_with - 1], without[0]))
    return is_one_training and _graph_growth(evidence.log, without[0].step) > 0


def _holds_much_more(log: RunLog, first: PhaseRecord) -> bool:
    """Return whether a pass held more than one with checkpointing of as many tokens does: it came to the layers."""
    more = _more_at_failure(log, first)
    return more >= MORE_THAN_CHECKPOINTED * (peak_rise_bytes(first) - more)


def _last_event_before(log: RunLog, first: PhaseRecord) -> PhaseRecord | None:
    """Return the last evaluation, checkpoint or generation before a record."""
    event = None
    for record in log.phases:
        if record is first:
            break
        if record.phase in (Phase.EVAL, Phase.CHECKPOINT, Phase.GENERATE):
            event = record
    return event


def _graph_growth(log: RunLog, first_step: int) -> int:
    """Return how much more a forward pass keeps from a step on, for the largest batch; 0 if unknown."""
    before: list[float] = []
    since: list[float] = []
    most_tokens = 0
    for record in records_of(log, Phase.FORWARD):
        if record.batch is None:
            continue
        most_tokens = max(most_tokens, record.batch.padded_tokens)
        if record.step > 1:
            kept = since if record.step >= first_step else before
            kept.append(left_bytes(record) / record.batch.padded_tokens)
    if not before or not since:
        return 0
    return round((float(np.median(since)) - float(np.median(before))) * most_tokens)


def kbit_upcast(evidence: Evidence) -> Finding | None:
    """Find embeddings and output head held in float32 although the run computes in 16 bits."""
    log, model, settings = evidence.log, evidence.log.run.model, evidence.config.model
    if log.run.script:
        return _upcast_at_failure(log)
    applies = settings.casts_to_float32 and settings.dtype != "float32"
    if model is None or not applies:
        return None
    num_tensors, tensors, which = 2, "2 tensors", "the embedding and the output head"
    if model.tie_word_embeddings:
        num_tensors, tensors, which = 1, "1 tensor", "the shared embedding and output head"
    extra = num_tensors * model.vocab_size * model.hidden_size * 2
    share = extra / log.run.budget_bytes
    return Finding(
        cause="kbit-upcast",
        severity="warning" if is_tight(log) else "info",
        title=f"Embeddings in float32 take {format_bytes(extra)} more than in 16 bits",
        explanation=f"prepare_model_for_kbit_training casts {which} to float32: {tensors} × {model.vocab_size} × "
        f"{model.hidden_size} × 2 B more = {format_bytes(extra)}, {share:.0%} of the budget, from loading to the "
        f"end. Under {settings.dtype} autocast the head is cast back for every product, which costs once more.",
        phase=Phase.LOAD,
        bytes=extra,
        evidence={
            "num_tensors": num_tensors,
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden_size,
            "extra_bytes_per_element": 2,
            "budget_bytes": log.run.budget_bytes,
        },
    )


def _upcast_at_failure(log: RunLog) -> Finding | None:
    """Find weights in 16 bits whose copies in float32 are what did not fit, or without which the rest would have."""
    cast = main_survivor(survivors_at_failure(log, UPCAST))
    if cast is None:
        return None
    shape = " × ".join(map(str, cast.shape))
    return error_at_failure(
        log,
        cast,
        cast.bytes_per_step,
        cause="kbit-upcast",
        title=f"Weights in 16 bits are cast to float32: {format_bytes(cast.bytes_per_step)}",
        explanation=f"{cast.site} makes float32 of a parameter of {shape} `{cast.made_by}`, twice what it has in "
        "16 bits. Leave weights that do not train in 16 bits, and cast the activations.",
        evidence={"cast_bytes": cast.bytes_per_step, "num_tensors": cast.num_tensors},
    )


def experts_not_quantised(evidence: Evidence) -> Finding | None:
    """Find experts that 4-bit loading has left as they were: bitsandbytes replaces linear layers, and they are none."""
    model = evidence.log.run.model
    is_configured = _model_in_4_bits(evidence) is not None and not evidence.config.model.quantise_experts
    # of a loop that is not ours its weights tell
    is_seen = model is not None and not evidence.has_config and model.expert_bytes > 0
    if model is None or not (is_configured or is_seen):
        return None
    experts, size = model.num_expert_parameters, _wide_bytes(evidence)
    if model.expert_bytes:
        size = model.expert_bytes // experts
    share = experts / model.num_parameters
    return _left_wide(
        evidence,
        model,
        ("expert_parameters", experts, size),
        cause="experts-not-quantised",
        title=f"{share:.0%} of the weights are experts, which stay in {8 * size} bits",
        explanation=f"4-bit loading replaces linear layers. The experts are {experts} weights in three-dimensional "
        f"parameters, which it skips: they take {experts} × {size} B = {format_bytes(experts * size)} where 4 bits "
        f"would take {format_bytes(round(experts * PACKED_BYTES))}.",
    )


def weights_not_quantised(evidence: Evidence) -> Finding | None:
    """Find a large part of the weights that 4-bit loading has left as they were, embeddings and head aside."""
    model = _model_in_4_bits(evidence)
    if model is None or not model.num_quantised_parameters:
        return None
    tables = (1 if model.tie_word_embeddings else 2) * model.vocab_size * model.hidden_size
    known = tables + model.num_quantised_parameters + model.num_expert_parameters + model.num_adapter_parameters
    wide, size = model.num_parameters - known, _wide_bytes(evidence)
    return _left_wide(
        evidence,
        model,
        ("wide_parameters", wide, size),
        cause="weights-not-quantised",
        title=f"{wide / model.num_parameters:.0%} of the weights stay in {8 * size} bits",
        explanation=f"Beside embeddings, output head and experts, {wide} weights are in no linear layer that 4-bit "
        f"loading replaces: they take {wide} × {size} B = {format_bytes(wide * size)}.",
    )


def _model_in_4_bits(evidence: Evidence) -> ModelFacts | None:
    """Return what is known of the model where its linear layers are to be quantised."""
    is_quantised = evidence.has_config and evidence.config.model.quantization != "none"
    return evidence.log.run.model if is_quantised else None


def _left_wide(
    evidence: Evidence, model: ModelFacts, counted: tuple[str, int, int], *, cause: str, title: str, explanation: str
) -> Finding | None:
    """Return the finding about so many weights that stayed wide, of so many bytes each, where they are many."""
    name, number, size = counted
    if number < WIDE_SHARE * model.num_parameters:
        return None
    extra = round(number * (size - PACKED_BYTES))
    return Finding(
        cause=cause,
        severity=severity_without(evidence.log, extra),
        title=title,
        explanation=explanation,
        phase=Phase.LOAD,
        bytes=extra,
        evidence={name: number, "bytes_per_weight": size, "parameters": model.num_parameters},
    )


def _wide_bytes(evidence: Evidence) -> int:
    """Return the bytes of a weight that is not quantised."""
    settings = evidence.config.model
    return 4 if settings.casts_to_float32 or settings.dtype == "float32" else 2


def head_trainable(evidence: Evidence) -> Finding | None:
    """Find trainable embeddings or output head: more parameters train than the adapter has."""
    model, config = evidence.log.run.model, evidence.config
    is_known = evidence.has_config or bool(evidence.log.run.script)
    if model is None or not is_known or not model.num_adapter_parameters:
        return None
    adapter = model.num_adapter_parameters
    extra = model.num_trainable_parameters - adapter
    matrix = model.vocab_size * model.hidden_size
    if not matrix or extra < matrix:
        return None
    # what a float32 weight's gradient and its states take beside the weight itself
    num_bytes = extra * (4 + state_bytes(config.train.optimizer, config.train.optim_args))
    num = round(extra / matrix)
    severity = severity_without(evidence.log, num_bytes)
    if not evidence.has_config and not is_tight(evidence.log):
        severity = "info"  # a script may mean to train them
    which = "The embedding or the output head" if num == 1 else f"{num} matrices of the vocabulary's size"
    return Finding(
        cause="head-trainable",
        severity=severity,
        title=f"{extra} parameters outside the adapter are trained",
        explanation=f"{which} ({model.vocab_size} × {model.hidden_size}) trains along with the {adapter} "
        "parameters of the adapter. Gradients and optimizer states of float32 weights take "
        f"{format_bytes(num_bytes)} more.",
        phase=Phase.OPTIMIZER,
        bytes=num_bytes,
        where=model.trains_also_at or None,
        evidence={"adapter_parameters": adapter, "extra_parameters": extra, "num_matrices": num},
    )


def optimizer_lazy(evidence: Evidence) -> Finding | None:
    """Explain what an optimizer keeps: its rise at the first step where it is large, or a history that did not fit."""
    return _history_at_failure(evidence) or _states_of_first_step(evidence)


def _history_at_failure(evidence: Evidence) -> Finding | None:
    """Find an optimizer that keeps more with each step, as L-BFGS does, where a run died of that alone."""
    log, oom, survivors = evidence.log, evidence.log.fatal_oom, survivors_of(evidence.log)
    kept = main_survivor(survivors)
    if oom is None or kept is None or not all(map(is_of_optimizer, survivors)):
        return None
    grown = floor_rise(evidence.later_steps)
    if grown < MIN_GROWTH_BYTES or severity_without(log, grown) != "error":
        return None
    finding = fatal_finding(
        oom,
        cause="optimizer-lazy",
        title=f"The optimizer's history has grown by {format_bytes(grown)}",
        explanation=f"Each step adds {format_bytes(kept.bytes_per_step)} to what the optimizer keeps of earlier ones, "
        f"until it has as many as it is told to.{how_it_is_kept(kept)}",
        num_bytes=grown,
        evidence={"grown_bytes": grown, "bytes_per_step": kept.bytes_per_step},
    )
    return replace(finding, where=line_of(kept))


def _states_of_first_step(evidence: Evidence) -> Finding | None:
    """Explain the rise at the first optimizer step where it is large."""
    log, model = evidence.log, evidence.log.run.model
    first = next((record for record in records_of(log, Phase.OPTIMIZER) if record.step == 1), None)
    if model is None or first is None:
        return None
    rise = left_bytes(first)
    if evidence.has_config:
        train, number = evidence.config.train, model.num_trainable_parameters
        states = number * state_bytes(train.optimizer, train.optim_args)
        rise += 4 * number  # the gradients die in the same phase
        keeps = f"{train.optimizer} keeps values"
        if "adamw" in train.optimizer:
            keeps = "AdamW keeps two values"
        what = f"{keeps} for each of {number} trainable parameters, and makes"
    else:
        states, what = rise, "Most optimizers keep values for each trainable parameter, and make"
    if states < max(MIN_GROWTH_BYTES, STATE_SHARE * log.run.budget_bytes) or rise < states / 2:
        return None
    oom = log.fatal_oom
    died = oom is not None and oom.phase is Phase.OPTIMIZER and oom.step == 1
    return Finding(
        cause="optimizer-lazy",
        severity="error" if died else "info",
        title=f"The optimizer's states take {format_bytes(states)} from the first step on",
        explanation=f"{what} them at the first step: {format_bytes(states)} that are not there before it. It "
        "happens once.",
        phase=Phase.OPTIMIZER,
        steps=(1, 1),
        bytes=states,
        where=setting_at(log, OPTIMIZER_SETTING) or oom.where if died and oom is not None else None,
        evidence={"trainable_parameters": model.num_trainable_parameters, "rise_bytes": rise},
    )


def old_model_alive(evidence: Evidence) -> Finding | None:
    """Find memory that was taken before the run loaded its model."""
    log = evidence.log
    if log.run.script:
        return _old_models(log, survivors_of(log, OLD_MODEL)) or _never_trained(log)
    loads = records_of(log, Phase.LOAD)
    if not loads or loads[0].allocated_before_bytes <= capabilities_of(evidence.config).idle_bytes:
        return None
    before, own = loads[0].allocated_before_bytes, left_bytes(loads[0])
    return Finding(
        cause="old-model-alive",
        severity=severity_without(log, before),
        title=f"{format_bytes(before)} was taken before the model was loaded",
        explanation=f"The process already held {format_bytes(before)} when loading began, and loading added "
        f"{format_bytes(own)}. An earlier model, or tensors of an earlier cell, are still referenced.",
        phase=Phase.LOAD,
        steps=(0, 0),
        bytes=before,
        where=line_of_unit(log, BEFORE_LOAD),
        evidence={"before_load_bytes": before, "model_bytes": own},
    )


def _old_models(log: RunLog, survivors: list[SurvivorRecord]) -> Finding | None:
    """Find models that a script has trained before another one, and keeps."""
    if not survivors:
        return None
    num_bytes = sum(survivor.bytes_per_step for survivor in survivors)
    one = len(survivors) == 1
    models, them = ("a model that was", "it") if one else (f"{len(survivors)} models that were", "them")
    return Finding(
        cause="old-model-alive",
        severity=severity_without(log, num_bytes),
        title=f"{format_bytes(num_bytes)} belongs to {models} trained before",
        explanation=f"Another model has been trained since, and nothing has called {them}: parameters and "
        f"gradients are kept by {survivors[0].holder}.",
        phase=survivors[0].phase,
        steps=(survivors[0].step, survivors[0].step),
        bytes=num_bytes,
        where=line_of(survivors[0]),
        evidence={"num_models": len(survivors), "old_models_bytes": num_bytes},
    )


def _never_trained(log: RunLog) -> Finding | None:
    """Find models that a script has called before the one that trains, and keeps; those of rollouts have their turn."""
    survivors = survivors_at_failure(log, NEVER_TRAINED)
    main = main_survivor(survivors)
    if main is None or records_of(log, Phase.GENERATE, Phase.ROLLOUT):
        return None
    number, num_bytes = len(survivors), sum(survivor.bytes_per_step for survivor in survivors)
    return error_at_failure(
        log,
        main,
        num_bytes,
        cause="old-model-alive",
        title=f"{format_bytes(num_bytes)} belongs to {number} other {'model' if number == 1 else 'models'}",
        explanation="Called before the model that trains was for the first time, never trained, and not called since: "
        f"parameters that are kept by {survivors[0].holder}. The run would have got further without them.",
        evidence={"num_models": number, "old_models_bytes": num_bytes},
    )


def host_leak(evidence: Evidence) -> Finding | None:
    """Find resident memory of the process that climbs from step to step while the GPU is flat."""
    steps = [step for step in evidence.log.steps if step.host_rss_bytes > 0]
    steps = steps[round(HOST_BURN_IN * len(steps)) :]
    if _gpu_grows(evidence):
        return None
    resident = [step.host_rss_bytes for step in steps]
    slope = robust_slope(resident)
    kept = _kept_on_host(evidence.log)
    # half of what a line or a container is seen to get with each step is no noise
    noise_bytes = STEP_HOST_NOISE_BYTES if kept is None else min(STEP_HOST_NOISE_BYTES, kept.bytes_per_step // 2)
    if len(steps) < HOST_MIN_STEPS or not _climbs_throughout(resident, noise_bytes):
        return _container_grows(evidence.log) or _workers_grow(evidence.log) or _losses_summed(evidence.log)
    grown = steps[-1].host_rss_bytes - steps[0].host_rss_bytes
    if explains_host_growth(evidence.log, grown):
        return None
    has_no_end = rises_to_the_end(resident, noise_bytes * len(steps) // 6)
    return Finding(
        cause="host-leak",
        severity="error" if has_no_end else "warning",
        title=f"Host memory grows by {format_bytes(round(slope.middle))} a step",
        explanation=f"The process's resident memory rose by {format_bytes(grown)} from step {steps[0].step} to "
        f"{steps[-1].step} while allocated on the GPU was flat: data, not tensors of the GPU, piles up."
        f"{how_it_is_kept(kept)}",
        steps=(steps[0].step, steps[-1].step),
        bytes=grown,
        where=line_of(kept),
        evidence={"host_bytes_per_step": round(slope.middle), "num_steps": len(steps)},
    )


def _kept_on_host(log: RunLog) -> SurvivorRecord | None:
    """Return what piles up on the host: of which it is known who holds it, else which line makes it."""
    found = [*survivors_of(log, HOST_STEPS), *survivors_of(log, HOST_CONTAINER)]
    held = [survivor for survivor in found if survivor.holder]
    return main_survivor(held or found)


def _climbs_throughout(resident: Sequence[int], noise_bytes: int = STEP_HOST_NOISE_BYTES) -> bool:
    """Return whether resident memory climbs in all, and in each half: longer batches raise it once, and it stays."""
    middle = len(resident) // 2
    halves = robust_slope(resident[:middle]), robust_slope(resident[middle:])
    least = min(half.middle for half in halves)
    return min(robust_slope(resident).low, least) >= noise_bytes


def _container_grows(log: RunLog) -> Finding | None:
    """Find a container that has got more each time that the process had grown, slower than resident memory tells."""
    kept = main_survivor(survivors_of(log, HOST_CONTAINER))
    if kept is None or kept.step < STILL_PILING_UP * log.last_step:
        return None
    return Finding(
        cause="host-leak",
        severity="warning",
        title=f"A container in host memory grows by {format_bytes(kept.bytes_per_step)} a step",
        explanation=f"Each time that the process had grown it held more, until step {kept.step}: {kept.holder}. Arrays "
        "and the like, not tensors of the GPU, pile up there.",
        steps=(1, kept.step),
        where=line_of(kept),
        evidence={"host_bytes_per_step": kept.bytes_per_step},
    )


def _workers_grow(log: RunLog) -> Finding | None:
    """Find worker processes that grow from step to step, counted from their first quarter on."""
    steps = [step for step in log.steps if step.workers_rss_bytes > 0]
    steps = steps[round(HOST_BURN_IN * len(steps)) :]
    resident = [step.workers_rss_bytes for step in steps]
    slope = robust_slope(resident)
    if len(steps) < HOST_MIN_STEPS or not _climbs_throughout(resident, WORKER_NOISE_BYTES):
        return None
    grown = steps[-1].workers_rss_bytes - steps[0].workers_rss_bytes
    return Finding(
        cause="host-leak",
        severity="warning",
        title=f"The processes that the run has started grow by {format_bytes(round(slope.middle))} a step",
        explanation=f"Their resident memory rose by {format_bytes(grown)} from step {steps[0].step} to "
        f"{steps[-1].step}, and this process's did not: they keep what they are given. Of workers that load data the "
        "dataset keeps what it loads, or each makes its own copies of Python objects.",
        steps=(steps[0].step, steps[-1].step),
        bytes=grown,
        where=line_of_unit(log, OF_WORKERS),
        evidence={"worker_bytes_per_step": round(slope.middle), "num_steps": len(steps)},
    )


def _losses_summed(log: RunLog) -> Finding | None:
    """Find losses that are added up with their graphs: nothing on the device, some in host memory."""
    summed = main_survivor(survivors_of(log, SUMMED_LOSSES))
    if summed is None:
        return None
    return Finding(
        cause="host-leak",
        severity="info",
        title=f"A sum refers to the graphs of {summed.num_tensors} losses, in host memory",
        explanation=f"It is kept by {summed.holder}. Each loss was propagated back, so that the sum costs the device "
        "nothing; but the nodes of every step's graph stay in host memory until it is let go. .item() or .detach() "
        "adds numbers alone.",
        steps=(1, summed.step),
        where=line_of(summed),
        evidence={"num_losses": summed.num_tensors},
    )


def _gpu_grows(evidence: Evidence) -> bool:
    growth = evidence.later_steps
    return len(growth) >= MIN_STEPS and floor_rise(growth) >= MIN_GROWTH_BYTES
