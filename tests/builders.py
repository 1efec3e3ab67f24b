"""Logs as a run writes them, built from few parameters; sizes follow the measured stock recipe (Llama-3.1-8B, NF4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, MIB, parse_bytes
from memory_harness.harness.log.records import (
    BatchShape,
    EndRecord,
    EvalRecord,
    MemoryStats,
    ModelFacts,
    OomRecord,
    Outcome,
    Phase,
    PhaseBegin,
    PhaseRecord,
    Record,
    RunRecord,
    StepRecord,
)
from memory_harness.harness.log.runlog import RunLog, collect

LLAMA_8B = ModelFacts(
    name="llama-3.1-8b",
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    num_parameters=8_030_261_248,
    num_trainable_parameters=6_815_744,
    weights="none",
    num_quantised_parameters=6_979_321_856,
    num_adapter_parameters=6_815_744,
)

AS_PUBLISHED = RunConfig().with_fields(
    max_length=2048,
    samples=40,
    batching="padded",
    kbit_upcast=True,
    gradient_accumulation=2,
    eval_batch_size=8,
    device="simulated",
)
"""The failing recipe, with 16 steps an epoch."""

T4_BUDGET = parse_bytes("14.40 GiB")
AFTER_LOAD, AFTER_LORA, FLOOR = int(5.3145 * GIB), int(7.2974 * GIB), int(7.4107 * GIB)
BASE_PEAK, PEAK_PER_TOKEN = 8.392 * GIB, 4.457 * GIB / 2048
RESERVED_OVER_PEAK = int(0.79 * GIB)


@dataclass(frozen=True)
class Failure:
    """Where an allocation fails, and of what size; the rest is what the moment implies unless given."""

    phase: Phase
    step: int
    requested_bytes: int | None = None
    """float32 logits of the failing batch when not given"""
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None


def logits_bytes(batch: BatchShape, bytes_per_element: int = 4) -> int:
    return batch.padded_tokens * LLAMA_8B.vocab_size * bytes_per_element


def train_peak(tokens: int) -> int:
    """Measured peak at batch 1, less the 16-bit logits that a loop drops before backward."""
    return int(BASE_PEAK + PEAK_PER_TOKEN * tokens) - tokens * LLAMA_8B.vocab_size * 2


def make_log(
    config: RunConfig = AS_PUBLISHED,
    *,
    lengths: Sequence[int] = (300,),
    failure: Failure | None = None,
    budget_bytes: int = T4_BUDGET,
    leak_per_step: int = 0,
    warm_up_growth: int = 55 * MIB,
    cached_bytes: int = RESERVED_OVER_PEAK,
    retries: int = 0,
    outcome: Outcome = Outcome.COMPLETED,
) -> RunLog:
    """Return the log of a run; `lengths` are the samples' real lengths in order, repeated until there are enough."""
    run = _run_record(config, budget_bytes)
    records = _records(run, config, lengths, leak_per_step, warm_up_growth, cached_bytes, retries)
    return collect(_until(records, failure, config, run, outcome))


def as_published_oom(samples: int = 40, **changes: object) -> RunLog:
    """The published failure: the evaluation after the first of two epochs asks for float32 logits of 8 sequences."""
    config = AS_PUBLISHED.with_fields(samples=samples, **changes)
    return make_log(config, failure=Failure(Phase.EVAL, _steps_per_epoch(config)))


