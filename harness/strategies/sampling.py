"""Choosing the next token of each sequence: the likeliest, or one drawn from the likely ones.

Shapes: B sequences in a batch, V tokens in the vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from memory_harness.harness.devices.base import Device


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one batch are chosen; the fields are those of `GenerationConfig`."""

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seeds: tuple[int, ...] = ()
    """one for each sequence; none are needed at temperature 0"""

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """What decides which operators run: whether tokens are drawn, the unlikely cut off, the seen penalised."""
        return self.temperature > 0, self.top_p < 1, self.repetition_penalty != 1


GREEDY = Sampling()


def sample_seed(seed: int, question: str, sample: int) -> int:
    """Return the seed of one reply, the same whatever else is asked, in which order and in which batches."""
    digest = hashlib.sha256(f"{seed}\0{sample}\0{question}".encode()).digest()
    return int.from_bytes(digest[:6])  # 48 bits: exact in JSON too


class Sampler:
    """Chooses the tokens of one batch, step by step; holds a random generator for each sequence and what it has seen.

    Args:
        sampling: how.
        prompts: token ids; they count as seen.
        vocab_size: V.
        device: where the logits are.
    """

    def __init__(self, sampling: Sampling, prompts: Sequence[Sequence[int]], vocab_size: int, device: Device) -> None:
        draws, cuts, penalises = sampling.kind
        self._penalty = sampling.repetition_penalty
        self.seen_BV = device.put(_occurrences(prompts, vocab_size)) if penalises else None
        self._generators: list[torch.Generator | None] = []
        self._warpers: list[TemperatureLogitsWarper | TopPLogitsWarper] = []
        if draws:
            self._generators += [_generator(seed, device) for seed in sampling.seeds]
            self._warpers.append(TemperatureLogitsWarper(sampling.temperature))
            if cuts:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """Return the next token of each sequence, int64 (B, 1)."""
        if self.seen_BV is not None:
            logits_BV = penalised(logits_BV, self.seen_BV, self._penalty)
        tokens_B1 = self._drawn(logits_BV.float()) if self._generators else logits_BV.argmax(dim=-1, keepdim=True)
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, tokens_B1, True)
        return tokens_B1

    def _drawn(self, logits_BV: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            logits_BV = warper(None, logits_BV)
        return draw(logits_BV.softmax(dim=-1), self._generators)


def penalised(logits_BV: torch.Tensor, seen_BV: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the logits, those of tokens that were seen made smaller.

    transformers' own processor would count the padding on the left as seen: a reply would then depend on what else is
    in its batch. Source: Keskar et al., CTRL (arXiv:1909.05858), section 4.1; negative logits as transformers has them.
    """
    smaller_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, smaller_BV, logits_BV)


def draw(shares_BV: torch.Tensor, generators: Sequence[torch.Generator | None]) -> torch.Tensor:
    """Return one token of each row, drawn with its own generator from the row's shares; int64 (B, 1).

    As `torch.multinomial` does it (the largest of share over exponential noise), but without its checks, which wait for
    the device, and with all that it allocates in sight.
    """
    noise_BV = torch.empty_like(shares_BV)
    for row_V, generator in zip(noise_BV, generators, strict=True):
        row_V.exponential_(generator=generator)
    noise_BV.clamp_(min=torch.finfo(noise_BV.dtype).tiny)  # 0 / 0 would win
    return (shares_BV / noise_BV).argmax(dim=-1, keepdim=True)


def _occurrences(prompts: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    seen_BV = np.zeros((len(prompts), vocab_size), dtype=np.bool_)
    for row, prompt in enumerate(prompts):
        seen_BV[row, list(prompt)] = True
    return seen_BV


def _generator(seed: int, device: Device) -> torch.Generator | None:
    """Return the sequence's generator; None where nothing is computed, and so nothing drawn."""
    if not device.computes:
        return None
    return torch.Generator(device.torch_device).manual_seed(seed)
