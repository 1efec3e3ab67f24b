"""What a run writes: one frozen record per line of the log. Bytes are integers, seconds are floats.

A run writes a `RunRecord` first, then for each phase a `PhaseBegin` and a `PhaseRecord`, a `StepRecord` per optimizer
step, an `EvalRecord` per evaluation, an `OomRecord` where an allocation failed, a `RecoveryRecord` where training went
on after that, a `RetryRecord` where a watched script did its work again, `SurvivorRecord`s where memory grew,
`DriverRecord`s and `PoolRecord`s where memory outside of PyTorch's tensors has changed, `MetricsRecord`s after
training, `ProbeRecord`s at the end, and an `EndRecord` last. A log that lacks the last one was cut off. `PeakRecord`s
tell what the peaks of phases were made of: as they end, or after the last record where phases were replayed.
`PeakPart`s follow it where somebody asked for them.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import unknown_name

SCHEMA_VERSION = 1

MAX_BYTES = 2**50
"""Bytes that no allocation has: a thousand cards together have fewer."""
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]
"""of bytes, parameters, tokens"""
Request = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""of bytes that were asked for, by mistake even more than there are anywhere"""
Change = Annotated[int, msgspec.Meta(ge=-MAX_BYTES, le=MAX_BYTES)]
"""of bytes: what was added less what was freed"""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]


class Phase(StrEnum):
    """A part of the run, in the order in which they first occur."""

    LOAD = "LOAD"
    DATA = "DATA"
    RESUME = "RESUME"
    ROLLOUT = "ROLLOUT"  # generating what a step learns from
    LOGPROBS = "LOGPROBS"  # log-probabilities of that, before the update
    FORWARD = "FORWARD"
    BACKWARD = "BACKWARD"
    OPTIMIZER = "OPTIMIZER"
    STEP = "STEP"  # the parts of a training step that a loop of one's own does not name
    EVAL = "EVAL"
    CHECKPOINT = "CHECKPOINT"
    GENERATE = "GENERATE"


IN_STEP = (Phase.ROLLOUT, Phase.LOGPROBS, Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.STEP)
"""The phases of a training step."""


def phase_named(name: str | Phase) -> Phase:
    """Return the phase of that name, in any case. Raises ConfigError where there is none."""
    try:
        return Phase(str(name).upper())
    except ValueError:
        raise ConfigError(unknown_name("phase", str(name), [phase.value.lower() for phase in Phase])) from None


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    OOM = "oom"
    STOPPED = "stopped"
    ERROR = "error"


@dataclass(frozen=True)
class MemoryStats:
    """The allocator's counters at one moment. Peaks are since the phase began."""

    allocated_bytes: Size = 0
    reserved_bytes: Size = 0
    active_bytes: Size = 0
    inactive_split_bytes: Size = 0
    peak_allocated_bytes: Size = 0
    peak_reserved_bytes: Size = 0
    num_alloc_retries: Count = 0
    num_ooms: Count = 0


@dataclass(frozen=True)
class BatchShape:
    """How large a batch is. `lengths` are the samples' in tokens, without padding; packed, a sequence holds several."""

    batch_size: Count
    padded_length: Count
    lengths: tuple[Count, ...]
    target_tokens: Size

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.batch_size * self.padded_length

    @property
    def lengths_at_most(self) -> tuple[int, ...]:
        """The lengths, or what they are padded to where nobody has looked."""
        return self.lengths or (self.padded_length,) * self.batch_size


