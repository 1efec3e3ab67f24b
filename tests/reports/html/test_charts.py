"""What the charts draw, against the log that they draw."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import OomRecord, Phase, SegmentRuns
from memory_harness.reports.html.drawing import tick_bytes
from memory_harness.reports.html.lengths import shapes
from memory_harness.reports.html.memory_map import Moment, merged, pieces, row_bytes
from memory_harness.reports.html.timeline import MAX_COLUMNS, cut, place
from tests.builders import AS_PUBLISHED, Failure, as_published_oom, make_log

SIZES = st.integers(0, 40).map(lambda n: n * 512 * 1024)
RUNS = st.lists(SIZES, min_size=1, max_size=6).map(tuple)
SEGMENT = st.builds(SegmentRuns, st.sampled_from(["small", "large"]), RUNS)


@pytest.mark.parametrize("samples", [10, 40, 1000])
@pytest.mark.parametrize("dies", [False, True])
def test_no_peak_and_no_phase_is_lost_when_a_run_is_cut_into_columns(samples, dies):
    config = AS_PUBLISHED.with_fields(samples=samples)
    log = as_published_oom(samples) if dies else make_log(config, lengths=(300, 2000, 512))
    columns = cut(list(place(log)))
    assert len(columns) == MAX_COLUMNS
    assert max(column.level.allocated_bytes for column in columns) == log.peak_allocated_bytes
    assert max(column.level.reserved_bytes for column in columns) == log.peak_reserved_bytes
    for phase, stats in log.peaks().items():
        assert max(column.phases.get(phase, 0) for column in columns) == stats.peak_allocated_bytes


def test_places_are_in_order_and_do_not_overlap():
    placed = list(place(make_log(AS_PUBLISHED.with_fields(samples=20))))
    assert placed[0][0] == 0
    assert abs(placed[-1][1] - 1) < 1e-9
    assert all(begin < end for begin, end, _ in placed)
    assert all(abs(a[1] - b[0]) < 1e-9 for a, b in pairwise(placed))


def test_a_run_that_dies_half_way_fills_half_of_the_width():
    placed = list(place(as_published_oom(400)))
    begin, end, entry = placed[-1]
    assert isinstance(entry, OomRecord)
    assert 0.5 < begin < end < 0.54


def test_without_steps_phases_are_equally_wide():
    log = make_log(AS_PUBLISHED.with_fields(samples=10))
    log = replace(log, phases=[replace(record, step=0) for record in log.phases])
    widths = {round(end - begin, 9) for begin, end, _ in place(log)}
    assert len(widths) == 1


def test_each_shape_of_batch_is_one_point_with_its_highest_peak():
    log = make_log(AS_PUBLISHED.with_fields(batching="dynamic"), lengths=(100, 700, 1500, 100))
    points = [point for point in shapes(log) if point.kind == "training"]
    assert [point.length for point in points] == [128, 704, 1536]
    backward = [p for p in log.phases if p.phase is Phase.BACKWARD]
    for point in points:
        peaks = [p.after.peak_allocated_bytes for p in backward if p.batch.padded_length == point.length]
        assert (point.peak_bytes, point.num_batches) == (max(peaks), len(peaks))


def test_the_batch_that_failed_is_a_point_of_its_own():
    log = make_log(failure=Failure(Phase.FORWARD, 3, 5 * GIB))
    (failed,) = [point for point in shapes(log) if point.failed]
    assert failed.peak_bytes == log.fatal_oom.allocated_bytes + 5 * GIB


@given(segments=st.lists(SEGMENT, max_size=12).map(tuple))
def test_the_map_shows_every_byte_once(segments):
    moment = Moment(segments, 64 * MIB, GIB)
    at = 0
    for piece in pieces(moment):
        assert piece.begin == at
        at += piece.num_bytes
    assert at == max(moment.budget_bytes, moment.reserved_bytes)
    assert sum(moment.free_pieces) == sum(size for s in segments for size in s.runs[1::2])


def test_pieces_that_are_large_enough_are_not_merged():
    moment = Moment((SegmentRuns("large", (GIB, GIB, GIB)),), 4 * GIB)
    assert [piece.css for piece in pieces(moment)] == ["allocated", "free", "allocated", "budget-left"]
    assert merged([], 1) == []


@given(total=st.integers(1, 2**40))
def test_a_map_has_a_readable_number_of_rows(total):
    row = row_bytes(total)
    assert row >= MIB
    assert row & (row - 1) == 0
    assert total / row < 40


@given(top=st.integers(1024, 2**40))
def test_an_axis_has_few_round_marks(top):
    step, unit = tick_bytes(top)
    assert step % unit == 0
    assert top // step <= 6
