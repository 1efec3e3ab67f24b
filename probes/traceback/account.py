"""Who held the card's memory when a request failed, and which of a message's numbers do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memory_harness.configs.units import GIB, MIB, TIB, format_bytes
from memory_harness.harness.log.traceback_text import OomMessage

CONTEXT_BYTES = int(1.25 * GIB)
"""Most that a process takes outside of PyTorch's allocator for the CUDA context and libraries' workspaces: public
traces of drivers before 525 show 0.88 to 1.06 GiB (configs/README.md)."""
SLACK_BYTES = 16 * MIB
"""Difference below which numbers of one message count as equal: each is rounded, and taken at a moment of its own."""
ROUNDING = 0.006
"""Share by which a size of at least 1 GiB, printed with two decimals, may be off."""
ABSURD_BYTES = 8 * TIB
"""More than any card or host holds: no tensor of a model, but a shape gone wrong."""


@dataclass(frozen=True)
class Account:
    """The card's memory by its holders; None where the message does not say."""

    outside_bytes: int | None
    """of this process outside of PyTorch's allocator, the CUDA context included"""
    others_bytes: int | None
    """of other processes"""
    unknown_bytes: int | None
    """of the two together, where the message does not tell them apart"""
    remarks: tuple[str, ...]
    """what does not add up, in sentences"""


def account_of(message: OomMessage) -> Account:
    """Return who held the memory that a message speaks of."""
    total, free, reserved = message.total_bytes, message.free_bytes, message.reserved_bytes
    own, listed = _own_and_others(message)
    outside = others = unknown = None
    if own is not None and reserved is not None:
        outside = max(0, own - reserved)
        others = listed
        if total is not None and free is not None and own == message.process_bytes:
            others = max(listed, total - free - own)
    elif listed:
        others = listed
    elif total is not None and free is not None and reserved is not None:
        unknown = max(0, total - free - reserved)
    return Account(outside, others, unknown, tuple(_remarks(message)))


def _own_and_others(message: OomMessage) -> tuple[int | None, int]:
    """Return what this process uses, and what the others that are listed do: a container hides which one it is."""
    reserved = message.reserved_bytes
    # the drivers of WSL and of some clouds say 2^64 or 0 where they do not know
    listed = [size for size in message.listed_processes if size <= (message.total_bytes or ABSURD_BYTES)]
    if reserved is None:
        return None, 0
    own_bytes = message.process_bytes
    if own_bytes is not None and reserved * (1 - ROUNDING) <= own_bytes < ABSURD_BYTES:
        return own_bytes, sum(listed)
    candidates = [size for size in listed if size >= reserved * (1 - ROUNDING)]
    own = min(candidates, default=None)
    return own, sum(listed) - (own or 0)


def _remarks(message: OomMessage) -> Iterator[str]:
    """Yield what does not add up."""
    total, free = message.total_bytes, message.free_bytes
    allocated, reserved = message.allocated_bytes, message.reserved_bytes
    yield from _size_remarks(message.requested_bytes, total)
    if total is not None and allocated is not None and allocated > total + SLACK_BYTES:
        yield (
            f"{format_bytes(allocated)} is allocated on a card of {format_bytes(total)}: the driver has moved memory "
            "to the host, as it does under Windows."
        )
    elif total is not None and free is not None and reserved is not None and free + reserved > total * (1 + ROUNDING):
        yield "What is free and what PyTorch holds are more than the card together: the numbers are of two moments."
    if message.unused_bytes is not None and message.unused_bytes < -SLACK_BYTES:
        yield "More is allocated than reserved, which cannot be."
    yield from _free_remarks(message)


def _size_remarks(requested: int | None, total: int | None) -> Iterator[str]:
    """Yield what is wrong with a request that no freeing of memory could serve."""
    if requested is None:
        return
    size = format_bytes(requested)
    if requested > ABSURD_BYTES:
        yield f"{size} is more than any card has: a shape has gone wrong, such as one that processes disagree on."
    elif total is not None and requested > total:
        yield f"The request is larger than the whole card, {format_bytes(total)}: only asking for less helps."


def _free_remarks(message: OomMessage) -> Iterator[str]:
    """Yield why there may have been room on the card and yet none for the request."""
    requested, free, allowed = message.requested_bytes, message.free_bytes, message.allowed_bytes
    if requested is None or free is None or free < requested:
        return
    sizes = f"{format_bytes(free)} was free, more than the {format_bytes(requested)} asked for"
    if allowed is not None:
        yield f"{sizes}: a limit of {format_bytes(allowed)} on this process stopped it, not the card."
        return
    yield (
        f"{sizes}: the card was not full when this was printed. A limit on the process, Windows' page file, or memory "
        "that another process gave back meanwhile can be behind it; the text does not say."
    )
