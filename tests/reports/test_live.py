"""What is shown of a run while it trains."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import FollowedLog, LogWriter
from memory_harness.reports.live import (
    Lines,
    Watcher,
    facts,
    follow,
    in_words,
    render,
    seconds_left,
    sparkline,
    tokens_per_second,
    waiting,
)
from memory_harness.reports.terminal import make_console
from tests.builders import AS_PUBLISHED, make_log

CONFIG = AS_PUBLISHED.with_fields(eval_batch_size=1)


def in_order(log):
    """Return the records of a built log, as they were written but for probes and the end."""
    later = sorted((*log.phases, *log.steps, *log.evals), key=lambda r: (r.step, r.kind != "phase"))
    return [log.run, *later]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def growing(tmp_path):
    """A function that lets a log grow by so many records."""
    records = iter(in_order(make_log(CONFIG)))
    writer = LogWriter(tmp_path / "run.jsonl")

    def grow(number):
        for _, record in zip(range(number), records, strict=False):
            writer.write(record)

    yield tmp_path / "run.jsonl", grow
    writer.close()


def test_a_log_is_read_as_it_grows(growing):
    path, grow = growing
    followed = FollowedLog(path)
    assert followed.poll() is None
    grow(1)
    assert followed.poll().phases == []
    grow(30)
    first = followed.poll()
    assert len(first.phases) + len(first.steps) == 30
    with path.open("a") as file:
        file.write('{"kind": "ste')
    assert len(followed.poll().phases) == len(first.phases)


def test_a_log_that_was_cut_is_read_anew(growing):
    path, grow = growing
    followed = FollowedLog(path)
    grow(60)
    long = len(followed.poll().phases)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:20]))
    assert 0 < len(followed.poll().phases) < long


def test_findings_are_looked_for_every_few_seconds_only(growing, monkeypatch):
    path, grow = growing
    clock, calls = Clock(), []
    monkeypatch.setattr("memory_harness.reports.live.detect", lambda log: calls.append(clock.now) or [])
    watcher = Watcher(FollowedLog(path), clock)
    for _ in range(100):
        grow(1)
        watcher.look()
        clock.now += 0.25
    assert 2 <= len(calls) <= 5


def test_a_slow_diagnosis_is_made_less_often(growing, monkeypatch):
    path, grow = growing
    clock, calls = Clock(), []

    def slow(log):
        calls.append(clock.now)
        clock.now += 2
        return []

    monkeypatch.setattr("memory_harness.reports.live.detect", slow)
    watcher = Watcher(FollowedLog(path), clock)
    grow(100)
    while clock.now < 200:
        watcher.look()
        clock.now += 0.25
    assert 2 * len(calls) <= 0.06 * clock.now


def test_without_a_terminal_there_are_lines(growing, tmp_path):
    path, grow = growing
    out, clock = io.StringIO(), Clock()
    with follow(path, make_console(out), clock) as update:
        for _ in range(400):
            grow(1)
            update()
            clock.now += 1
    lines = out.getvalue().splitlines()
    assert any(line.startswith("step 1 of 32") for line in lines)
    assert any("evaluation at step 16 of 32 (tuned)" in line for line in lines)
    assert "step 32 of 32" in " ".join(lines)
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80


def test_a_finding_is_told_once():
    log = make_log(AS_PUBLISHED.with_fields(samples=40), lengths=(300, 900), leak_per_step=200 * 2**20)
    from memory_harness.probes.detectors import detect

    findings = detect(log)
    assert findings
    out = io.StringIO()
    lines = Lines(make_console(out), Clock())
    for _ in range(3):
        lines.update((log, findings))
    assert out.getvalue().count(findings[0].cause + ":") == 1


def shown(log, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(render(log, [], width))
    return console.file.getvalue()


def test_the_display_names_progress_loss_speed_time_and_memory():
    log = make_log(CONFIG)
    log = replace(log, steps=[replace(step, loss=2.5) for step in log.steps[:8]])
    text = shown(log)
    for words in ("step 8 of 32", "loss 2.5000", "600 tokens/s", "left", "of 14.40 GiB", "peak"):
        assert words in text, text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_log_without_steps_is_shown_too():
    log = make_log(CONFIG)
    assert "step 0 of 32" in shown(replace(log, steps=[], phases=[], evals=[]))


def test_rates_and_times():
    log = make_log(CONFIG)
    assert tokens_per_second(log.steps) == 600  # two samples of 300 tokens in a step of a second
    assert tokens_per_second([]) == 0
    half = replace(log, steps=log.steps[:16], phases=[p for p in log.phases if p.step <= 16])
    spent = sum(p.seconds for p in half.phases if p.phase != "LOAD")
    assert seconds_left(half) == pytest.approx(spent)
    assert facts(replace(log, steps=[])) == []
    assert [in_words(s) for s in (45, 600, 3 * 3600 + 300)] == ["45 s", "10 min", "3 h 05 min"]


def test_the_course_of_the_loss_is_a_row_of_blocks():
    curve, words = sparkline([4.0 - step / 100 for step in range(200)])
    assert (curve[0], curve[-1], len(curve)) == ("█", "▁", 40)
    assert words.startswith("3.9")
    assert sparkline([2.0, float("nan")]) is None
    log = make_log(CONFIG)
    log = replace(log, steps=[replace(step, loss=9.0 - step.step / 10) for step in log.steps[:8]])
    assert "▁" in shown(log)
    assert all(len(line) <= 80 for line in shown(log).splitlines())


def test_while_it_generates_no_time_is_left_to_tell():
    log = make_log(CONFIG)
    assert not any("left" in fact for fact in facts(log)), "all steps are done"
    half = replace(log, steps=log.steps[:8])
    generating = [*log.begins[:20], replace(log.begins[20], phase=Phase.GENERATE)]
    assert any("left" in fact for fact in facts(half))
    assert not any("left" in fact for fact in facts(replace(half, begins=generating)))


def test_before_there_is_a_log_it_says_what_it_waits_for(tmp_path):
    assert "imports PyTorch" in waiting(12.0).plain
    assert waiting(12.0).plain.startswith("12 s")
