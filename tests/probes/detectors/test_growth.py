"""The arithmetic of growth: slopes, what lasts, the peak model; and how soon and how small a leak is found."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.units import GIB, KIB, MIB
from memory_harness.harness.log.records import BatchShape, MemoryStats, Phase, PhaseRecord, ProbeRecord, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.evidence import StepGrowth
from memory_harness.probes.detectors.floor import keeps_growing
from memory_harness.probes.detectors.kept import ends_within
from memory_harness.probes.detectors.peaks import fit_peaks, length_limit, share_beyond
from memory_harness.probes.detectors.reading import line_of
from memory_harness.probes.detectors.trends import robust_slope
from memory_harness.probes.findings import UNEXPLAINED_GROWTH
from tests.bench.leak_latency import RECIPE, cut_after, found_at, simulated_records, with_leak
from tests.builders import make_log


def steps(floors):
    return [StepGrowth(i, 1, floor, 0, 1, 64, 0, False, False, ()) for i, floor in enumerate(floors, 1)]


@settings(deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(0, 10**9), st.integers(4, 60))
def test_the_slope_of_a_line_is_its_slope(slope, start, num):
    found = robust_slope([start + slope * i for i in range(num)])
    assert found.low == found.middle == found.high == slope


@settings(deadline=None)
@given(st.integers(0, 29))
def test_one_outlier_does_not_move_the_slope(where):
    values = [MIB * i for i in range(30)]
    values[where] += 500 * MIB
    assert robust_slope(values).middle == pytest.approx(MIB, rel=0.01)


def test_a_line_keeps_growing():
    assert keeps_growing(steps([MIB * i for i in range(20)]))


@pytest.mark.parametrize(
    "floors",
    [
        [0] * 20,
        [min(i, 8) * MIB for i in range(20)],
        [(i % 4) * MIB for i in range(20)],
        [0] * 7 + [50 * MIB] * 13,
        [0] * 28 + [MIB, 2 * MIB] + [3 * MIB] * 14,
        [min(i, 14) * MIB for i in range(26)] + [13 * MIB + i * 16 * KIB for i in range(14)],
        [i * 512 for i in range(20)],
        [MIB * i for i in range(5)],
    ],
    ids=[
        "flat",
        "a buffer that fills",
        "a window that is emptied",
        "one jump",
        "a history that fills late",
        "a cache that is full of other things",
        "kept scalars",
        "too short",
    ],
)
def test_what_does_not_last_is_no_growth(floors):
    assert not keeps_growing(steps(floors))


@pytest.fixture(scope="module")
def recipe_records():
    return simulated_records(RECIPE.with_fields(model="llama-3.2-1b", samples=80))


@pytest.fixture(scope="module")
def short_records():
    short = {"max_length": 256, "samples": 48, "gradient_accumulation": 2}
    return simulated_records(RECIPE.with_fields(model="llama-3.2-1b", **short))


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 5])
def test_a_leak_of_1_mib_is_found_within_50_steps_despite_varying_lengths(recipe_records, every):
    log = collect(with_leak(recipe_records, MIB, lambda step, micro: step // every))
    assert len({p.batch.padded_length for p in log.phases if p.batch}) >= 6
    assert found_at(log) <= 20


def test_growth_that_fits_no_cause_is_unexplained(short_records):
    log = cut_after(collect(with_leak(short_records, MIB, lambda step, micro: step)), 20)
    (finding,) = [f for f in detect(log) if f.cause == UNEXPLAINED_GROWTH]
    assert finding.evidence["bytes_per_step"] == MIB
    assert finding.where is None


def test_scalars_kept_in_every_step_are_never_found(short_records):
    assert found_at(collect(with_leak(short_records, 2 * KIB, lambda step, micro: step))) is None


EXCEPTION = "exception-holds-frames"


def survivor(holder, **changes):
    values = {"step": 9, "phase": Phase.FORWARD, "site": "transformers/models/llama/modeling_llama.py:468 forward"}
    values |= {"bytes_per_step": MIB, "num_tensors": 3, "has_grad_fn": False, "shape": (1, 8), "dtype": "float16"}
    return SurvivorRecord(**(values | {"holder": holder} | changes))


@pytest.mark.parametrize(
    ("holder", "changes", "cause"),
    [
        ("variable `total` of the closure step(): list of 9 (train.py:31)", {"has_grad_fn": True}, "retained-graph"),
        ("variable `kept` of the hook keep(): list of 9 (train.py:31)", {}, "hook-holds-activations"),
        ("global `bad` of t: list of 9, KeyError, traceback, local `x` of f() (train.py:31)", {}, EXCEPTION),
        ("global `bad` of t: list of 9, KeyError (train.py:31)", {"has_grad_fn": True}, "retained-graph"),
        ("attribute `seen` of the metric TopK: list of 9 (train.py:31)", {}, "metric-never-reset"),
        (
            "attribute `pasts` of Chat: list of 9, tuple of 2 (train.py:31)",
            {"shape": (1, 2, 4096, 64)},
            "kv-cache-held",
        ),
        ("attribute `pictures` of Log: list of 9 (train.py:31)", {"shape": (1, 2, 64, 64)}, UNEXPLAINED_GROWTH),
        ("attribute `previous` of _State (train.py:31)", {}, UNEXPLAINED_GROWTH),
    ],
)
def test_who_holds_what_survives_decides_between_causes(short_records, holder, changes, cause):
    log = cut_after(collect(with_leak(short_records, 2 * MIB, lambda step, micro: step)), 20)
    log.survivors.append(survivor(holder, bytes_per_step=2 * MIB, **changes))
    named = {"retained-graph", "hook-holds-activations", EXCEPTION, "metric-never-reset", "kv-cache-held"}
    growing = [f for f in detect(log) if f.cause in {*named, UNEXPLAINED_GROWTH}]
    assert [(f.cause, f.where) for f in growing] == [(cause, "train.py:31")]


def test_both_lines_of_what_is_kept_are_shown(short_records):
    log = cut_after(collect(with_leak(short_records, MIB, lambda step, micro: step)), 20)
    lines = {"site": "train.py:7 step", "made_by": "out = model(x)", "kept_by": "kept.append(out)"}
    log.survivors.append(survivor("global `kept` of t: list of 9 (train.py:31)", has_grad_fn=True, **lines))
    (finding,) = [f for f in detect(log) if f.cause == "retained-graph"]
    assert "made at train.py:7 step `out = model(x)`" in finding.explanation
    assert "kept by global `kept` of t: list of 9 (train.py:31) `kept.append(out)`" in finding.explanation


def test_what_the_collector_frees_is_a_cycle(short_records):
    log = cut_after(collect(with_leak(short_records, MIB, lambda step, micro: step)), 20)
    log.probes.append(ProbeRecord("gc", 20, 40 * MIB, 20 * MIB, 64 * MIB, 64 * MIB))
    assert "reference-cycle" in {f.cause for f in detect(log)}


def test_the_users_line_goes_before_a_librarys():
    assert line_of(
        survivor("variable `fn` of recompute_fn() (torch/utils/checkpoint.py:1657)", site="train.py:7 step")
    ) == ("train.py:7")
    assert line_of(survivor("")) == "transformers/models/llama/modeling_llama.py:468"
    assert line_of(None) is None


def peak(length, rise):
    batch = BatchShape(1, length, (length,), length)
    return PhaseRecord(
        Phase.BACKWARD, 3, 0, 1, 0.1, 10**6, 10**6, MemoryStats(peak_allocated_bytes=10**6 + rise), batch=batch
    )


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(10**3, 10**6), st.integers(0, 200))
def test_the_peak_model_finds_what_a_token_and_a_pair_of_tokens_cost(constant, per_token, per_pair):
    lengths = (128, 300, 512, 777, 1024)
    fitted = fit_peaks([peak(n, constant + per_token * n + per_pair * n * n) for n in lengths], quadratic=True)
    assert fitted.per_token_bytes == pytest.approx(per_token, rel=1e-3, abs=1)
    assert fitted.per_pair_bytes == pytest.approx(per_pair, abs=0.01)
    room = int(fitted.rise_of(1, 600)) + 1
    assert abs(fitted.longest_within(room, 1, 2048) - 600) <= 1


def test_lengths_too_near_or_too_few_have_no_peak_model():
    assert fit_peaks([peak(n, n) for n in (100, 110, 120, 130)], quadratic=True) is None
    assert fit_peaks([peak(n, n) for n in (100, 1000)], quadratic=False) is None


def test_the_share_of_a_corpus_beyond_a_length():
    assert share_beyond([100, 200, 300, 400], 250) == 0.5


def with_peaks(log, lengths, rise_of):
    """Return the log with these training batches, one a step: memory rises in forward, and higher in backward."""
    floor, phases = GIB, []
    for step, length in enumerate(lengths, 2):
        batch, middle = BatchShape(1, length, (length,), length), floor + rise_of(length) // 2
        for phase, before, top in (
            (Phase.FORWARD, floor, middle),
            (Phase.BACKWARD, middle, floor + rise_of(length)),
        ):
            stats = MemoryStats(peak_allocated_bytes=top)
            phases.append(PhaseRecord(phase, step, 0, 1, 0.1, before, before, stats, batch=batch))
    return replace(log, phases=phases, ooms=[])


def test_the_length_at_which_the_budget_is_reached_is_found_beyond_those_seen():
    log = with_peaks(make_log(), (128, 256, 512, 1024, 2048), lambda length: MIB + length * 4 * MIB)
    room = log.run.budget_bytes - GIB - MIB
    limit = length_limit(log)
    assert limit.longest == pytest.approx(room // (4 * MIB), abs=1)
    assert (limit.batch_size, limit.num_samples, limit.share_beyond) == (1, 5, 0.0)
    small = replace(log, run=replace(log.run, budget_bytes=GIB + MIB + 4 * MIB * 600 + 2 * MIB))
    assert (length_limit(small).longest, length_limit(small).share_beyond) == (600, 0.4)


def test_peaks_that_do_not_follow_the_length_have_no_limit():
    assert length_limit(with_peaks(make_log(), (128, 256, 512, 1024), lambda n: 700 * MIB if n == 256 else MIB)) is None
    assert length_limit(with_peaks(make_log(), (512,) * 8, lambda length: length * MIB)) is None


def test_a_log_without_steps_has_no_growth(short_records):
    log = collect(short_records)
    assert detect(replace(log, steps=[], phases=[], end=None)) == []
    assert isinstance(log, RunLog)


def host_leaks(log, field, resident_bytes):
    steps = [replace(step, **{field: resident_bytes(step.step)}) for step in log.steps]
    return [f.title for f in detect(replace(log, steps=steps)) if f.cause == "host-leak"]


@pytest.mark.parametrize("field", ["host_rss_bytes", "workers_rss_bytes"])
def test_a_process_that_grows_with_every_step_is_found(short_records, field):
    log = cut_after(collect(short_records), 24)
    assert "2.00 MiB a step" in host_leaks(log, field, lambda step: GIB + 2 * MIB * step)[0]


@pytest.mark.parametrize("field", ["host_rss_bytes", "workers_rss_bytes"])
def test_a_process_that_grows_once_is_not(short_records, field):
    log = cut_after(collect(short_records), 24)
    assert host_leaks(log, field, lambda step: GIB + 40 * MIB * (step > 14)) == []
    assert host_leaks(log, field, lambda step: GIB + 4 * MIB * min(step, 14)) == []


@pytest.mark.parametrize(("limit", "room", "ends"), [(50, MIB, True), (5000, MIB, False), (None, MIB, False)])
def test_a_limit_that_fits_ends_growth(limit, room, ends):
    most = f", at most {limit}" if limit else ""
    held = SurvivorRecord(
        9, Phase.EVAL, "", f"`log`: deque of 8{most} (mine.py:7)", 512, 8, shape=(128,), dtype="float32"
    )
    assert ends_within(held, room) is ends
    assert not ends_within(replace(held, has_grad_fn=True), room)
