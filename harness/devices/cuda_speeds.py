"""How fast the GPU of this process is, by a measurement that takes a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from memory_harness.configs.cards import Speeds

SIDE, NUM_BYTES, TIMES, LAUNCHES = 4096, 2**28, 10, 2000
"""of the matrices; of what is copied; how often; and how often something small is launched"""
SHARE_OF_MEASURED_FLOPS, SHARE_OF_MEASURED_BANDWIDTH, LAUNCHES_AN_OPERATOR = 0.68, 0.82, 2.1
"""of what is measured here that a training step reaches, and how much longer than a launch an operator keeps the host:
fitted as in `configs.cards`"""


def measured_speeds() -> Speeds:
    """Return what a training step reaches on this GPU and its host; it needs 768 MiB for that time."""
    half, single, copied, launched = raw_speeds()
    return Speeds(
        half * SHARE_OF_MEASURED_FLOPS,
        single * SHARE_OF_MEASURED_FLOPS,
        copied * SHARE_OF_MEASURED_BANDWIDTH,
        launched * LAUNCHES_AN_OPERATOR,
    )


def raw_speeds() -> tuple[float, float, float, float]:
    """Return operations a second in 16 and in 32 bits, bytes a second, seconds of a launch."""
    source = torch.ones(NUM_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    one = source[:1]
    copied = 2 * NUM_BYTES / _seconds(lambda: target.copy_(source), TIMES)
    launched = _seconds(lambda: one.add_(1), LAUNCHES)
    return _flops(torch.float16), _flops(torch.float32), copied, launched


def _flops(dtype: torch.dtype) -> float:
    left, right, out = (torch.ones(SIDE, SIDE, dtype=dtype, device="cuda") for _ in range(3))
    return 2 * SIDE**3 / _seconds(lambda: torch.mm(left, right, out=out), TIMES)


def _seconds(run: Callable[[], object], times: int) -> float:
    run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / times
