"""Caches of keys and values that calls of a watched script leave, without a training step."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import KIB
from memory_harness.harness.log.records import (
    COLLECTED_BY_SCRIPT,
    COLLECTOR,
    GROWING_TENSOR,
    BatchShape,
    MemoryStats,
    Phase,
    PhaseRecord,
    ProbeRecord,
    SurvivorRecord,
)
from memory_harness.probes.detectors.evidence import gather
from memory_harness.probes.detectors.floor import freed_by_collector
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


@pytest.mark.parametrize(("name", "expected"), [(COLLECTOR, True), (COLLECTED_BY_SCRIPT, False)])
def test_garbage_that_the_script_collects_itself_is_no_leak(name, expected):
    probes = [ProbeRecord(name, step, 500 * KIB, 100 * KIB, 0, 0) for step in range(10, 60, 10)]
    assert bool(freed_by_collector(gather(replace(make_log(), probes=probes)))) is expected
