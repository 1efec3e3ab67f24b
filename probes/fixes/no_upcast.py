"""Leave embeddings, output head and norms in 16 bits."""

from memory_harness.probes.findings import Fix, set_fields

NO_UPCAST = Fix(
    name="no-upcast",
    title="leave embeddings and output head in 16 bits",
    addresses=("kbit-upcast",),
    equivalence="numerical",
    change=set_fields({"kbit_upcast": False}),
    slowdown=0.98,
    cost="nothing: products with the head need no cast",
)
