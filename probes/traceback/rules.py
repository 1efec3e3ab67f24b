"""Which causes a pasted out-of-memory speaks for: a rule looks at one, and says nothing where the text does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.allocator_sizes import block_size, segment_size
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.traceback_text import HOST, Frame, OomMessage, OomTraceback
from memory_harness.probes.detectors.analysis import Product
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.traceback.account import CONTEXT_BYTES, ROUNDING, Account
from memory_harness.probes.traceback.places import AFTER_STEPS, Place

CARVED_SHARE = 0.1
"""Least share of the card that lies unused where a cache is called fragmented: a full one has some in pieces too."""
SMALL_CARVED_SHARE, MANY_TIMES = 0.03, 8
"""The same where many times the request lies unused: how much of the card, and how many times."""
OTHERS_SHARE = 0.15
"""Least share of the card that others hold where they are called the cause: a desktop takes up to 12 %."""
LARGE_BYTES = 64 * MIB
"""Embeddings, output heads and the logits of a batch are larger; what k-bit preparation casts besides, norms, and the
logits of a few tokens fill no card.
"""
TWICE_THE_MODEL = 1.5
"""How many times what a simulated model takes while it loads shows that another one is there."""
_LANGUAGE_MODEL = re.compile(r"logits|logps|logprobs")
_RESUMES = re.compile(r"optim|resum|_load_best_model|_load_from_checkpoint")
_LAYER = re.compile(r"\b(?:decoder_)?(?:layer|layer_module|block)\(")


@dataclass(frozen=True)
class Candidate:
    """A cause that the text speaks for."""

    cause: str
    is_likely: bool
    """whether what speaks for it tells it from the others; else it is only possible"""
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...] = ()

    def joined(self, other: Candidate) -> Candidate:
        """Return the same cause with what two rules say of it."""
        against = self.speaks_against + other.speaks_against
        return Candidate(self.cause, self.is_likely or other.is_likely, self.speaks_for + other.speaks_for, against)


@dataclass(frozen=True)
class Simulated:
    """The simulation of the same run, and the cause of its own out-of-memory where it has one that is known."""

    log: RunLog
    cause: str | None


@dataclass(frozen=True)
class Reading:
    """What a traceback says before anything is concluded."""

    traceback: OomTraceback
    account: Account
    phase: Phase | None
    place: Place | None
    where: Frame | None
    """the frame that told the place"""
    family: str
    """of the model whose code ran, such as `llama`"""
    guesses: tuple[str, ...] = ()
    """what of a model of that family it may be the size of, where the model is not given"""
    products: tuple[Product, ...] = ()
    """what of the model has the size of the request, where the model is given"""
    simulated: Simulated | None = None

    @property
    def message(self) -> OomMessage:
        """The numbers."""
        return self.traceback.message

    @property
    def recipe(self) -> RunConfig | None:
        """What the run was configured to do, where it was simulated."""
        if self.simulated is None or not has_config(self.simulated.log):
            return None
        return config_of(self.simulated.log)

    @property
    def requested(self) -> int:
        """Bytes of the request; 0 where the message does not say."""
        return self.message.requested_bytes or 0

    def is_in(self, *places: str) -> bool:
        """Return whether the traceback ended in one of the places."""
        return self.place is not None and self.place.id in places

    def has_function(self, *names: str) -> bool:
        """Return whether one of the functions is on the stack."""
        return any(frame.function in names for frame in self.traceback.frames)


Rule = Callable[[Reading], Candidate | None]


def same_as_simulated(reading: Reading) -> Candidate | None:
    """The simulation of the run dies in the same phase of the same request."""
    simulated = reading.simulated
    oom = None if simulated is None else simulated.log.fatal_oom
    if simulated is None or oom is None or simulated.cause is None or oom.phase is not reading.phase:
        return None
    size = format_bytes(reading.requested)
    # CUDA's message names the segment that was to hold the tensor
    if size not in (format_bytes(oom.requested_bytes), format_bytes(segment_size(block_size(oom.requested_bytes)))):
        return None
    return _likely(simulated.cause, f"the simulation of this run dies in {oom.phase} of the same {size}")


def fragmentation(reading: Reading) -> Candidate | None:
    """What PyTorch holds unused would do, but lies in pieces."""
    message, requested = reading.message, reading.requested
    unused = (message.unused_bytes or 0) - (message.private_pool_bytes or 0)
    free, whole = message.free_bytes or 0, message.total_bytes or message.reserved_bytes
    if not requested or not whole or free >= requested or unused + free < requested:
        return None
    held = f"PyTorch holds {format_bytes(max(0, unused))} unused"
    asked = f"the {format_bytes(requested)} asked for"
    if unused < requested:
        if unused < OTHERS_SHARE * whole:
            return None
        what = f"{held}, and the card has {format_bytes(free)} free: together more than {asked}"
        return _possible("fragmentation", what, f"the unused part alone is less than {asked}")
    what = f"{held}, more than {asked}: no piece of it was large enough"
    is_much = unused >= CARVED_SHARE * whole
    is_many_times = unused >= max(SMALL_CARVED_SHARE * whole, MANY_TIMES * requested)
    if not is_much and (not is_many_times or reading.phase is Phase.LOAD):  # weights that come and stay carve nothing
        return _possible(
            "fragmentation", what, f"it is {unused / whole:.1%} of the card: a full one has such pieces too"
        )
    return _likely("fragmentation", what)


def other_process(reading: Reading) -> Candidate | None:
    """Others hold more than the request."""
    account, total = reading.account, reading.message.total_bytes
    if not reading.requested or not total:
        return None
    least = max(reading.requested, OTHERS_SHARE * total)
    if account.others_bytes is not None:
        held = format_bytes(account.others_bytes)
        return _likely("other-process", f"other processes hold {held}") if account.others_bytes >= least else None
    if account.unknown_bytes is None or account.unknown_bytes - CONTEXT_BYTES < least:
        return None
    held = format_bytes(account.unknown_bytes)
    what = f"{held} of the card is neither free nor PyTorch's of this process; a CUDA context takes about 1 GiB"
    against = "another library of this process may hold it: the message does not tell the two apart"
    # where a driver that could tell says 0, this process may share the card with an engine of its own
    is_told = reading.message.process_bytes is not None
    return (_possible if is_told else _likely)("other-process", what, against)


def outputs_kept(reading: Reading) -> Candidate | None:
    """Evaluation joins the outputs of all its batches."""
    if reading.phase is not Phase.EVAL:
        return None
    if reading.message.device == HOST:
        what = "evaluation keeps the outputs of every batch, in the memory of the host"
        return _likely("logits-hoarded-host", what) if reading.is_in("collected-outputs") else None
    if reading.is_in("gathered-outputs"):
        what = "evaluation keeps the outputs of every batch for metrics"
        return _possible("logits-hoarded", what, "one batch of them is being gathered: it may be too large by itself")
    if not reading.is_in("collected-outputs"):
        return None
    what = "evaluation adds a batch's outputs to those of all batches before, on the card"
    if sum(frame.function == "nested_concat" for frame in reading.traceback.frames) < 2:
        return _likely("logits-hoarded", what)
    return _likely("logits-hoarded", what, "the outputs are a tuple: more than logits may be kept (outputs-hoarded)")


def evaluation_logits(reading: Reading) -> Candidate | None:
    """An evaluation's logits do not fit, though training's did."""
    if reading.phase is not Phase.EVAL or not reading.is_in("loss", "output-head") or _generates(reading):
        return None
    against = "the text does not say how large the batches of evaluation and training are"
    if not reading.has_function(*AFTER_STEPS):
        return _possible(
            "eval-batch-logits",
            "an evaluation's logits do not fit",
            against,
            "no training step passed before, as far as the frames show",
        )
    what = "an evaluation's logits do not fit although training, which keeps more for each token, got here"
    return _likely_if_large(reading, "eval-batch-logits", what, against)


def cache_in_evaluation(reading: Reading) -> Candidate | None:
    """An evaluation that generates nothing fills a key/value cache."""
    if reading.phase is not Phase.EVAL or not reading.is_in("cache") or _generates(reading):
        return None
    return _likely("eval-use-cache", "evaluation fills a key/value cache, though it generates nothing")


def copied_logits(reading: Reading) -> Candidate | None:
    """A training loss copies the logits."""
    if reading.phase not in (Phase.FORWARD, Phase.BACKWARD):
        return None
    cause = "logits-fp32-copies"
    if reading.is_in("output-head"):
        against = "the request is for the logits themselves, before the loss copies them"
        return _possible(cause, "it dies where the logits are made", against)
    if not reading.is_in("loss"):
        return None
    texts = [frame.code + frame.function for frame in reading.traceback.frames]
    if not reading.family and not any(map(_LANGUAGE_MODEL.search, texts)):
        return _possible(cause, "it dies in the loss", "nothing shows that these are the logits of a language model")
    return _likely_if_large(reading, cause, "it dies at the loss, which makes copies of all logits")


def upcast(reading: Reading) -> Candidate | None:
    """K-bit preparation casts a large weight."""
    if not reading.is_in("kbit-upcast"):
        return None
    what = "it dies where weights that were not quantised are cast to float32"
    return _likely_if_large(reading, "kbit-upcast", what)


def merging(reading: Reading) -> Candidate | None:
    """An adapter is merged into a base."""
    if not reading.has_function("merge_and_unload", "_unload_and_optionally_merge", "merge_adapter"):
        return None
    what = "it dies while the adapter is merged into the base"
    if any(re.search("bnb|bitsandbytes", frame.path) for frame in reading.traceback.frames):
        return _likely("merge-dequantises", what)
    return _possible("merge-dequantises", what, "no frame shows that the base is quantised")


def resuming(reading: Reading) -> Candidate | None:
    """A checkpoint's state is loaded beside the one that is there."""
    if reading.phase is not Phase.RESUME:
        return None
    what = "it dies while a checkpoint's state is loaded onto the card"
    if any(_RESUMES.search(frame.code + frame.function) for frame in reading.traceback.frames):
        return _likely("resume-on-gpu", what)
    return _possible(
        "resume-on-gpu", what, "nothing shows that a training is resumed: it may be the model's first load"
    )


