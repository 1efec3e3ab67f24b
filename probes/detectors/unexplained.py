"""The finding of last resort: an out-of-memory that no cause explains is reported as such, with its numbers."""

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import analyse_failure
from memory_harness.probes.detectors.reading import fatal_finding
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding


def unexplained_oom(log: RunLog) -> list[Finding]:
    """Return the run's out-of-memory without a cause, or nothing when it did not run out."""
    oom = log.fatal_oom
    if oom is None:
        return []
    return [
        fatal_finding(
            oom,
            cause=UNEXPLAINED_GROWTH,
            title=f"{format_bytes(oom.requested_bytes)} more does not fit, and no known cause explains it",
            explanation=f"Live tensors take {format_bytes(oom.allocated_bytes)}, the allocator holds "
            f"{format_bytes(oom.reserved_bytes)} of {format_bytes(oom.budget_bytes)}. {_what_is_known(log)}",
            num_bytes=oom.requested_bytes,
            evidence={
                "requested_bytes": oom.requested_bytes,
                "reserved_bytes": oom.reserved_bytes,
                "largest_free_block_bytes": oom.largest_free_block_bytes,
            },
        )
    ]


def _what_is_known(log: RunLog) -> str:
    """Return what the request may be for: its size alone does not tell why it no longer fits."""
    failure = analyse_failure(log)
    if failure is None or not failure.products:
        return "Neither the size of the request nor the course of the run matches a cause that this harness can prove."
    product = failure.products[0]
    return (
        f"The request is as large as {product.what}: {product} ({product.legend}). Why they do not fit, the course of "
        "the run does not prove."
    )
