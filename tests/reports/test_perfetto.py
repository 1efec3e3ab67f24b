"""A run as a trace of events."""

import itertools
import json
from dataclasses import replace

from memory_harness.reports.entry import main
from memory_harness.reports.perfetto import perfetto_text
from tests.builders import AS_PUBLISHED, as_published_oom, make_log
from tests.reports.test_live_page import write

LOG = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))


def events(log, **wanted):
    text = perfetto_text(log)
    assert text.startswith('{"traceEvents": [')
    found = json.loads(text)["traceEvents"]
    return [event for event in found if wanted.items() <= event.items()]


def test_phases_and_steps_follow_each_other():
    phases = events(LOG, ph="X", tid=1)
    assert [event["name"] for event in phases[:3]] == ["LOAD", "DATA", "FORWARD"]
    assert len(phases) == len(LOG.phases)
    for before, after in itertools.pairwise(phases):
        assert before["ts"] + before["dur"] <= after["ts"] + 0.2
    steps = events(LOG, ph="X", tid=2)
    assert [event["name"] for event in steps] == [f"step {number}" for number in range(1, 33)]
    evaluation = next(event for event in phases if event["name"] == "EVAL")
    assert steps[15]["ts"] + steps[15]["dur"] <= evaluation["ts"] + 0.2, "an evaluation is no part of its step"


def test_memory_is_a_counter_that_reaches_the_peak():
    counters = events(LOG, ph="C", name="memory")
    assert max(event["args"]["allocated"] for event in counters) == LOG.peak_allocated_bytes
    assert all(event["args"]["cached"] >= 0 for event in counters)


def test_losses_are_a_counter_and_a_failure_a_mark():
    with_losses = replace(LOG, steps=[replace(step, loss=2.0) for step in LOG.steps])
    assert len(events(with_losses, ph="C", name="loss")) == 32
    (failure,) = events(as_published_oom(), ph="i")
    assert failure["args"]["requested_bytes"] > 7 * 2**30


def test_what_is_no_number_in_json_is_left_out():
    """Viewers refuse the whole file for a `NaN`."""
    diverged = replace(LOG, steps=[replace(step, loss=float("nan")) for step in LOG.steps])
    assert "NaN" not in perfetto_text(diverged)
    assert events(diverged, ph="C", name="loss") == []


def test_steps_whose_phases_are_left_out_are_there():
    thinned = replace(LOG, phases=LOG.phases[:20])
    assert len(events(thinned, ph="X", tid=2)) == 32


def test_replay_writes_it_and_the_folded_stacks(tmp_path, capsys):
    write(tmp_path / "run.jsonl", LOG, 10**6, LOG.end)
    trace, folded = tmp_path / "trace.json", tmp_path / "stacks.txt"
    assert main(["--replay", str(tmp_path / "run.jsonl"), "--perfetto", str(trace), "--folded", str(folded)]) == 0
    assert trace.read_text().startswith(perfetto_text(LOG).removesuffix("\n}\n"))
    assert folded.read_text().startswith("memory_harness report, sha256 ")
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    assert main(["--replay", str(tmp_path / "run.jsonl"), "--perfetto", str(other)]) == 2
    assert "exists and is no report" in capsys.readouterr().err
