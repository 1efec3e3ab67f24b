"""Let the allocator grow its segments page by page, so that free memory is never stuck in a segment too small."""

from memory_harness.probes.findings import Fix, set_fields

EXPANDABLE_SEGMENTS = Fix(
    name="expandable-segments",
    title="let the allocator's segments grow page by page",
    addresses=("fragmentation",),
    equivalence="exact",
    change=set_fields({"expandable_segments": True}),
    slowdown=1.0,
    cost="nothing that is known of; needs Linux",
)
