"""What the peaks of two runs are made of, side by side."""

from dataclasses import replace

from memory_harness.harness.log.records import PeakPart
from memory_harness.probes.peak_changes import changes_by_category, changes_by_line

MODEL = "transformers/models/llama/modeling_llama.py"
PART = PeakPart("activation", f"{MODEL}:123 forward", "x = self.up_proj(x)", f"{MODEL}:300 forward", 100, 2)
OTHER = PeakPart("activation", f"{MODEL}:140 forward", "x = self.act(x)", "", 60, 1)
WEIGHT = PeakPart("parameter", "model.layers.*.mlp.up_proj.weight", "", "", 1000, 32)


def test_equal_peaks_have_no_lines():
    parts = [PART, OTHER, WEIGHT]
    assert changes_by_line(parts, parts) == []
    assert all(change.difference_bytes == 0 for change in changes_by_category(parts, parts))


def test_a_line_that_moved_is_the_same_line():
    moved = replace(PART, site=f"{MODEL}:131 forward", caller=f"{MODEL}:312 forward")
    assert changes_by_line([PART], [moved]) == []
    (change,) = changes_by_line([PART], [replace(moved, num_bytes=150)])
    assert (change.site_before, change.site_after) == (PART.site, moved.site)
    assert (change.before_bytes, change.after_bytes, change.difference_bytes) == (100, 150, 50)


def test_a_line_that_was_rewritten_and_takes_the_same_is_no_change():
    rewritten = replace(PART, site=f"{MODEL}:90 project", code="y = self.up_proj(x)")
    assert changes_by_line([PART, OTHER], [rewritten, OTHER]) == []
    assert len(changes_by_line([PART], [replace(rewritten, num_tensors=3)])) == 2


def test_a_line_of_one_run_alone_counts_from_nothing():
    (change,) = changes_by_line([PART], [PART, OTHER])
    assert (change.site_before, change.site_after, change.difference_bytes) == ("", OTHER.site, 60)
    (change,) = changes_by_line([PART, OTHER], [PART])
    assert (change.site_before, change.site_after, change.difference_bytes) == (OTHER.site, "", -60)


def test_two_equal_lines_of_a_function_count_together():
    twice = [PART, replace(PART, site=f"{MODEL}:125 forward", num_bytes=30)]
    (change,) = changes_by_line(twice, [PART])
    assert (change.before_bytes, change.after_bytes) == (130, 100)


def test_categories_add_up_and_the_largest_change_comes_first():
    changes = changes_by_category([PART, WEIGHT], [PART, OTHER, replace(WEIGHT, num_bytes=900)])
    assert [(change.category, change.difference_bytes) for change in changes] == [
        ("parameter", -100),
        ("activation", 60),
    ]
