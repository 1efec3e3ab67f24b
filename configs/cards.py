"""The cards that a run can be asked to fit, from gpus.toml."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import read_toml, unknown_name
from memory_harness.configs.units import parse_bytes


@dataclass(frozen=True)
class Card:
    """A GPU as PyTorch's allocator sees it."""

    name: str
    """its name in gpus.toml and for --gpu"""
    title: str
    """its name for people"""
    capacity_bytes: int
    """what PyTorch prints as the total capacity"""
    context_bytes: int
    """taken outside the allocator by the CUDA context and its libraries"""
    capability: tuple[int, int]
    """compute capability, major and minor"""
    num_sms: int
    """streaming multiprocessors"""
    has_bfloat16: bool
    """bfloat16 in hardware"""
    sdpa_backends: tuple[Literal["flash", "memory_efficient", "math"], ...]
    """in the order in which scaled_dot_product_attention tries them"""
    cublas_workspace_bytes: int
    """allocated once for each thread that multiplies matrices"""
    sources: Mapping[str, str] = field(hash=False)
    """where each value comes from; `estimate` where nothing public gives it"""

    @property
    def budget_bytes(self) -> int:
        """What is left for the allocator."""
        return self.capacity_bytes - self.context_bytes


def emulated(target: Card, host: Card) -> Card:
    """Return the target card as a larger GPU can emulate it: its memory and attention backends on the host's hardware.

    What the hardware decides stays the host's: cuBLAS' workspace and the kernels that libraries pick by capability.
    """
    return dataclasses.replace(
        host,
        name=target.name,
        title=f"{target.title}, emulated on {host.title}",
        capacity_bytes=target.capacity_bytes,
        context_bytes=target.context_bytes,
        sdpa_backends=tuple(name for name in target.sdpa_backends if name in host.sdpa_backends),
    )


@functools.cache
def load_cards() -> dict[str, Card]:
    """Return the cards of gpus.toml by name, in the order in which they are written."""
    tables = read_toml(Path(__file__).with_name("gpus.toml"))
    return {name: _card(name, values, tables["sources"]) for name, values in tables["cards"].items()}


def _card(name: str, values: dict[str, Any], shared_sources: dict[str, str]) -> Card:
    return Card(
        name=name,
        title=values["title"],
        capacity_bytes=parse_bytes(values["capacity"]),
        context_bytes=parse_bytes(values["context"]),
        capability=(values["capability"][0], values["capability"][1]),
        num_sms=values["multiprocessors"],
        has_bfloat16=values["bfloat16"],
        sdpa_backends=tuple(values["sdpa_backends"]),
        cublas_workspace_bytes=values["cublas_workspace"],
        sources=shared_sources | values.get("sources", {}),
    )


def find_card(name: str) -> Card:
    """Return the card of that name. Raises ConfigError: there is none."""
    cards = load_cards()
    if name not in cards:
        raise ConfigError(unknown_name("--gpu", name, cards))
    return cards[name]