@dataclass(frozen=True)
class ModelFacts:
    """The sizes that detectors factor a failed allocation into."""

    name: str
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_layers: Count
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    num_parameters: Size
    num_trainable_parameters: Size
    weights: str  # `random`, `checkpoint` or `none` (fake tensors)
    tie_word_embeddings: bool = False
    num_quantised_parameters: Size = 0  # of linear layers in 4 bits; 0 too in logs that do not say
    num_expert_parameters: Size = 0  # of three-dimensional weights, which bitsandbytes leaves as they are
    num_adapter_parameters: Size = 0  # 0 too in logs that do not say
    expert_bytes: Size = 0  # of the expert parameters of a model in 4 bits; 0 too in logs that do not say
    gradient_bucket_bytes: Size = 0  # of DistributedDataParallel, where they are no views of the gradients
    max_positions: Count = 0  # tokens that its positions were made for; 0 where none are named, and in logs of before
    trains_also_at: str = ""  # `file:line` that lets weights beside an adapter train; empty where it was not seen
    fallbacks: tuple[str, ...] = ()  # slower or larger ways that the strategy's library takes here than it could


@dataclass(frozen=True)
class RunRecord:
    """First line of a log: what runs, where, on what."""

    source: str  # `cuda` (measured) or `simulated`
    config: dict[str, Any]  # empty where the loop is not ours: what it was configured to do is not known
    fingerprint: str
    gpu_name: str
    budget_bytes: Size
    total_steps: Count  # 0 where it is not known
    steps_per_epoch: Count  # 0 where it is not known
    num_train_samples: Count
    num_eval_samples: Count
    corpus: str  # `synthetic` or the file's name
    environment: dict[str, str]
    started_at: str  # when its first process began, where it was resumed
    model: ModelFacts | None = None
    let_in_by: str = ""  # of a training run: the probe that it passed, or that it was forced; empty for a probe
    has_plain_data: bool = False  # people's own rows, as they are: no Bengali corpus, no system prompt of ours
    fault: str | None = None  # name of the mistake that was planted in the run on purpose
    script: str = ""  # name of the script that was watched: its phases and steps were inferred
    follows_failures: bool = False  # whether it was followed what a loop of somebody's does after a caught failure
    data_bytes: Size = 0  # of the largest tensor of a script's data on the CPU, which stands for the card; 0: not known
    data_where: str = ""  # `file:line` that made it
    settings_at: dict[str, str] = field(default_factory=dict)  # `file:line` by which a script gives some settings
    resumed_at: str = ""  # when this process began, where it goes on with a run
    rows_left_out: dict[str, int] = field(default_factory=dict)  # of the corpus: why, and how many
    budget_is_known: bool = True  # else nothing says what PyTorch could use, and the budget is what it used
    seconds_before: Seconds = 0.0  # of all phases of its earlier processes, but for what was lost and is done again
    gpu_peaks: tuple[Size, ...] = ()  # each GPU's reserved, as simulated, where one process drives several; else empty
    rank: Count = 0  # of a script's process among those that have joined to train; 0 too where it has joined none
    num_ranks: Count = 1  # of a script that was run dry as the first of so many; 1 in logs of before
    ranks_on_gpu: Count = 1  # of these, on one GPU: more than 1 share out its budget; 1 in logs of before
    id: str = ""  # drawn when its first process began, so that no two runs have one; empty in logs of before
    schema_version: Count = SCHEMA_VERSION
    kind: str = "run"

    @property
    def vocab_size(self) -> int:
        """The model's, 0 where it is not known."""
        return 0 if self.model is None else self.model.vocab_size


