"""Probe results that the report tests share."""

from __future__ import annotations

from dataclasses import replace

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import AgreementRecord, MemoryStats, Outcome, PeakRecord, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import FixResult, OtherCount
from memory_harness.probes.plan.choose import Limits, Option, Plan, Prediction
from memory_harness.reports.summary import NextStep, ProbeResult
from tests.builders import AS_PUBLISHED, as_published_oom, make_log

FITS = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))

EVAL_BATCH_FIX = FixResult(
    name="eval-batch",
    title="evaluate as many sequences at once as training does",
    addresses=("eval-batch-logits",),
    equivalence="exact",
    verified=True,
    before_peak_bytes=21_637_000_000,
    after_peak_bytes=FITS.peak_allocated_bytes,
    applied=True,
)

COMMAND = "python run_probe.py --max-length 2048 --samples 4000 --eval-batch-size 1 --output runs/fixed --train"


def fixed_result(samples: int = 40) -> ProbeResult:
    """The published failure, cured by one fix."""
    log = as_published_oom(samples)
    fixed = make_log(AS_PUBLISHED.with_fields(samples=samples, eval_batch_size=1))
    others = [OtherCount(n, n // 5 * 2, n // 5 * 4, Outcome.OOM) for n in (600, 2000, 4000)]
    return ProbeResult(
        log,
        detect(log),
        "pass_with_fixes",
        with_fixes=fixed,
        fixes=[EVAL_BATCH_FIX],
        other_counts=others,
        next_step=NextStep("Train with what fits:", COMMAND),
        seconds=41.2,
    )


def planned_result() -> ProbeResult:
    """The same with a plan, limits and a comparison of losses."""
    needed, enough = Prediction(False, 21_637_000_000, 22_000_000_000), Prediction(True, 13 * GIB, 14 * GIB - 1)
    plan = Plan(
        goal="speed",
        budget_bytes=FITS.run.budget_bytes,
        headroom_bytes=GIB // 2,
        as_configured=needed,
        chosen=Option(("eval-batch",), enough, 1.0),
        reasons={"eval-batch": "without it the run would not fit: it saves 7 GiB of what is allocated"},
        alternatives=(Option(("chunked-loss",), enough, 1.02), Option(("no-upcast",), needed, 0.98)),
    )
    agreement = AgreementRecord("eval-batch", "numerical", True, False, 3.5e-8, 1e-3)
    fix = replace(EVAL_BATCH_FIX, agreement=agreement, reason=plan.reasons["eval-batch"])
    return replace(fixed_result(), fixes=[fix], plan=plan, limits=Limits(1, 2304, 3072, 64))


def unfixed_result() -> ProbeResult:
    """The published failure with one fix that did not help."""
    log = as_published_oom()
    tried = replace(EVAL_BATCH_FIX, verified=False, applied=False, note="the same request fails again")
    return ProbeResult(log, detect(log), "fail", fixes=[tried])


def with_peaks(log: RunLog = FITS) -> RunLog:
    """Return a log that tells what the peaks of two phases were made of."""
    kinds = {"weights": 5 * GIB, "adapters": GIB // 8, "activations": 2 * GIB, "logits": GIB, "made in EVAL": MIB}
    layers = {f"layers.{number}": {"weights": GIB // 32, "adapters": MIB} for number in range(12)}
    model = "transformers/models/llama/modeling_llama.py"
    stacks = {
        "weights;model.layers.*.mlp.up_proj.weight": 5 * GIB,
        f"activations;a/train.py:12 main;{model}:300 forward": 2 * GIB,
        f"logits;a/train.py:12 main;{model}:468 forward": GIB,
        "other calls": GIB // 8 + MIB,
    }
    total = sum(kinds.values())
    peaks = [
        PeakRecord(Phase.FORWARD, 1, total - GIB, total, {**kinds, "logits": 0}, layers, stacks),
        PeakRecord(Phase.BACKWARD, 2, total, total + GIB // 2, kinds, layers, stacks),
        PeakRecord(Phase.FORWARD, 2, total - GIB // 2, total, {**kinds, "logits": GIB // 2}, {}, stacks),
    ]
    return replace(log, peaks_seen=peaks)


def small_log() -> RunLog:
    """Return a run of 1/100000 of the size of the card that it is shown against."""
    phases = []
    for record in FITS.phases:
        small = {name: value // 100_000 for name, value in vars(record.after).items()}
        phases.append(replace(record, after=MemoryStats(**small)))
    return replace(FITS, phases=phases)
