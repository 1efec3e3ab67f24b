"""Whether a fix changes the losses: the same tiny run with real tensors, without it and with it."""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import AgreementRecord, Record
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import open_run
from memory_harness.probes.fixes import BY_NAME
from memory_harness.probes.fixes.fewest_recomputed import FEWEST_RECOMPUTED, NOTHING_RECOMPUTED
from memory_harness.probes.fixes.step_graphs import STEP_GRAPHS
from memory_harness.probes.plan.verify import agreement_of, promises_nothing

WORST = load_preset("smoke_cpu").with_fields(
    samples=6,
    eval_fraction=1 / 3,
    epochs=1,
    max_length=64,
    train_batch_size=1,
    gradient_accumulation=2,
    eval_batch_size=2,
    generate_prompts=0,
    batching="dynamic",
    dtype="bfloat16",
    lora_rank=128,  # at less, the 8-bit optimizer keeps 32 bits
    learning_rate=1e-2,
    loss_chunk_tokens=16,
    mlp_chunk_tokens=16,
    kbit_upcast=True,
    hold_outputs=True,
    use_cache=True,
    attention="math",
)
"""two steps and an evaluation, with everything that a fix undoes; in 16 bits, where another order of sums shows"""

SHORT = WORST.with_fields(fast_path="torch", loss="chunked", recompute="none", gradient_accumulation=4)
"""the same where graphs can replay a step's batches"""


def compare_losses(name: str) -> AgreementRecord | None:
    """Return how the losses agree of the tiny run without the fix and with it; None where it changes nothing there.

    Of a fix that promises nothing about the losses, such as truncation, nothing is run.
    """
    torch.set_num_threads(1)  # tensors this small take longer to share out than to compute
    fix = BY_NAME[name]
    if fix.equivalence == "data":
        return promises_nothing(fix, on_recipe=False)
    worst = SHORT if fix is STEP_GRAPHS else WORST
    # rules are of another model, and most shows where nothing is computed again
    changed = (NOTHING_RECOMPUTED if fix is FEWEST_RECOMPUTED else fix).apply(worst)
    if changed is None:  # two runs of one configuration would agree, whatever the fix does
        return None
    agreement = agreement_of(fix, tiny_run(worst), tiny_run(changed), on_recipe=False)
    assert agreement is not None, "real tensors have losses"
    return agreement


@functools.cache
def tiny_run(config: RunConfig) -> RunLog:
    """Return the log of a run from the same weights and with the same random numbers as any other."""
    run = open_run(config, prepare(config))
    records: list[Record] = []
    assert isinstance(run.device, SimulatedDevice)
    run.device.looks_at_peaks = False  # only the losses are asked for
    with TemporaryDirectory() as folder:
        execute(run, records.append, Path(folder))
    return collect(records)
