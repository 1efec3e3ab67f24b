"""How long what is traced would take on a card: arithmetic and bytes moved, kernel by kernel, and the host's launches.

A kernel takes as long as its arithmetic or its traffic, whichever is longer. What a fused kernel does within, which
the simulation runs unrecorded, moves nothing but its results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from memory_harness.configs.cards import Speeds

aten = torch.ops.aten
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1, aten.addmm_: 1}
"""products of matrices, and which argument is the first factor"""
FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 5
"""of queries, keys and values in a fused attention kernel, which computes the scores again on its way back"""
DEQUANTISED_TRAFFIC = 4
"""bytes for each weight of a 4-bit product whose weight is written out in 16 bits, and read again"""


class WorkMeter:
    """Adds up the seconds of what a tracer passes on to it.

    Args:
        speeds: of the card and its host.
    """

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self.device_seconds = 0.0
        """that the card's kernels take one after the other"""
        self.host_seconds = 0.0
        """that the host takes to launch them"""

    def empty(self) -> WorkMeter:
        """Return another one with the same speeds."""
        return WorkMeter(self._speeds)

    def add(self, other: WorkMeter) -> None:
        """Take that all that another one has added up runs again."""
        self.device_seconds += other.device_seconds
        self.host_seconds += other.host_seconds

    def operator(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Take that an operator has run."""
        self.host_seconds += self._speeds.operator_seconds
        if _runs_kernel(func):
            packet = func._overloadpacket
            seconds = self._traffic(_num_bytes((args, out)))
            if packet in PRODUCTS:
                seconds = max(seconds, self._products(_product_flops(packet, args), args[PRODUCTS[packet]]))
            elif func._schema.name == "bitsandbytes::gemm_4bit":
                rows, weights = args[0].numel() // args[2][-1], math.prod(args[2])
                traffic = self._traffic(DEQUANTISED_TRAFFIC * weights)
                seconds = traffic + max(seconds, self._products(2 * rows * weights, args[0]))
            self.device_seconds += seconds

    def fused(self, func: Any, args: tuple[Any, ...]) -> None:
        """Take that an operator has run within a fused kernel, which ends with copies to what it gives back."""
        if func is aten.copy_.default:
            self.device_seconds += self._traffic(_num_bytes(args))
            self.host_seconds += self._speeds.operator_seconds

    def attention(self, query: torch.Tensor, num_pairs: float, num_products: int) -> None:
        """Take that a fused attention kernel has run.

        Args:
            query: its queries, the head's dimension last.
            num_pairs: of queries and keys, over all heads.
            num_products: `FORWARD_PRODUCTS` or `BACKWARD_PRODUCTS`.
        """
        self.device_seconds += self._products(2 * num_pairs * query.size(-1) * num_products, query)
        self.host_seconds += self._speeds.operator_seconds

    def _products(self, flops: float, factor: torch.Tensor) -> float:
        return flops / (self._speeds.float32_flops if factor.itemsize > 2 else self._speeds.half_flops)

    def _traffic(self, num_bytes: int) -> float:
        return num_bytes / self._speeds.bytes_per_second


def _product_flops(packet: Any, args: tuple[Any, ...]) -> int:
    first = PRODUCTS[packet]
    left, right = args[first], args[first + 1]
    known: int = flop_registry[aten.bmm if left.dim() > 2 else aten.mm](left, right)
    return known


def _runs_kernel(func: Any) -> bool:
    """Return whether an operator does more than to look at memory in another way, or to make room."""
    schema = func._schema
    if schema.name.startswith(("aten::empty", "aten::new_empty", "aten::detach", "aten::lift_fresh")):
        return False
    aliases = [value.alias_info for value in schema.returns]
    return any(alias is None or alias.is_write for alias in aliases)


def _num_bytes(values: Any) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in _tensors(values))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