def saving(reading: Reading) -> Candidate | None:
    """Saving copies the state."""
    if reading.phase is not Phase.CHECKPOINT or merging(reading) is not None:
        return None
    return _likely("save-doubles", "it dies while a checkpoint is saved: saving needs room of its own")


def first_state(reading: Reading) -> Candidate | None:
    """The optimizer makes its state."""
    if reading.phase is not Phase.OPTIMIZER or not reading.is_in("optimizer-state"):
        return None
    return _likely("optimizer-lazy", "it dies where the optimizer makes its state, which it does at its first step")


def after_caught_failure(reading: Reading) -> Candidate | None:
    """A failure while an earlier one was handled."""
    if not reading.traceback.after_another:
        return None
    what = "it was raised while an earlier out-of-memory was being handled, whose frames keep their tensors"
    return _likely("exception-holds-frames", what)


def longer_than_configured(reading: Reading) -> Candidate | None:
    """The request is of more tokens than the recipe lets into a batch."""
    config = reading.recipe
    vocabulary = 0 if reading.simulated is None else reading.simulated.log.run.vocab_size
    if config is None or not vocabulary or config.data.batches or not reading.is_in("loss", "output-head"):
        return None
    batch_size = config.eval.eval_batch_size if reading.phase is Phase.EVAL else config.train.train_batch_size
    most = batch_size * config.data.max_length
    least = int(reading.requested * (1 - ROUNDING)) // (4 * vocabulary)  # float32: in 16 bits it is twice as many
    if reading.products or least <= most:
        return None
    what = f"as logits the request is of {least} tokens or more; a batch of the recipe has {most} at most"
    return _likely("truncation-missing", what)


