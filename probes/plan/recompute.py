"""Which layers compute their activations again: the fewest that fit, for each number of tokens that a batch may have.

What a batch takes is nearly linear in its tokens and in the layers that keep their activations. So a few predictions,
of the longest batch and of one half as long, with all layers kept, without their feed-forward blocks and with none,
tell how many tokens go with how many; then the run's worst moments are predicted with these rules, and the rules
tightened by what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memory_harness.configs.cards import Card, budget_of
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, Example, packed_batch, train_steps
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.probes.plan.choose import Prediction
from memory_harness.probes.plan.predict import PADDING, RecordedModel, uniform_batch

NUM_STAGES, NUM_STAGES_OF_FEW, FEW_LENGTHS = 8, 16, 8
"""into how many the layers are divided, and into how many where batches are of a few lengths only: each number of
layers that occurs is recorded on its own"""

MAX_TRIES = 5
"""predictions of a whole run, each with rules that are tighter than the last"""

AUTO = "auto"


def with_fewest_recomputed(
    config: RunConfig, data: Prepared, headroom_bytes: int = 0, card: Card | None = None
) -> RunConfig:
    """Return the configuration with rules in place of `--recompute auto`; all layers where no rules pass.

    Args:
        card: to simulate; the configured one without it.
    """
    if config.model.recompute != AUTO or not config.model.gradient_checkpointing:
        return config
    rules, _ = fewest_recomputed(RecordedModel(config, card), config, data, headroom_bytes)
    return config.with_fields(recompute=rules)


def fewest_recomputed(
    recorded: RecordedModel, config: RunConfig, data: Prepared, headroom_bytes: int
) -> tuple[str, Prediction | None]:
    """Return the rules for a recorded model, and what they take; `all` and None where no rules pass."""
    allowed = limit = budget_of(config.device) - headroom_bytes
    batches = [batch for step in train_steps(data.train, config, 1) for batch in step]
    needs = _measure(recorded, config, batches)
    for _ in range(MAX_TRIES):
        rules = needs.rules(allowed)
        if rules == "all":
            break
        needed = recorded.run(config.with_fields(recompute=rules), data, UNLIMITED)
        excess = needed.peak_reserved_bytes - limit
        if excess <= 0:
            return rules, needed
        # pieces of other lengths lie in the cache beside what the longest batch alone takes
        allowed = needs.highest(allowed) - excess
    return "all", None


@dataclass(frozen=True)
class _Needs:
    """Bytes that the longest batch takes, and one half as long, by what computes again."""

    num_layers: int
    tokens: tuple[int, int]
    """of the longest batch, and of one half as long"""
    kept: tuple[int, int]
    """where nothing computes again"""
    without_blocks: tuple[int, int] | None
    """where all feed-forward blocks do; None where they cannot alone"""
    recomputed: tuple[int, int]
    """where all layers do"""
    multiple_of: int
    num_stages: int

    def rules(self, allowed_bytes: int) -> str:
        """Return the least for each number of tokens, as `--recompute` takes it."""
        found = [(tokens, stage) for tokens, stage, _ in self._least(allowed_bytes)]
        if found == [(self.tokens[0], "0")]:
            return "none"
        return ",".join(f"{tokens}:{stage}" for tokens, stage in found) or "all"

    def highest(self, allowed_bytes: int) -> int:
        """Return what a batch alone takes at most under these rules; 0 where all layers compute again."""
        return max((needed for _, _, needed in self._least(allowed_bytes)), default=0)

    def _least(self, allowed_bytes: int) -> list[tuple[int, str, int]]:
        """Return numbers of tokens, the least that batches of up to so many compute again, and the bytes of these."""
        found: list[tuple[int, str, int]] = []
        for stage, needed in self._stages():
            most = min(self._most_tokens(needed, allowed_bytes), self.tokens[0])
            if most > (found[-1][0] if found else 0):
                found.append((most, stage, self._needed(needed, most)))
            if most == self.tokens[0]:
                break
        return found

    def _stages(self) -> Iterator[tuple[str, tuple[float, float]]]:
        """Yield what computes again, in steps from nothing to all but a few layers, with the bytes of both batches.

        A block costs less time for the memory that it frees than a layer does.
        """
        numbers = [self.num_layers * stage // self.num_stages for stage in range(self.num_stages)]
        if self.without_blocks is None:
            for number in numbers:
                yield str(number), _between(self.kept, self.recomputed, number / self.num_layers)
            return
        for number in numbers:
            name = f"0+{number}" if number else "0"
            yield name, _between(self.kept, self.without_blocks, number / self.num_layers)
        for number in numbers:
            name = f"{number}+{self.num_layers - number}"
            yield name, _between(self.without_blocks, self.recomputed, number / self.num_layers)

    def _most_tokens(self, needed: tuple[float, float], allowed_bytes: int) -> int:
        """Return how many tokens a batch may have; 0 where that is none."""
        long, short = needed
        if long <= allowed_bytes:
            return self.tokens[0]
        if self.tokens[0] == self.tokens[1]:
            return 0
        most = int(self.tokens[1] + (allowed_bytes - short) / self._slope(needed))
        return max(0, most // self.multiple_of * self.multiple_of)

    def _needed(self, needed: tuple[float, float], tokens: int) -> int:
        """Return what a batch of so many tokens takes."""
        long, _ = needed
        return int(long if tokens == self.tokens[0] else long - (self.tokens[0] - tokens) * self._slope(needed))

    def _slope(self, needed: tuple[float, float]) -> float:
        """Return the bytes of a token."""
        long, short = needed
        return (long - short) / (self.tokens[0] - self.tokens[1])


def _between(less: tuple[int, int], more: tuple[int, int], share: float) -> tuple[float, float]:
    long, short = (first + (last - first) * share for first, last in zip(less, more, strict=True))
    return long, short


def _measure(recorded: RecordedModel, config: RunConfig, batches: Sequence[Batch]) -> _Needs:
    longest = max(batches, key=lambda batch: batch.shape.padded_tokens)
    size, length = longest.shape.batch_size, longest.shape.padded_length
    unit = config.data.pad_to_multiple_of
    half = max(unit, length // 2 // unit * unit)
    padding = PADDING if longest.has_padding else 0
    most_samples = max(len(batch.samples) for batch in batches)

    def batch_of(tokens: int) -> Batch:
        if not longest.is_packed:
            return uniform_batch((size, tokens), padding)
        return packed_batch([Example(max(1, tokens // most_samples), 1)] * most_samples, tokens)

    def peaks(recompute: str) -> tuple[int, int]:
        return peak(recompute, length), peak(recompute, half)

    def peak(recompute: str, tokens: int) -> int:
        micro_batches = [batch_of(tokens)] * min(2, config.train.gradient_accumulation)
        return recorded.step(config.with_fields(recompute=recompute), micro_batches).peak_reserved_bytes

    kept, recomputed = peaks("none"), peaks("all")  # after which the number of layers is known
    blocks = peaks(f"0+{recorded.num_layers}") if config.model.recomputes_blocks else None
    num_lengths = len({batch.shape.padded_tokens for batch in batches})
    num_stages = NUM_STAGES_OF_FEW if num_lengths <= FEW_LENGTHS else NUM_STAGES
    return _Needs(recorded.num_layers, (size * length, size * half), kept, blocks, recomputed, unit, num_stages)
