"""A report on several GPUs says what each took, which took most, and what of it is not PyTorch's."""

from dataclasses import replace

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import DriverRecord, DriverUse, Phase
from memory_harness.reports.ranks import RankUse, ranks_section, ranks_to_json, use_of
from tests.builders import make_log


def log_of(outside_bytes=None):
    log = make_log()
    if outside_bytes is None:
        return log
    reserved = log.peak_reserved_bytes
    use = DriverUse(reserved + outside_bytes, 16 * GIB, own_bytes=reserved + outside_bytes)
    return replace(log, drivers=[DriverRecord(Phase.STEP, 1, reserved, use)])


def rows_of(logs):
    return [[str(getattr(cell, "text", cell)) for cell in row] for row in ranks_section(logs).body[0].rows]


def test_one_gpu_is_no_table():
    assert not ranks_section([log_of()]).body


def test_what_lies_beside_pytorch_is_counted():
    assert use_of(log_of()) == RankUse(log_of().peak_allocated_bytes, log_of().peak_reserved_bytes, None)
    (first, second) = rows_of([log_of(GIB), log_of(2 * GIB)])
    assert (first[3], first[-1]) == ("1.00", "")
    assert (second[3], second[-1]) == ("2.00", "takes most")
    (entry,) = ranks_to_json([log_of(GIB)])
    assert entry["total_bytes"] == entry["peak_reserved_bytes"] + GIB


def test_gpus_that_are_alike_are_one_line():
    rows = rows_of([log_of(GIB)] * 500 + [log_of(2 * GIB)])
    assert [row[0] for row in rows] == ["0–499", "500"]
