"""Writing and reading logs; a log cut or damaged anywhere is still read, judged and shown."""

import gzip
import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import config_from_dict
from memory_harness.harness.log import runlog
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import Outcome, Phase, record_from_dict, record_to_dict
from memory_harness.harness.log.runlog import LogWriter, collect, read_run_log
from memory_harness.reports.json import to_json
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import make_console, print_report
from tests.builders import AS_PUBLISHED, FLOOR, as_published_oom, make_log

SHORT = AS_PUBLISHED.with_fields(samples=10)


def records_of(log):
    return [log.run, *log.begins, *log.phases, *log.steps, *log.evals, *log.ooms, *([log.end] if log.end else [])]


def write(path, records):
    path.unlink(missing_ok=True)
    with LogWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("log") / "run.jsonl", records_of(as_published_oom(10)))
    return path.read_bytes()


@pytest.mark.parametrize("log", [as_published_oom(10), make_log(SHORT)], ids=["oom", "completed"])
def test_what_is_written_is_read(log, tmp_path):
    read = read_run_log(write(tmp_path / "new folder" / "run.jsonl", records_of(log)))
    assert config_from_dict(read.run.config) == config_from_dict(log.run.config)
    assert replace(read, run=replace(read.run, config=log.run.config)) == log


@pytest.mark.parametrize("log", [as_published_oom(10), make_log(SHORT)], ids=["oom", "completed"])
def test_every_record_survives_as_plain_data(log):
    assert all(record_from_dict(record_to_dict(record)) == record for record in records_of(log))


def test_a_record_is_on_disk_as_soon_as_it_is_written(tmp_path):
    log = make_log(SHORT)
    writer = LogWriter(tmp_path / "run.jsonl")
    writer.write(log.run)
    writer.write(log.begins[0])
    assert read_run_log(tmp_path / "run.jsonl").last_phase is Phase.LOAD
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(log.run)


@given(data=st.data())
def test_a_log_cut_at_any_byte_is_read_and_shown(written, tmp_path_factory, data):
    first_line = written.index(b"\n")
    cut = data.draw(st.integers(first_line, len(written)))
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    path.write_bytes(written[:cut])
    log = read_run_log(path)
    assert log.num_unreadable_lines <= 1
    assert log.outcome in (Outcome.OOM, Outcome.ERROR)
    file = io.StringIO()
    print_report(result_of_log(log), make_console(file))
    assert file.getvalue()
    assert to_json(result_of_log(log))["as_configured"]["outcome"] == str(log.outcome)