def _steps_per_epoch(config: RunConfig) -> int:
    num_train = round((config.data.samples or 0) * (1 - config.data.eval_fraction))
    return -(-num_train // (config.train.train_batch_size * config.train.gradient_accumulation))


def _run_record(config: RunConfig, budget_bytes: int) -> RunRecord:
    samples = config.data.samples or 0
    num_train = round(samples * (1 - config.data.eval_fraction))
    return RunRecord(
        source="simulated",
        config=config.to_dict(),
        fingerprint=config.fingerprint(),
        gpu_name="Tesla T4",
        budget_bytes=budget_bytes,
        total_steps=_steps_per_epoch(config) * config.train.epochs,
        steps_per_epoch=_steps_per_epoch(config),
        num_train_samples=num_train,
        num_eval_samples=samples - num_train,
        corpus="synthetic",
        environment={"torch": "2.13.0", "transformers": "5.23.0"},
        started_at="2026-01-01T00:00:00+00:00",
        model=LLAMA_8B,
    )


def _batch(lengths: Iterable[int], config: RunConfig) -> BatchShape:
    lengths = tuple(min(length, config.data.max_length) for length in lengths)
    longest = -(-max(lengths) // config.data.pad_to_multiple_of) * config.data.pad_to_multiple_of
    padded = config.data.max_length if config.data.batching == "padded" else min(longest, config.data.max_length)
    return BatchShape(len(lengths), padded, lengths, target_tokens=sum(lengths) // 2)


def _records(
    run: RunRecord, config: RunConfig, lengths: Sequence[int], leak: int, warm_up: int, cached: int, retries: int
) -> Iterator[PhaseBegin | PhaseRecord | StepRecord | EvalRecord]:
    def phase(phase: Phase, step: int, peak: int, batch: BatchShape | None = None, index: int = 0) -> Iterator[Record]:
        floor = AFTER_LORA if step == 0 else FLOOR
        reserved = min(peak + cached, run.budget_bytes)
        stats = MemoryStats(floor, reserved, floor, 0, peak, max(reserved, peak), retries if step > 2 else 0, 0)
        epoch = max(0, step - 1) // run.steps_per_epoch + 1
        yield PhaseBegin(phase, step, index, epoch)
        before = 0 if phase is Phase.LOAD else floor
        yield PhaseRecord(phase, step, index, epoch, 0.4, before, reserved, stats, index, batch)

    yield from phase(Phase.LOAD, 0, AFTER_LORA)
    yield from phase(Phase.DATA, 0, AFTER_LORA)
    size, drawn = config.train.train_batch_size, 0
    for step in range(1, run.total_steps + 1):
        floor = FLOOR - warm_up + (warm_up if step > 1 else 0) + leak * step
        batches = []
        for micro in range(config.train.gradient_accumulation):
            batch = _batch((lengths[(drawn + i) % len(lengths)] for i in range(size)), config)
            drawn += size
            batches.append(batch)
            yield from phase(Phase.FORWARD, step, train_peak(batch.padded_tokens) - GIB // 2, batch, micro)
            yield from phase(Phase.BACKWARD, step, train_peak(batch.padded_tokens), batch, micro)
        yield from phase(Phase.OPTIMIZER, step, FLOOR + 64 * MIB)
        seen = tuple(length for b in batches for length in b.lengths)
        computed = sum(b.padded_tokens for b in batches)
        epoch = (step - 1) // run.steps_per_epoch + 1
        yield StepRecord(
            step, epoch, len(batches), seen, 1 - sum(seen) / computed, sum(seen) // 2, None, 2e-4, 1.0, floor,
            min(FLOOR + cached, run.budget_bytes), retries if step > 2 else 0, GIB,
        )  # fmt: skip
        if step % run.steps_per_epoch == 0:
            yield from _boundary(phase, config, step, epoch)


def _boundary(phase, config: RunConfig, step: int, epoch: int) -> Iterator[Record]:  # type: ignore[no-untyped-def]
    batch = _batch([config.data.max_length] * config.eval.eval_batch_size, config)
    for index in range(2):
        peak = FLOOR + logits_bytes(batch, 2) + 2 * logits_bytes(batch) + int(0.5 * GIB)
        yield from phase(Phase.EVAL, step, peak, batch, index)
    yield EvalRecord(step, epoch, 2, 2 * batch.target_tokens, None)
    yield from phase(Phase.CHECKPOINT, step, FLOOR)


def _until(
    records: Iterable[Record], failure: Failure | None, config: RunConfig, run: RunRecord, outcome: Outcome
) -> Iterator[Record]:
    """Yield the records up to the failure; without one, all."""
    yield run
    begin = None
    for record in records:
        if isinstance(record, PhaseBegin):
            begin = record
        if failure and isinstance(record, PhaseRecord) and (record.phase, record.step) == (failure.phase, failure.step):
            assert begin is not None
            yield _oom(failure, record, run)
            yield EndRecord(Outcome.OOM, record.step, 30.0, "out of memory")
            return
        yield record
    yield EndRecord(outcome, run.total_steps, 60.0)


def _oom(failure: Failure, record: PhaseRecord, run: RunRecord) -> OomRecord:
    batch = record.batch
    requested = failure.requested_bytes
    if requested is None:
        assert batch is not None
        requested = logits_bytes(batch)
    held = logits_bytes(batch, 2) if batch and failure.phase is Phase.EVAL else 0
    allocated = failure.allocated_bytes if failure.allocated_bytes is not None else FLOOR + GIB + held
    reserved = failure.reserved_bytes if failure.reserved_bytes is not None else min(allocated + GIB, run.budget_bytes)
    return OomRecord(
        record.phase, record.step, record.micro_step, record.epoch, requested, allocated, reserved, run.budget_bytes,
        largest_free_block_bytes=(reserved - allocated) // 2, num_alloc_retries=1, batch=batch,
        where="transformers/loss/loss_utils.py:54",
        frames=("transformers/loss/loss_utils.py:54 ForCausalLMLoss", "harness/evaluate.py:40 evaluate"),
        index=record.index,
    )  # fmt: skip


def with_oom(log: RunLog, **changes: object) -> RunLog:
    """Return the log with fields of its fatal out-of-memory changed."""
    oom = replace(log.ooms[-1], **changes)  # type: ignore[arg-type]
    return replace(log, ooms=[*log.ooms[:-1], oom])
