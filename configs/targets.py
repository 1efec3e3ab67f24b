"""Where a loop that is not ours runs, and what it may take there: the values, checked."""

from __future__ import annotations

from memory_harness.configs.cards import find_card, load_cards
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import unknown_name
from memory_harness.configs.units import format_bytes, parse_bytes

DEVICES = ("auto", "cuda", "simulated")
DEFAULT_CARD = "t4"


def check_device(device: str, gpu: str | None) -> None:
    """Raise ConfigError where there is no such device or card."""
    if device not in DEVICES:
        raise ConfigError(unknown_name("device", str(device), DEVICES))
    if gpu is not None and str(gpu) not in load_cards():
        raise ConfigError(unknown_name("gpu", str(gpu), load_cards()))


def budget_bytes_of(budget: str | int | None, gpu: str | None = None, *, name: str = "budget") -> int | None:
    """Return a size in bytes, or None where none is given.

    Args:
        budget: the size, as people write it or in bytes.
        gpu: card that was asked for, if one was.
        name: what the size is called where it was given.

    Raises:
        ConfigError: it is not a size above 0, or more than the card has: what passed would not fit there.
    """
    try:
        num_bytes = parse_bytes(budget) if isinstance(budget, str) else budget
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if num_bytes is None:
        return None
    if not isinstance(num_bytes, int) or isinstance(num_bytes, bool) or num_bytes <= 0:
        raise ConfigError(f"{name} {budget}: not a size (allowed: more than 0, such as '14.4 GiB')")
    if gpu is not None:
        card = find_card(gpu)
        if num_bytes > card.capacity_bytes:
            raise ConfigError(f"{name} {budget}: {card.title} has {format_bytes(card.capacity_bytes)}; lower it")
    return num_bytes
