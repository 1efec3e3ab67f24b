"""Each further GPU that a process drives has a log of its own, with what it counts itself."""

from types import SimpleNamespace

from memory_harness.harness.log.records import MemoryStats
from memory_harness.harness.log.runlog import read_rank_logs
from memory_harness.harness.train.other_cards import OtherCards
from tests.builders import make_log


def test_a_further_gpu_has_the_same_phases_and_its_own_memory(tmp_path):
    log = make_log()
    counted = MemoryStats(allocated_bytes=5, reserved_bytes=9, peak_allocated_bytes=7, peak_reserved_bytes=9)
    cards = OtherCards(SimpleNamespace(other_stats=lambda: [counted]), tmp_path)
    cards.open()
    for record in (log.run, *log.begins[:1], *log.phases, *log.steps, log.end):
        cards.write(record)
    cards.close()
    (other,) = read_rank_logs(tmp_path)
    assert [phase.phase for phase in other.phases] == [phase.phase for phase in log.phases]
    assert (other.peak_allocated_bytes, other.peak_reserved_bytes) == (7, 9)
    assert {step.allocated_bytes for step in other.steps} == {5}
    assert [step.loss for step in other.steps] == [step.loss for step in log.steps]


def test_where_there_is_one_gpu_nothing_is_written(tmp_path):
    cards = OtherCards(SimpleNamespace(other_stats=list), tmp_path)
    cards.open()
    cards.write(make_log().run)
    cards.close()
    assert not list(tmp_path.iterdir())