def run_record_of(
    source: str, gpu_name: str, budget_bytes: int, *, corpus: str = "", environment: dict[str, str] | None = None
) -> RunRecord:
    """Return the record of a run that starts now, of which nothing is known but where it runs."""
    return RunRecord(
        source=source,
        config={},
        fingerprint="",
        gpu_name=gpu_name,
        budget_bytes=budget_bytes,
        total_steps=0,
        steps_per_epoch=0,
        num_train_samples=0,
        num_eval_samples=0,
        corpus=corpus,
        environment=environment or {},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@dataclass(frozen=True)
class PhaseBegin:
    """Written before a phase starts, so that a killed run's log names what it was doing."""

    phase: Phase
    step: Count
    micro_step: Count
    epoch: Count
    kind: str = "phase_begin"


@dataclass(frozen=True)
class ForwardFacts:
    """How a forward pass was made: what a recipe sets up wrongly shows here before it shows in bytes."""

    has_graph: bool  # the loss carries a grad_fn
    cache_bytes: Size  # key/value cache in the model's output
    num_checkpointed_layers: Count  # layers that recompute their activations in the backward pass
    num_adapters: Count = 1
    logits_bytes: Size = 0  # of the output's logits, or of a single tensor that is the output; 0 where it is not known
    output_bytes: Size = 0  # of all tensors in the output; 0 where it is not known
    where: str | None = None  # `file:line` that called the model, where the loop is not ours
    switched_at: str | None = None  # `file:line` of the switch since which no layer is checkpointed, where it was seen


@dataclass(frozen=True)
class PhaseRecord:
    """One phase that ended.

    Steps count from 1 and are optimizer steps; `index` counts eval batches or generate calls from 0.
    """

    phase: Phase
    step: Count
    micro_step: Count
    epoch: Count
    seconds: Seconds
    allocated_before_bytes: Size
    reserved_before_bytes: Size
    after: MemoryStats
    index: Count = 0
    batch: BatchShape | None = None
    host_rss_bytes: Size = 0
    driver_used_bytes: Size | None = None  # of earlier releases: a `DriverRecord` says more
    forward: ForwardFacts | None = None  # of FORWARD and EVAL
    kind: str = "phase"

    @property
    def needed_bytes(self) -> int:
        """The highest that was allocated."""
        return self.after.peak_allocated_bytes


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `allocated_bytes` is the floor: what stays when the step is over."""

    step: Count
    epoch: Count
    micro_steps: Count
    lengths: tuple[Count, ...]
    padded_share: float
    target_tokens: Size
    loss: float | None  # None where nothing is computed (fake tensors)
    learning_rate: float
    seconds: Seconds
    allocated_bytes: Size
    reserved_bytes: Size
    num_alloc_retries: Count
    host_rss_bytes: Size
    grad_norm: float | None = None
    workers_rss_bytes: Size = 0  # resident memory of the processes that load data, shared pages in each
    training: Count = 1  # counts from 1: a script may train one model after another, whose floors do not compare
    left_bytes: Change | None = None
    """what it left allocated, where the log leaves its phases out, which tell this and what follows otherwise"""
    forward_bytes: Change = 0  # of it, what its forward passes added
    padded_tokens: Size = 0  # of its micro-batches
    kind: str = "step"


@dataclass(frozen=True)
class EvalRecord:
    """One whole evaluation."""

    step: Count
    epoch: Count
    num_batches: Count
    target_tokens: Size
    loss: float | None  # per target token
    model: str = "tuned"  # `tuned`, or `base`: with the adapter switched off
    kind: str = "eval"


class SegmentRuns(NamedTuple):
    """What of a segment is in use: enough to draw it."""

    pool: str  # `small` or `large`
    runs: tuple[Size, ...]  # bytes by address, alternately in use and free; the first is 0 where a free one comes first


def segment_runs(pool: str, blocks: Iterable[tuple[int, bool]]) -> SegmentRuns:
    """Return a segment's runs; `blocks` are bytes and whether they are in use, in order of address."""
    runs = [0]
    for num_bytes, in_use in blocks:
        if in_use == (len(runs) % 2 == 0):
            runs.append(0)
        runs[-1] += num_bytes
    return SegmentRuns(pool, tuple(runs))


@dataclass(frozen=True)
class MetricsRecord:
    """How good the model is on held-out questions, once it has been trained."""

    step: Count
    model: str  # `tuned`, or `base`: with the adapter switched off
    perplexity: float | None  # per target token; None where nothing is computed, as everything below
    bits_per_byte: float | None  # of the held-out answers in UTF-8
    num_replies: Count  # replies that were compared with references; vetted ones are not
    bleu: float | None = None  # 0 to 100
    chrf: float | None = None  # 0 to 100
    rouge1: float | None = None  # F-measure, 0 to 1
    rouge2: float | None = None
    rougeL: float | None = None
    signatures: dict[str, str] = field(default_factory=dict)  # metric -> how it was computed
    kind: str = "metrics"


@dataclass(frozen=True)
class OomRecord:
    """An allocation that did not fit, after the allocator's own retries."""

    phase: Phase
    step: Count
    micro_step: Count
    epoch: Count
    requested_bytes: Request
    allocated_bytes: Size
    reserved_bytes: Size
    budget_bytes: Size
    largest_free_block_bytes: Size
    num_alloc_retries: Count
    batch: BatchShape | None = None
    where: str | None = None  # `file:line` of the innermost frame that is not the harness's
    frames: tuple[str, ...] = ()  # `file:line function`, innermost first
    live_bytes: dict[str, Size] = field(default_factory=dict)
    """live bytes by category: parameter, gradient, optimizer_state, activation, logits, kv_cache, temp, unknown"""
    index: Count = 0
    segments: tuple[SegmentRuns, ...] = ()  # all that was reserved, in order of address; empty where it is not known
    caught_at: str | None = None  # `file:line` of what catches it in a watched script; None where that is not known
    batch_at: str | None = None  # `file:line` that made the batch it worked on; None where that is not known
    kind: str = "oom"

    @property
    def needed_bytes(self) -> int:
        """What there would have been, had it fitted."""
        return self.allocated_bytes + self.requested_bytes


HOST_STEPS = "host, by step"  # unit of a `SurvivorRecord`: host memory that training steps leave
AUTOCAST = "autocast"  # unit of a `SurvivorRecord`: copies of weights, and the context that is open since
HOST_CONTAINER = "host, in a container"  # unit of a `SurvivorRecord`: what gets more and more of no tensors
OF_WORKERS = "host, of workers"  # unit of a `SurvivorRecord`: what a dataset may keep in the processes that load data
SUMMED_LOSSES = "summed losses"  # unit of a `SurvivorRecord`: a number that refers to all losses before it


@dataclass(frozen=True)
class RetryRecord:
    """A watched script has done again the work for which an allocation failed."""

    failure: Count  # which of the failed allocations of the log, from 0
    step: Count
    kind: str = "retry"


HOST = "host"  # unit of a `SurvivorRecord`: tensors in host memory that evaluation keeps
GROWING_TENSOR = "replaced by larger ones"  # begins a `SurvivorRecord`'s holder where units do that to its tensors
ALSO_KEPT = "and kept beyond it"  # in the holder of a `SurvivorRecord`: a local variable is not all that keeps it
AT_EXIT = "what is called at exit"  # begins the holder of a `SurvivorRecord` that a function keeps until then
WHEN_GONE = "what is called when an object is gone"  # the same of a function that waits for that
OF_METRIC = "of the metric "  # in the holder of a `SurvivorRecord`: an object that is updated, and computes a result
HOOK = "of the hook "  # in the holder of a `SurvivorRecord`: a function that modules or tensors call as a hook
OF_GENERATOR = "of the generator "  # in the holder of a `SurvivorRecord`: a variable of one that has yet to end
TRACEBACK = "traceback"  # a link in the holder of a `SurvivorRecord`: an exception's, which holds its frames
CYCLE = (
    "cycle"  # unit of a `SurvivorRecord`: objects that refer to each other in a circle, and waited for the collector
)
SORTING = "sorted"  # in `RunRecord.settings_at`: the first line that sorts by a key
DRAWING = "drawn"  # in `RunRecord.settings_at`: the first line that draws from probabilities
COLLECTOR_OFF = "collector off"  # in `RunRecord.settings_at`: the line that switches Python's garbage collector off
OPTIMIZER_SETTING = "optimizer"  # in `RunRecord.settings_at`: what made the optimizer that stepped last, or was to
OPTIMIZER_STATE = "state of an optimizer"
"""In the holder of a `SurvivorRecord`: what an optimizer keeps for itself, such as LBFGS its history."""
OLD_MODEL = "old model"  # unit of a `SurvivorRecord`: a model that was trained before another one, and still is there
BEFORE_LOAD = "before load"  # unit of a `SurvivorRecord`: what was there before the model
ADDED_TO_MODEL = "added to model"  # unit of a `SurvivorRecord`: parameters that a model has got amid its training
NEVER_TRAINED = "never trained"  # unit of a `SurvivorRecord`: a model that was called before the one that trains
UPCAST = "upcast"  # unit of a `SurvivorRecord`: a parameter's copy in float32 that did not fit, or that is there
SCORES = "scores"  # unit of a `SurvivorRecord`: attention scores that did not fit, by the shapes of queries and keys
OWN_GRAPHS = "graphs of their own"  # unit of a `SurvivorRecord`: of as many passes, which wait for one backward pass
LEFT_OUTPUT = "left output"  # unit of a `SurvivorRecord`: an evaluation's, still there when training did not fit
CAUGHT_BEFORE = "caught before"  # unit of a `SurvivorRecord`: what an earlier exception held when memory ran out
MODEL_STATES = "model states"
"""Unit of a `SurvivorRecord`: gradients and states of what an optimizer trains, which memory ran out before it had."""
CAUGHT_FAILURE = "caught failure"  # unit of a `SurvivorRecord`: what a caught out-of-memory has left


def peak_unit(phase: Phase) -> str:
    """Return the unit of a `SurvivorRecord` that tells what a phase's peak was made of."""
    return f"peak of {phase}"


@dataclass(frozen=True)
class SurvivorRecord:
    """Tensors that each recorded step left behind, all made by the same line and kept by the same holder."""

    step: Count  # last optimizer step whose allocations were recorded
    phase: Phase  # where they were made
    site: str  # `file:line function` that made them: the innermost frame that is no library's, else the innermost
    holder: str  # keeps them alive, from the outside in, with the `file:line` that can be told; empty where not known
    bytes_per_step: Change
    num_tensors: Count  # survivors over all steps whose allocations were recorded
    has_grad_fn: bool = False  # whether one of them carries a graph
    shape: tuple[Count, ...] = ()  # of the largest; empty where it is not known
    dtype: str = ""
    made_by: str = ""  # the line of `site`, as it is written; empty where it is not known
    kept_by: str = ""  # the same of the holder's line
    unit: str = "step"
    """what was recorded: `step`; the phase (EVAL, GENERATE) whose batches or calls take the step's place, or that was
    recorded as a whole; `peak_unit` of a phase, of which nothing may have survived; `BEFORE_LOAD`, `OLD_MODEL`,
    `ADDED_TO_MODEL`, `NEVER_TRAINED`, `UPCAST`, `SCORES`, `OWN_GRAPHS`, `LEFT_OUTPUT`, `CAUGHT_BEFORE`,
    `MODEL_STATES`, `CAUGHT_FAILURE`, `HOST`, `HOST_STEPS`, `SUMMED_LOSSES`"""
    kind: str = "survivor"


@dataclass(frozen=True)
class PeakPart:
    """Allocations that one line made and that lived when most was needed; the parts of a run add up to its peak.

    Where memory ran out and the failed allocation would have been the peak, the parts are those of that moment.
    """

    category: str  # as in `OomRecord.live_bytes`; `made in PHASE` where tensors have no names; `ROUNDING`, `REQUEST`
    site: str  # `file:line function` that made them, or their names with `*` for numbers; empty where not known
    code: str  # the line's text: it is the same in another version, where the line has another number
    caller: str  # the model's or the user's `file:line function` that led to the site, where that is another's
    num_bytes: Request
    num_tensors: Count
    kind: str = "peak_part"


ROUNDING = "rounding"  # category of a `PeakPart`: by how much blocks are larger than what was asked for
REQUEST = "did not fit"  # the same: the allocation that failed


COLLECTOR = "collector"  # name of a `ProbeRecord`: a run of the garbage collector that nobody has asked for
COLLECTED_BY_SCRIPT = "gc.collect"  # name of a `ProbeRecord`: a run of it that the script has asked for


@dataclass(frozen=True)
class PeakRecord:
    """What lived at the highest moment of a phase that was looked at closely, by kind, by layer and by calls.

    The kinds add up to `allocated_bytes` as far as blocks allow it. Where an allocation failed, it is that moment,
    together with what was asked for.
    """

    phase: Phase
    step: int
    allocated_bytes: int
    reserved_bytes: int
    kinds: dict[str, int]  # names of `harness.log.peaks.KINDS`
    layers: dict[str, dict[str, int]]
    """layer, such as `layers.3` -> kind -> bytes: by names, and for what has none by the layer that ran. In logs of
    before, and of models that are compiled, by names alone"""
    stacks: dict[str, int]  # folded: kind, then the calls from the outermost to the innermost, joined by semicolons
    kind: str = "peak"


@dataclass(frozen=True)
class ProbeRecord:
    """What one action freed, at the end of a run or amid it."""

    name: str
    """`gc`: the garbage collector; `COLLECTOR`: the same on its own; `COLLECTED_BY_SCRIPT`; `autocast_cache`:
    autocast's copies of weights; `cached_blocks`: the allocator's"""
    step: Count
    allocated_before_bytes: Size
    allocated_after_bytes: Size
    reserved_before_bytes: Size
    reserved_after_bytes: Size
    kind: str = "probe"

    @property
    def freed_bytes(self) -> int:
        """Allocated bytes that the action freed."""
        return self.allocated_before_bytes - self.allocated_after_bytes


class GpuProcess(NamedTuple):
    """A process that the driver lists on the card."""

    pid: Count
    name: str  # empty where it may not be asked for
    used_bytes: Size
    is_gone: bool = False  # no process has that number any more, and yet the memory is held
    is_peer: bool = False  # a launcher has started it together with this one, to train on another GPU


class DriverUse(NamedTuple):
    """What the driver counts on the card at one moment."""

    used_bytes: Size  # by everyone
    total_bytes: Size
    own_bytes: Size | None = None  # by this process; None where the driver does not say
    others: tuple[GpuProcess, ...] = ()


class PoolUse(NamedTuple):
    """Memory that PyTorch has set aside: in private pools on the card, and pinned in host memory."""

    num_private: Count = 0  # pools of CUDA graphs and of `torch.cuda.MemPool`
    private_reserved_bytes: Size = 0
    pinned_bytes: Size = 0  # that the host's caching allocator owns, in use or not
    pinned_active_bytes: Size = 0


@dataclass(frozen=True)
class DriverRecord:
    """What the driver counts on the card, beside what PyTorch's allocator has reserved of it."""

    phase: Phase
    step: Count
    reserved_bytes: Size  # by PyTorch's allocator in this process
    use: DriverUse
    kind: str = "driver"

    @property
    def outside_bytes(self) -> int | None:
        """What this process holds outside of PyTorch's allocator: its context, libraries, buffers of NCCL."""
        return None if self.use.own_bytes is None else self.use.own_bytes - self.reserved_bytes

    @property
    def foreign_bytes(self) -> int | None:
        """What everyone else holds."""
        return None if self.use.own_bytes is None else self.use.used_bytes - self.use.own_bytes


@dataclass(frozen=True)
class PoolRecord:
    """What PyTorch has set aside."""

    phase: Phase
    step: Count
    reserved_bytes: Size  # by PyTorch's allocator, private pools among it
    use: PoolUse
    kind: str = "pool"


@dataclass(frozen=True)
class RecoveryRecord:
    """What a training run did so that it could go on."""

    phase: Phase
    step: Count
    epoch: Count
    action: str  # a key of `harness.train.recovery.ACTIONS`
    detail: str = ""
    kind: str = "recovery"


NOT_RUN = "not run: "
"""how a `StandInRecord` begins that is about a line of a notebook that is left out"""


@dataclass(frozen=True)
class StandInRecord:
    """What a dry run took for something that it could not know."""

    what: str
    where: str  # `file:line` that asked
    count: Count
    kind: str = "stand_in"


@dataclass(frozen=True)
class KnobRecord:
    """A setting of a script that is run dry, which can be changed from outside."""

    name: str
    value: str
    where: str  # `file:line` that set it
    kind: str = "knob"


@dataclass(frozen=True)
class AgreementRecord:
    """How the losses of a run with a fix agree with those of the run without it; written by what compared them."""

    fix: str
    equivalence: str
    agrees: bool
    on_recipe: bool  # on the recipe itself; else on a tiny model with real tensors: the recipe computed no loss
    difference: float | None  # largest relative difference of a loss; None where samples, not losses, had to agree
    tolerance: float | None  # largest that is allowed
    kind: str = "agreement"


@dataclass(frozen=True)
class EndRecord:
    """Last line of a log."""

    outcome: Outcome
    step: Count
    seconds: Seconds
    message: str = ""
    segments: tuple[SegmentRuns, ...] = ()  # all reserved when most was allocated, by address; empty where not known
    kind: str = "end"


Record = (
    RunRecord
    | PhaseBegin
    | PhaseRecord
    | StepRecord
    | EvalRecord
    | MetricsRecord
    | OomRecord
    | RetryRecord
    | SurvivorRecord
    | DriverRecord
    | PoolRecord
    | PeakPart
    | PeakRecord
    | ProbeRecord
    | RecoveryRecord
    | StandInRecord
    | KnobRecord
    | EndRecord
    | AgreementRecord
)

_NESTED = {MemoryStats, BatchShape, ForwardFacts, ModelFacts}

_WRITTEN = object()
_LEFT_OUT = {"grad_norm": None, "training": 1, "left_bytes": None, "forward_bytes": 0, "padded_tokens": 0}
"""Fields of a step that are not written where they say nothing: long runs write many."""

RECORD_TYPES: dict[str, type] = {cls.kind: cls for cls in typing.get_args(Record)}


def record_to_dict(record: Record) -> dict[str, Any]:
    """Return the record as plain data, ready for one JSON line."""
    # one level of nesting is all there is; dataclasses.asdict copies deeply and takes most of a replayed run's time
    if type(record) is StepRecord:
        return {name: value for name, value in vars(record).items() if _LEFT_OUT.get(name, _WRITTEN) != value}
    return {name: vars(value) if type(value) in _NESTED else value for name, value in vars(record).items()}


def record_from_dict(data: dict[str, Any]) -> Record:
    """Rebuild the record that `record_to_dict` wrote. Raises ValueError where it is none."""
    try:
        cls = RECORD_TYPES[msgspec.convert(data, _Head).kind]
        record: Record = msgspec.convert(data, cls)
    except (msgspec.ValidationError, KeyError, RecursionError) as error:
        raise ValueError(f"no record: {error}") from None
    return record


def record_from_json(line: bytes) -> Record:
    """Return the record of a line of a log. Raises ValueError where it is none."""
    try:
        return _DECODERS[_decode_head(line).kind](line)
    except (msgspec.ValidationError, KeyError, RecursionError) as error:
        raise ValueError(f"no record: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # JSON has no NaN, which a loss may be, and no broken UTF-8, which a path may hold
        return record_from_dict(_lenient(line))


def _lenient(line: bytes) -> Any:
    """Return what Python's reader finds in a line. Raises ValueError: no JSON, or text that cannot be shown."""
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
        json.dumps(value, ensure_ascii=False).encode()  # half of a pair of surrogates cannot be written anywhere
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return value


class _Head(msgspec.Struct):
    """What of a record says which one it is."""

    kind: str


_decode_head = msgspec.json.Decoder(_Head).decode
_DECODERS: dict[str, Callable[[bytes], Record]] = {
    kind: msgspec.json.Decoder(cls).decode for kind, cls in RECORD_TYPES.items()
}
