"""The input embeddings in host memory: the rows that a batch needs are copied to the device, the table never is.

A frozen table is only read, and by a row per token: 16 MiB of Llama-3.1's 0.98 GiB for 2048 tokens.

Shapes: B sequences of L tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from memory_harness.harness.devices.base import Device


class HostEmbedding(torch.nn.Module):
    """Takes the place of a model's input embeddings.

    Args:
        weight_VH: the table, on the device; copied to the host.
        device: where the rows go.
        dtype: of the rows on the device.
    """

    def __init__(self, weight_VH: torch.Tensor, device: Device, dtype: torch.dtype) -> None:
        super().__init__()
        self._device = device
        self._dtype = dtype
        with device.on_host():
            # no parameter and no buffer: nothing is to cast it, count it as the device's or move it back
            self.weight = weight_VH.to("cpu", copy=True) if device.computes else torch.empty_like(weight_VH)

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        """Return the rows (B, L, H) of int64 ids; waits for the device, which has the ids."""
        with self._device.on_host():
            if self._device.computes:
                ids_BL = ids_BL.cpu()
            rows_BLH = functional.embedding(ids_BL, self.weight)
        return self._device.put(rows_BLH).to(self._dtype)


def num_host_weights(model: Any) -> int:
    """Return how many weights the model keeps on the host."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, HostEmbedding))
