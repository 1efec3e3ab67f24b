"""Where a loop that is not ours runs, and what it may take there: the values, checked."""

from __future__ import annotations

from configs.cards import load_cards
from configs.errors import ConfigError
from configs.tables import unknown_name
from configs.units import parse_bytes

DEVICES = ("auto", "cuda", "simulated")
DEFAULT_CARD = "t4"


def check_device(device: str, gpu: str | None) -> None:
    """Raise ConfigError where there is no such device or card."""
    if device not in DEVICES:
        raise ConfigError(unknown_name("device", str(device), DEVICES))
    if gpu is not None and gpu not in load_cards():
        raise ConfigError(unknown_name("gpu", str(gpu), load_cards()))


def budget_bytes_of(budget: str | int | None) -> int | None:
    """Return a size in bytes, or None where none is given. Raises ConfigError where it is no size above 0."""
    try:
        num_bytes = parse_bytes(budget) if isinstance(budget, str) else budget
    except ValueError as error:
        raise ConfigError(f"budget: {error}") from None
    if num_bytes is not None and (not isinstance(num_bytes, int) or num_bytes <= 0):
        raise ConfigError(f"budget {budget}: not a size (allowed: more than 0, such as '14.4 GiB')")
    return num_bytes
