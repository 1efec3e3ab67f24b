"""Leave embeddings, output head and norms in 16 bits."""

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    return config.with_fields(kbit_upcast=False) if config.model.kbit_upcast else None


NO_UPCAST = Fix(
    name="no-upcast",
    title="leave embeddings and output head in 16 bits",
    addresses=("kbit-upcast",),
    equivalence="numerical",
    apply=_apply,
    slowdown=0.98,
    cost="nothing: products with the head need no cast",
)
