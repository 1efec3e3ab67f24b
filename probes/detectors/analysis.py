"""What a failed allocation was for: its size as a product of the batch's and the model's sizes, and what lived then.

Factoring says what a tensor of this size would be; detectors decide what caused the failure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

from memory_harness.configs.models import load_models
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import block_size, segment_size
from memory_harness.harness.log.records import BatchShape, ModelFacts, OomRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import fatal_finding
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding

DTYPES = {4: "float32", 2: "16-bit"}

MIN_ODD_VOCABULARY = 64
"""Odd part of the vocabulary from which divisibility by it says something: one size in 64 divides by chance."""
MAX_TOKENS = 2**20
"""Most tokens that one batch of logits is taken to have."""
SAME_FRACTION = 0.01
"""How far apart the ends of two runs may lie, as shares of the run, and count as the same place: an epoch's last,
incomplete step moves it by less than one step in a hundred."""
SAME_STEP = 2
"""The same in steps: a failure inside a step and one right after it are recorded at neighbouring steps."""
MIN_RATIO_OF_TOTALS = 1.5
"""How much longer one run must be than another before `the same fraction` and `the same step` differ clearly."""


class Factor(NamedTuple):
    """One factor of a size."""

    name: str
    size: int


@dataclass(frozen=True)
class Product:
    """A size written as factors; the last is the bytes of an element."""

    what: str
    factors: tuple[Factor, ...]
    bytes_per_element: int

    @property
    def num_bytes(self) -> int:
        """The product."""
        return prod(factor.size for factor in self.factors) * self.bytes_per_element

    @property
    def legend(self) -> str:
        """The factors' names, in order."""
        return " × ".join([*(factor.name for factor in self.factors), "bytes"])

    def __str__(self) -> str:
        numbers = " × ".join(str(factor.size) for factor in self.factors)
        return f"{numbers} × {self.bytes_per_element} B = {format_bytes(self.num_bytes)}"


@dataclass(frozen=True)
class Failure:
    """A failed allocation taken apart."""

    oom: OomRecord
    products: tuple[Product, ...]
    """every reading of the size, the likeliest first; empty where no known size fits"""
    live: tuple[tuple[str, int], ...]
    """(category, live bytes), largest first"""
    free_bytes: int
    """reserved but not in use, in pieces of at most `oom.largest_free_block_bytes`"""

    @property
    def evidence(self) -> dict[str, int | float | str]:
        """What findings carry of it."""
        found: dict[str, int | float | str] = {}
        for number, reading in enumerate(self.products, 1):
            found[f"request_reading_{number}"] = f"{reading.what}: {reading} ({reading.legend})"
        found["reserved_unused_bytes"] = self.free_bytes
        found["largest_free_block_bytes"] = self.oom.largest_free_block_bytes
        found["num_alloc_retries"] = self.oom.num_alloc_retries
        for category, num_bytes in self.live:
            key = f"live_{category}_bytes" if category.isidentifier() else f"live: {category}"
            found[key] = num_bytes
        return found


def analyse_failure(log: RunLog) -> Failure | None:
    """Return the out-of-memory that ended the run, taken apart, or None where there was none."""
    oom = log.fatal_oom
    if oom is None:
        return None
    products = factor_request(oom.requested_bytes, oom.batch, log.run.model, rounded=log.run.source == "cuda")
    live = tuple(sorted(oom.live_bytes.items(), key=lambda item: -item[1]))
    return Failure(oom, tuple(products), live, max(0, oom.reserved_bytes - oom.allocated_bytes))


def factor_request(
    requested_bytes: int, batch: BatchShape | None, model: ModelFacts | None, *, rounded: bool = False
) -> list[Product]:
    """Return the tensors of the model that have this size, the likeliest first.

    Args:
        requested_bytes: what did not fit.
        batch: of the failing phase.
        model: where it is not known, the vocabularies of the known models are tried.
        rounded: the size comes from CUDA's message, which prints the segment's size with two decimals.
    """
    known = [] if model is None else [*_batch_products(batch, model), *_weights(model)]
    found = [product for product in known if _is_size(product.num_bytes, requested_bytes, rounded=rounded)]
    if found or rounded:
        return found
    for vocab_size in _vocabularies(model):
        found += _logits_of_some_tokens(requested_bytes, vocab_size)
    return found


def _vocabularies(model: ModelFacts | None) -> list[int]:
    """Return the model's vocabulary, or those of the known models where it is not known."""
    if model is None:
        return sorted({shape.vocab_size for shape in load_models().values()})
    return [model.vocab_size] if model.vocab_size else []


def _is_size(num_bytes: int, requested_bytes: int, *, rounded: bool) -> bool:
    """Return whether this was asked for: as it is, as the allocator's block, or as CUDA prints it."""
    block = block_size(num_bytes)
    if requested_bytes in (num_bytes, block):
        return True
    # Source: OutOfMemoryError in CUDACachingAllocator.cpp prints format_size(alloc_size), the size of the new segment
    return rounded and format_bytes(segment_size(block)) == format_bytes(requested_bytes)


