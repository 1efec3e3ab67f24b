"""Keep the input embeddings in host memory."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.probes.findings import Fix


def _apply(config: RunConfig) -> RunConfig | None:
    # a tied table is the output head too, which the device needs whole
    if config.model.embeddings_on_host or find_model(config.model.model).tie_word_embeddings is not False:
        return None
    return config.with_fields(embeddings_on_host=True)


EMBEDDINGS_ON_HOST = Fix(
    name="embeddings-on-host",
    title="keep the input embeddings in host memory",
    addresses=("longest-sample",),
    equivalence="exact",
    change=_apply,
    slowdown=1.04,
    cost="host memory; the device is waited for once per batch",
)
