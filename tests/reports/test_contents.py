"""Where memory goes: by kind, by layer and by calls, in the terminal, on a page and as folded stacks."""

import io
import re
from dataclasses import replace

from memory_harness.harness.log.peaks import PeakSum, layer_of
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.source_lines import SourceLine
from memory_harness.reports.contents import folded_text, highest_peaks
from memory_harness.reports.html import html_text
from memory_harness.reports.html.flame import tree_of
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import make_console, print_report
from tests.reports.results import small_log, with_peaks


def test_the_highest_peak_of_each_phase_counts():
    peaks = highest_peaks(with_peaks())
    assert list(peaks) == [Phase.FORWARD, Phase.BACKWARD]
    assert peaks[Phase.FORWARD].step == 2


def test_the_terminal_shows_kinds_in_one_unit_and_what_is_cached():
    out = io.StringIO()
    print_report(result_of_log(with_peaks()), make_console(out))
    text = out.getvalue()
    assert "Where memory goes, as configured  at the peaks of phases, in GiB" in text
    section = text.partition("Where memory goes")[2].partition("Over the run")[0]
    rows = [" ".join(line.split()) for line in section.splitlines()]
    assert {"weights 5.00 5.00", "logits 0.50 1.00", "cached, unused 0.50 0.50"} <= set(rows)
    assert max(map(len, text.splitlines())) <= 80


def test_the_page_shows_kinds_layers_and_calls():
    text = html_text(result_of_log(with_peaks()))
    assert 'id="memory"' in text
    assert ">layers.0–11, each<" in text
    assert "468 forward: 1.00 GiB" in text


def test_folded_stacks_add_up_to_the_peaks():
    log = with_peaks()
    lines = folded_text(log).splitlines()
    assert all(re.fullmatch(r"memory;(FORWARD|BACKWARD);.+ \d+", line) for line in lines)
    of_backward = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("memory;BACKWARD;")]
    assert sum(of_backward) == highest_peaks(log)[Phase.BACKWARD].allocated_bytes


def test_calls_of_one_caller_are_one_box():
    root = tree_of({"a;m;x": 3, "a;m;y": 4, "b": 5})
    assert (root.num_bytes, root.calls["a"].num_bytes, len(root.calls["a"].calls["m"].calls)) == (12, 7, 2)


def test_what_nothing_tells_of_is_made_before_and_a_name_has_a_layer():
    found = PeakSum()
    found.add("weights", 600, name="base_model.model.layers.3.mlp.up_proj.weight")
    found.add(
        "activations", 200, frames=(SourceLine("/x/y/u/a;b.py", 3, "f"), SourceLine("/x/y/u/main.py", 9, "<module>"))
    )
    record = found.record(Phase.FORWARD, 1, 1000, 2000)
    assert record.kinds == {"weights": 600, "activations": 200, "made before": 200}
    assert record.layers == {"layers.3": {"weights": 600}}
    assert "activations;y/u/main.py:9 <module>;y/u/a,b.py:3 f" in record.stacks
    assert sum(record.stacks.values()) == 1000
    assert [layer_of(name) for name in ("model.embed_tokens.weight", "h.11.attn.weight", "3.keys")] == [
        "embed_tokens", "h.11", "3",
    ]  # fmt: skip


def test_a_small_model_fills_its_charts():
    """On a large card its columns would be a line at the bottom."""
    page = html_text(result_of_log(small_log()))
    timeline = page[page.index('class="chart timeline"') :]
    heights = [float(y) for y in re.findall(r"V([\d.]+)H", timeline[: timeline.index("</svg>")])]
    assert min(heights) < 60
    assert "budget 14.40 GiB, far above" in page
    assert "The budget lies far above the bars." in page
    assert "</svg>budget</li>" not in page, "a legend names no line that no chart has"
    out = io.StringIO()
    print_report(result_of_log(small_log()), make_console(out))
    assert "█" in out.getvalue().partition("Over the run")[2]
    assert "the budget, 14.40 GiB, lies far above" in " ".join(out.getvalue().split())


def test_deep_stacks_of_all_phases_stay_a_small_file():
    frames = [f"transformers/models/deep/modeling_deep.py:{line} forward" for line in range(40)]
    stacks = {f"activations;{';'.join(frames)};made_{number}": 1000 + number for number in range(200)}
    log = with_peaks()
    record = replace(log.peaks_seen[0], stacks=stacks, allocated_bytes=sum(stacks.values()))
    peaks = [replace(record, phase=phase) for phase in Phase]
    assert len(html_text(result_of_log(replace(log, peaks_seen=peaks)))) < 450_000