def _batch_products(batch: BatchShape | None, model: ModelFacts) -> Iterator[Product]:
    """Yield the tensors whose size depends on the batch, the largest kinds first."""
    if batch is None or not batch.padded_tokens:
        return
    sequences, tokens = Factor("sequences", batch.batch_size), Factor("tokens", batch.padded_length)
    heads, kv_heads = Factor("heads", model.num_heads), Factor("key/value heads", model.num_kv_heads)
    head_size = Factor("head size", model.head_dim)
    per_token = {
        "logits": (Factor("vocabulary", model.vocab_size),),
        "hidden states": (Factor("hidden size", model.hidden_size),),
        "MLP activations": (Factor("intermediate size", model.intermediate_size),),
        "keys or values": (kv_heads, head_size),
        "queries": (heads, head_size),
    }
    for what, rest in per_token.items():
        if what == "queries" and model.num_heads * model.head_dim == model.hidden_size:
            continue  # the size of hidden states
        for size in DTYPES:
            yield Product(f"{DTYPES[size]} {what}", (sequences, tokens, *rest), size)
    for size in DTYPES:
        yield Product(f"{DTYPES[size]} attention scores", (sequences, heads, tokens, tokens), size)
        yield Product(f"{DTYPES[size]} attention mask", (sequences, tokens, tokens), size)


def _weights(model: ModelFacts) -> Iterator[Product]:
    """Yield the model's large matrices in the dtypes that casting or dequantising them gives."""
    hidden = Factor("hidden size", model.hidden_size)
    matrices = {
        "embedding or output head": (Factor("vocabulary", model.vocab_size), hidden),
        "MLP weight": (Factor("intermediate size", model.intermediate_size), hidden),
        "query or output weight": (Factor("heads × head size", model.num_heads * model.head_dim), hidden),
        "key or value weight": (Factor("key/value heads × head size", model.num_kv_heads * model.head_dim), hidden),
    }
    for what, factors in matrices.items():
        for size in DTYPES:
            yield Product(f"{DTYPES[size]} {what}", factors, size)


def _logits_of_some_tokens(requested_bytes: int, vocabulary: int) -> Iterator[Product]:
    """Yield logits of another number of tokens than the batch has, where a vocabulary divides too rarely by chance."""
    if vocabulary // (vocabulary & -vocabulary) < MIN_ODD_VOCABULARY:
        return
    for size in DTYPES:
        tokens, rest = divmod(requested_bytes, vocabulary * size)
        if rest == 0 and 0 < tokens <= MAX_TOKENS:
            yield Product(f"{DTYPES[size]} logits", (Factor("tokens", tokens), Factor("vocabulary", vocabulary)), size)


def unexplained_oom(log: RunLog) -> list[Finding]:
    """Report an out-of-memory that no cause explains, with its numbers; nothing when the run did not run out."""
    oom = log.fatal_oom
    if oom is None:
        return []
    return [
        fatal_finding(
            oom,
            cause=UNEXPLAINED_GROWTH,
            title=f"{format_bytes(oom.requested_bytes)} more does not fit, and no known cause explains it",
            explanation=f"Live tensors take {format_bytes(oom.allocated_bytes)}, the allocator holds "
            f"{format_bytes(oom.reserved_bytes)} of {format_bytes(oom.budget_bytes)}. {_what_is_known(log)}",
            num_bytes=oom.requested_bytes,
            evidence={"requested_bytes": oom.requested_bytes, "reserved_bytes": oom.reserved_bytes},
        )
    ]


def _what_is_known(log: RunLog) -> str:
    """Return what the request may be for: its size alone does not tell why it no longer fits."""
    failure = analyse_failure(log)
    if failure is None or not failure.products:
        return "Neither the size of the request nor the course of the run matches a cause that this harness can prove."
    product = failure.products[0]
    return (
        f"The request is as large as {product.what}: {product} ({product.legend}). Why they do not fit, the course of "
        "the run does not prove."
    )


Recurrence = Literal["same fraction", "same step"]


class End(NamedTuple):
    """Where a run went out of memory."""

    step: int
    total_steps: int


def recurrence(ends: Sequence[End]) -> Recurrence | None:
    """Return whether runs of different lengths die at the same fraction of the run or at the same step, or None.

    A constant leak per step dies at the same step; what happens once per epoch at the same fraction.
    """
    totals = [end.total_steps for end in ends]
    if len(ends) < 2 or min(totals) < 1 or max(totals) < MIN_RATIO_OF_TOTALS * min(totals):
        return None
    steps = [end.step for end in ends]
    fractions = [end.step / end.total_steps for end in ends]
    same_step = max(steps) - min(steps) <= SAME_STEP
    same_fraction = max(fractions) - min(fractions) <= SAME_FRACTION
    if same_step == same_fraction:
        return None
    return "same step" if same_step else "same fraction"


def recurrence_in_words(ends: Sequence[End]) -> str:
    """Return one sentence on where runs of different lengths die, or nothing where they do not agree."""
    kind = recurrence(ends)
    if kind == "same fraction":
        share = sum(end.step / end.total_steps for end in ends) / len(ends)
        return f"It dies after {share:.0%} of the run whatever the number of samples: no leak per step does that."
    if kind == "same step":
        return f"It dies at step {ends[0].step} whatever the number of samples: something grows with every step."
    return ""
