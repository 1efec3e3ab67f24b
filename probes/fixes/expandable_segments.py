"""Let the allocator grow its segments page by page, so that free memory is never stuck in a segment too small."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return None if config.device.expandable_segments else config.with_fields(expandable_segments=True)


EXPANDABLE_SEGMENTS = Fix(
    name="expandable-segments",
    title="let the allocator's segments grow page by page",
    addresses=("fragmentation",),
    equivalence="exact",
    apply=_apply,
    slowdown=1.0,
    cost="nothing that is known of; needs Linux",
)
