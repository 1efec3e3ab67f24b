"""Writing and reading logs; a log cut or damaged anywhere is still read, judged and shown."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import config_from_dict
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


def test_a_path_that_is_no_text_does_not_end_a_run(tmp_path):
    with LogWriter(tmp_path / "run.jsonl") as writer:
        writer.write(replace(make_log(SHORT).run, gpu_name="a\udcff"))
    assert read_run_log(tmp_path / "run.jsonl").run.gpu_name == "a?"