def not_checkpointed(reading: Reading) -> Candidate | None:
    """A layer runs without the checkpointing that the recipe asks for."""
    config = reading.recipe
    if config is None or not config.model.gradient_checkpointing or reading.phase is not Phase.FORWARD:
        return None
    if config.model.recompute != "all":  # some layers do without, and the frames do not say which one it is
        return None
    in_layer = any(_LAYER.search(frame.code) for frame in reading.traceback.frames)
    if not in_layer or reading.has_function("checkpoint", "_gradient_checkpointing_func"):
        return None
    return _likely("checkpointing-lost", "a layer runs without gradient checkpointing, which the recipe has on")


def earlier_model(reading: Reading) -> Candidate | None:
    """More is allocated while the model loads than loading it takes."""
    simulated, allocated = reading.simulated, reading.message.allocated_bytes
    if reading.phase is not Phase.LOAD or simulated is None or allocated is None:
        return None
    load = simulated.log.peaks().get(Phase.LOAD)
    if load is None or not 0 < TWICE_THE_MODEL * load.peak_allocated_bytes < allocated:
        return None
    takes = format_bytes(load.peak_allocated_bytes)
    what = f"{format_bytes(allocated)} is allocated while the model loads, which takes {takes} by itself"
    return _likely("old-model-alive", what)


def _likely(cause: str, speaks_for: str, *against: str) -> Candidate:
    return Candidate(cause, True, (speaks_for,), against)


def _likely_if_large(reading: Reading, cause: str, speaks_for: str, *against: str) -> Candidate:
    """Return a cause that is likely where the request is large enough to fill a card, or not told."""
    if not 0 < reading.requested < LARGE_BYTES:
        return _likely(cause, speaks_for, *against)
    size = format_bytes(reading.requested)
    return _possible(cause, speaks_for, *against, f"{size} is too little for it: the card was full already")


def _possible(cause: str, speaks_for: str, *against: str) -> Candidate:
    return Candidate(cause, False, (speaks_for,), against)


def _generates(reading: Reading) -> bool:
    return reading.has_function("generate", "_generate", "_sample", "greedy_search", "beam_search")


HOST_RULES: tuple[Rule, ...] = (outputs_kept,)
"""of memory of the host, of which the others do not speak"""
RULES: tuple[Rule, ...] = (
    same_as_simulated,
    fragmentation,
    other_process,
    outputs_kept,
    evaluation_logits,
    cache_in_evaluation,
    copied_logits,
    upcast,
    merging,
    resuming,
    saving,
    first_state,
    after_caught_failure,
    longer_than_configured,
    not_checkpointed,
    earlier_model,
)