@given(data=st.data())
def test_a_damaged_line_costs_that_line_only(written, tmp_path_factory, data):
    lines = written.splitlines(keepends=True)
    hit = data.draw(st.integers(1, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[hit]) - 2))
    lines[hit] = lines[hit][:at] + b"\xff\x00" + lines[hit][at + 2 :].rstrip(b"\n") + b"\n"
    path = tmp_path_factory.mktemp("damaged") / "run.jsonl"
    path.write_bytes(b"".join(lines))
    log = read_run_log(path)
    kept = len(records_of(log)) + log.num_unreadable_lines
    assert len(lines) - kept <= 1


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b'{"kind": "run"', b"not a log\n", b'{"kind": "end"}\n', b"[1, 2]\n"]
)
def test_what_is_not_a_log_is_one_clear_error(content, tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(LogError):
        read_run_log(path)


def test_a_missing_log_is_one_clear_error(tmp_path):
    with pytest.raises(LogError, match="cannot read the log"):
        read_run_log(tmp_path / "missing.jsonl")


def test_a_newer_schema_is_refused(tmp_path, written):
    path = tmp_path / "run.jsonl"
    path.write_bytes(written.replace(b'"schema_version": 1', b'"schema_version": 99'))
    with pytest.raises(LogError, match="99"):
        read_run_log(path)


def test_a_log_without_an_end_counts_as_an_error():
    log = collect(records_of(make_log(SHORT))[:-1])
    assert (log.outcome, log.fatal_oom) == (Outcome.ERROR, None)


def test_an_oom_that_the_run_survived_is_not_fatal():
    oom = as_published_oom(10).ooms[0]
    log = collect([*records_of(make_log(SHORT)), oom])
    assert (log.outcome, log.fatal_oom, log.ooms) == (Outcome.COMPLETED, None, [oom])


def test_peaks_are_the_highest_of_each_phase():
    log = make_log(SHORT.with_fields(batching="dynamic", eval_batch_size=1), lengths=[128, 2048, 512])
    backward = [p.after.peak_allocated_bytes for p in log.phases if p.phase is Phase.BACKWARD]
    assert log.peaks()[Phase.BACKWARD].peak_allocated_bytes == max(backward) == log.peak_allocated_bytes
    assert log.peaks()[Phase.OPTIMIZER].allocated_bytes == FLOOR
    assert list(log.peaks())[:2] == [Phase.LOAD, Phase.DATA]


WRONG = {
    "a text for a number": (b'"step": 1', b'"step": "1"'),
    "a list for a number": (b'"step": 1', b'"step": [["large", [1, 2]]]'),
    "a number below zero": (b'"peak_reserved_bytes": ', b'"peak_reserved_bytes": -'),
    "more bytes than there are": (b'"peak_reserved_bytes": ', b'"peak_reserved_bytes": 9999999999'),
    "a number of 5000 digits": (b'"step": 1', b'"step": ' + b"9" * 5000),
    "no number": (b'"seconds": 0.4', b'"seconds": NaN'),
    "nested too deeply": (b'"seconds": 0.4', b'"seconds": ' + b"[" * 100_000),
    "half a surrogate pair": (b'"phase": "FORWARD"', b'"phase": "FORWARD", "kind": "phase", "where": "\\ud800"'),
    "null for a record": (b'"after": {', b'"after": null, "x": {'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_of_wrong_types_is_counted_and_said(name, written, tmp_path):
    before, after = WRONG[name]
    lines = written.splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if before in line and b'"kind": "phase"}' in line)
    lines[number] = lines[number].replace(before, after, 1)
    (tmp_path / "run.jsonl").write_bytes(b"".join(lines))
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.num_unreadable_lines == 1
    shown = io.StringIO()
    print_report(result_of_log(log), make_console(shown))
    assert "1 line could not be read" in shown.getvalue()
    assert to_json(result_of_log(log))["unreadable_lines"] == 1


def test_a_loss_that_is_no_number_is_kept(written, tmp_path):
    (tmp_path / "run.jsonl").write_bytes(written.replace(b'"loss": null', b'"loss": NaN'))
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.num_unreadable_lines == 0
    assert log.steps
    assert all(step.loss is not None and math.isnan(step.loss) for step in log.steps)


def test_a_line_longer_than_any_record_costs_that_line_only(written, tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "MAX_LINE_BYTES", 5000)
    first, rest = written.split(b"\n", 1)
    (tmp_path / "run.jsonl").write_bytes(first + b"\n" + b"x" * 12_345 + b"\n" + rest)
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.num_unreadable_lines == 1
    assert len(records_of(log)) == written.count(b"\n")


def test_a_log_too_large_for_this_machine_is_refused_before_it_is_read(written, tmp_path, monkeypatch):
    (tmp_path / "run.jsonl").write_bytes(written)
    monkeypatch.setattr(runlog, "MEMORY_PER_BYTE", 10**12)
    with pytest.raises(LogError, match="takes about"):
        read_run_log(tmp_path / "run.jsonl")


def test_a_log_whose_configuration_nothing_ran_with_is_one_clear_error(written, tmp_path):
    (tmp_path / "run.jsonl").write_bytes(written.replace(b'"epochs": 2', b'"epochs": -2'))
    with pytest.raises(LogError, match="--epochs -2"):
        to_json(result_of_log(read_run_log(tmp_path / "run.jsonl")))


def test_a_path_that_is_no_text_does_not_end_a_run(tmp_path):
    log = make_log(SHORT)
    path = write(tmp_path / "run.jsonl", [replace(log.run, gpu_name="a\udcff"), *log.phases])
    assert read_run_log(path).run.gpu_name == "a?"


def test_a_log_or_snapshot_in_gzip_is_said_to_be_so(tmp_path):
    path = tmp_path / "snapshot.pickle.gz"
    path.write_bytes(gzip.compress(b"\x80\x04}."))
    with pytest.raises(LogError, match="it is gzip; unpack it first"):
        read_run_log(path)
