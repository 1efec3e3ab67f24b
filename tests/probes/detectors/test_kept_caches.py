"""Caches of keys and values that calls of a watched script leave, without a training step."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import KIB
from memory_harness.harness.log.records import (
    COLLECTED_BY_SCRIPT,
    COLLECTOR,
    GROWING_TENSOR,
    BatchShape,
    ForwardFacts,
    MemoryStats,
    Phase,
    PhaseRecord,
    ProbeRecord,
    SurvivorRecord,
)
from memory_harness.probes.detectors.evaluation import outputs_kept
from memory_harness.probes.detectors.evidence import gather
from memory_harness.probes.detectors.floor import freed_by_collector
from memory_harness.probes.detectors.kept import are_caches
from memory_harness.probes.detectors.saving import kv_cache_held
from tests.builders import make_log

SESSIONS = "attribute `sessions` of Server: dict with key 'a', DynamicCache.layers, DynamicLayer.keys (serve.py:7)"
ONE = f"{GROWING_TENSOR}: global `cache` of __main__: DynamicCache.layers, DynamicLayer.keys (serve.py:3)"
OF_FUNCTION = f"{GROWING_TENSOR}: local `cache` of read(): DynamicCache.layers, DynamicLayer.keys (serve.py:3)"


def calls_at(levels, length=16):
    """Return calls without gradients, before each of which so many KiB are allocated."""
    batch = BatchShape(1, length, (length,), length)
    stats = [MemoryStats(level * KIB, 0, level * KIB, 0, 0, 0) for level in levels]
    return [
        PhaseRecord(Phase.EVAL, 0, 0, 1, 0.0, before.allocated_bytes, 0, before, index=i, batch=batch)
        for i, before in enumerate(stats)
    ]


def found(levels, holder, length=16):
    log = make_log()
    survivor = SurvivorRecord(
        0, Phase.EVAL, "serve.py:5 answer", holder, 20 * KIB, 8, shape=(1, 4, 24, 32), unit=Phase.EVAL
    )
    script = replace(log.run, script="serve.py")
    log = replace(log, run=script, phases=calls_at(levels, length), survivors=[survivor], steps=[])
    finding = kv_cache_held(gather(log))
    return None if finding is None else (finding.cause, finding.severity, finding.where)


CLIMBING = [100 + 20 * i for i in range(40)]


def test_a_cache_for_each_session_is_found_with_its_line():
    assert found(CLIMBING, SESSIONS) == ("kv-cache-held", "error", "serve.py:7")


def test_one_cache_for_all_texts_is_found():
    assert found(CLIMBING, ONE) == ("kv-cache-held", "warning", "serve.py:3")


@pytest.mark.parametrize(
    ("levels", "holder", "length"),
    [
        ([min(level, 220) for level in CLIMBING], SESSIONS, 16),
        (CLIMBING, OF_FUNCTION, 16),
        (CLIMBING, ONE, 1),
        (CLIMBING, "global `embeddings` of __main__: list of 40 (serve.py:7)", 16),
    ],
    ids=["only the latest sessions", "of the function that reads a text", "token by token", "other tensors"],
)
def test_what_is_meant_to_be_there_is_no_leak(levels, holder, length):
    assert found(levels, holder, length) is None


def test_a_cache_that_goes_on_while_the_model_trains_is_that_of_no_text():
    log = make_log()
    cache = f"{GROWING_TENSOR}: attribute `past` of Attention: DynamicCache.layers, DynamicLayer.keys (serve.py:3)"
    survivor = SurvivorRecord(0, Phase.EVAL, "serve.py:5 f", cache, 20 * KIB, 8, shape=(1, 4, 24, 32), unit=Phase.EVAL)
    calls = [replace(call, step=number // 2) for number, call in enumerate(calls_at(CLIMBING, 1))]
    log = replace(log, run=replace(log.run, script="serve.py"), phases=calls, survivors=[survivor], steps=[])
    assert kv_cache_held(gather(log)).where == "serve.py:3"


@pytest.mark.parametrize(("name", "expected"), [(COLLECTOR, True), (COLLECTED_BY_SCRIPT, False)])
def test_garbage_that_the_script_collects_itself_is_no_leak(name, expected):
    probes = [ProbeRecord(name, step, 500 * KIB, 100 * KIB, 0, 0) for step in range(10, 60, 10)]
    assert bool(freed_by_collector(gather(replace(make_log(), probes=probes)))) is expected


OF_ATTENTION = f"{GROWING_TENSOR}: attribute `keys` of Attention (serve.py:7)"


@pytest.mark.parametrize(
    ("batch_size", "length", "per_step", "holder", "expected"),
    [
        (8, 1, 4 * KIB, OF_ATTENTION, True),
        (2, 1, 4 * KIB, OF_ATTENTION, False),
        (8, 1, 72 * KIB, OF_ATTENTION, False),
        (8, 1, 4 * KIB, "attribute `pictures` of Memory: list of 8 (serve.py:7)", False),
    ],
    ids=["token by token", "joined pictures", "joined channels", "a list"],
)
def test_a_cache_of_ones_own_grows_along_its_tokens(batch_size, length, per_step, holder, expected):
    batch = BatchShape(batch_size, length, (length,), length)
    log = replace(make_log(), phases=[replace(call, batch=batch) for call in calls_at(CLIMBING)])
    kept = SurvivorRecord(9, Phase.EVAL, "serve.py:5 f", holder, per_step, 1, shape=(8, 4, 144, 8), dtype="float32")
    assert are_caches(log, [kept, replace(kept, site="serve.py:6 f")]) is expected


def test_keys_and_values_as_large_as_the_logits_are_not_called_logits():
    output = ForwardFacts(False, 0, 0, logits_bytes=20 * KIB, output_bytes=40 * KIB)
    calls = [replace(call, forward=output, after=_higher(call.after, 20 * KIB)) for call in calls_at(CLIMBING)]
    shape = (1, 4, 24, 32)
    kept = SurvivorRecord(0, Phase.EVAL, "serve.py:5 answer", "", 20 * KIB, 8, shape=shape, unit=Phase.EVAL)
    log = make_log()
    log = replace(log, run=replace(log.run, script="serve.py"), phases=calls, steps=[])
    causes = {}
    for holder in ("global `kept` of __main__: list of 40 (serve.py:7)", SESSIONS):
        finding = outputs_kept(gather(replace(log, survivors=[replace(kept, holder=holder)])))
        causes[holder] = None if finding is None else finding.cause
    assert list(causes.values()) == ["logits-hoarded", None]


@pytest.mark.parametrize("lets_go", [True, False])
def test_what_is_let_go_before_the_next_batch_is_not_hoarded(lets_go):
    batch = BatchShape(1, 16, (16,), 16)
    output = ForwardFacts(False, 0, 0, logits_bytes=64 * KIB, output_bytes=64 * KIB)
    levels = [100 if lets_go else 100 + 64 * i for i in range(8)]
    calls = [replace(call, batch=batch, forward=output) for call in calls_at(levels)]
    calls = [replace(call, after=_higher(call.after, 64 * KIB)) for call in calls]
    log = make_log()
    log = replace(log, run=replace(log.run, script="serve.py"), phases=calls, steps=[])
    finding = outputs_kept(gather(log))
    assert (finding is None) is lets_go


def _higher(stats, num_bytes):
    return replace(stats, allocated_bytes=stats.allocated_bytes + num_bytes)
