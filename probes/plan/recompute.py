"""Which layers compute their activations again: the fewest that fit, for each number of tokens that a batch may have.

What a batch takes is nearly linear in its tokens and in the layers that keep their activations. So four predictions, of
the longest batch and of one half as long, with all layers kept and with none, tell how many tokens go with how many
layers; then the run's worst moments are predicted with these rules, and the rules tightened by what does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory_harness.configs.cards import Card, budget_of
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, train_steps
from memory_harness.harness.data.prepare import Prepared
from memory_harness.probes.plan.predict import PADDING, UNLIMITED, RecordedModel, uniform_batch

NUM_STAGES = 8
"""into how many the layers are divided: each number of layers that occurs is recorded on its own"""

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
    recorded = RecordedModel(config, card)
    allowed = limit = budget_of(config.device) - headroom_bytes
    batches = [batch for step in train_steps(data.train, config, 1) for batch in step]
    needs = _measure(recorded, config, batches)
    for _ in range(MAX_TRIES):
        rules = needs.rules(allowed)
        chosen = config.with_fields(recompute=rules)
        excess = 0 if rules == "all" else recorded.run(chosen, data, UNLIMITED).peak_reserved_bytes - limit
        if excess <= 0:
            return chosen
        allowed -= excess
    return config.with_fields(recompute="all")


@dataclass(frozen=True)
class _Needs:
    """Bytes that batches take, kept: where no layer computes again; recomputed: where all do."""

    num_layers: int
    tokens: tuple[int, int]
    """of the longest batch, and of one half as long"""
    kept: tuple[int, int]
    recomputed: tuple[int, int]
    multiple_of: int

    def rules(self, allowed_bytes: int) -> str:
        """Return the fewest layers for each number of tokens, as `--recompute` takes them."""
        found: list[tuple[int, int]] = []
        for stage in range(NUM_STAGES):
            number = self.num_layers * stage // NUM_STAGES
            most = min(self._most_tokens(number, allowed_bytes), self.tokens[0])
            if most > (found[-1][0] if found else 0):
                found.append((most, number))
            if most == self.tokens[0]:
                break
        if [number for _, number in found] == [0] and found[0][0] == self.tokens[0]:
            return "none"
        return ",".join(f"{tokens}:{number}" for tokens, number in found) or "all"

    def _most_tokens(self, number: int, allowed_bytes: int) -> int:
        """Return how many tokens go with so many layers that compute again; 0 where that is none."""
        share = number / self.num_layers
        long, short = (
            kept + (recomputed - kept) * share for kept, recomputed in zip(self.kept, self.recomputed, strict=True)
        )
        if long <= allowed_bytes:
            return self.tokens[0]
        if self.tokens[0] == self.tokens[1]:
            return 0
        slope = (long - short) / (self.tokens[0] - self.tokens[1])
        most = int(self.tokens[1] + (allowed_bytes - short) / slope)
        return max(0, most // self.multiple_of * self.multiple_of)


def _measure(recorded: RecordedModel, config: RunConfig, batches: Sequence[Batch]) -> _Needs:
    longest = max(batches, key=lambda batch: batch.shape.padded_tokens)
    size, length = longest.shape.batch_size, longest.shape.padded_length
    unit = config.data.pad_to_multiple_of
    half = max(unit, length // 2 // unit * unit)
    padding = PADDING if longest.has_padding else 0

    def peak(recompute: str, tokens: int) -> int:
        micro_batches = [uniform_batch((size, tokens), padding)] * min(2, config.train.gradient_accumulation)
        return recorded.step(config.with_fields(recompute=recompute), micro_batches).peak_reserved_bytes

    kept = peak("none", length), peak("none", half)
    recomputed = peak("all", length), peak("all", half)
    return _Needs(recorded.num_layers, (size * length, size * half), kept, recomputed, unit)
