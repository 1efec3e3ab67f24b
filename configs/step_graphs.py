"""Which configurations can replay their micro-batches as CUDA graphs, and why others cannot."""

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import Recomputed, RunConfig


def takes_graphs(config: RunConfig) -> bool:
    """Return whether micro-batches are replayed as CUDA graphs."""
    return config.model.cuda_graphs != "none" and reason_against_graphs(config) is None


def forbids_graph(config: RunConfig, recomputed: Recomputed) -> bool:
    """Return whether a micro-batch of which so much is computed again reads the random state, or copies to the host."""
    layers, blocks = recomputed
    return layers > 0 or (blocks > 0 and (config.draws_in_mlp or config.model.offload_activations))


def reason_against_graphs(config: RunConfig) -> str | None:
    """Return why micro-batches cannot be captured; None where they can."""
    model, train = config.model, config.train
    reasons = {
        "--fast-path off reads values back in each pass (needed: torch, liger)": model.fast_path == "off",
        f"--loss {train.loss} reads values back in each pass (needed: chunked, liger)": train.loss == "full",
        f"--objective {train.objective} runs more than one pass a micro-batch (needed: sft)": train.objective != "sft",
        f"--num-gpus {config.device.num_gpus}: GPUs wait for each other within a step": config.device.num_gpus > 1,
        "--embeddings-on-host looks tokens up on the host": model.embeddings_on_host,
        f"--attention {model.attention} makes masks on the host": model.attention in ("eager", "flash_attention_2"),
        f"--model {model.model}: attention windows need masks": _has_windows(model.model),
        f"--model {model.model}: its rotary embedding reads lengths back": find_model(model.model).reading_rope
        is not None,
        "--batching packed: no two batches have samples of the same lengths": config.data.batching == "packed",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _has_windows(name: str) -> bool:
    values = find_model(name).values
    return bool(values.get("sliding_window")) and values.get("use_sliding_window", True)
