"""Where a loop that is not ours runs, and what it may take there: the values, checked."""

from __future__ import annotations

from memory_harness.configs.cards import Card, find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import unknown_name
from memory_harness.configs.units import format_bytes, parse_bytes

DEVICES = ("auto", "cuda", "simulated")
DEFAULT_CARD = "t4"


def check_device(device: str, gpu: str | Card | None) -> Card | None:
    """Return the card, None where none is named. Raises ConfigError: there is no such device or card."""
    if device not in DEVICES:
        raise ConfigError(unknown_name("device", str(device), DEVICES))
    if gpu is None or isinstance(gpu, Card):
        return gpu
    return find_card(str(gpu), flag="gpu")


def check_budget(card: Card, num_bytes: int, given: str) -> None:
    """Raise ConfigError where that is more than the card has: what passed would not fit there.

    Args:
        card: the one to fit.
        num_bytes: what is to be had of it.
        given: what asks for it, for the message.
    """
    if num_bytes > card.capacity_bytes:
        raise ConfigError(
            f"{given}: {card.title} has {format_bytes(card.capacity_bytes)}; lower it, or name another gpu"
        )


def budget_bytes_of(budget: str | int | None, card: Card | None = None, *, name: str = "budget") -> int | None:
    """Return a size in bytes, or None where none is given.

    Args:
        budget: the size, as people write it or in bytes.
        card: that it is to be had of, if one was asked for.
        name: what the size is called where it was given.

    Raises:
        ConfigError: it is not a size above 0, or more than the card has.
    """
    try:
        num_bytes = parse_bytes(budget) if isinstance(budget, str) else budget
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if num_bytes is None:
        return None
    if not isinstance(num_bytes, int) or isinstance(num_bytes, bool) or num_bytes <= 0:
        raise ConfigError(f"{name} {budget}: not a size (allowed: more than 0, such as '14.4 GiB')")
    if card is not None:
        check_budget(card, num_bytes, f"{name} {budget if isinstance(budget, str) else format_bytes(num_bytes)}")
    return num_bytes
