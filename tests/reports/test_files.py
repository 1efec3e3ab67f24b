"""Report files: refused before the run where they cannot be written, written whole after it, in place of no other."""

import json
import pickle
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.printable import json_text
from memory_harness.harness.log.marks import Kind, is_marked, marked
from memory_harness.harness.log.snapshot import load_snapshot, write_snapshot
from memory_harness.probes.budgets.baseline import Peak, read_baseline, write_baseline
from memory_harness.reports.files import check_file, write_file

KINDS = get_args(Kind)
SNAPSHOT = {"segments": [], "device_traces": [[]]}


def report(number: int) -> str:
    return json_text({"schema_version": 1, "a": number})


def test_a_file_is_written_whole_and_again(tmp_path):
    path = tmp_path / "deep" / "report.json"
    check_file("json", path)
    for number in range(2):
        write_file("json", path, report(number))
        check_file("json", path)
        assert json.loads(path.read_text())["a"] == number
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content",
    [
        b"Topics,Questions\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"></svg>\n',
        b'<svg class="rich-terminal" viewBox="0 0 1 1"></svg>',
        b"<!doctype html>\n<!-- QLoRA memory report --></html>\n",
        b'{\n  "schema_version": 1\n}\n',
        pickle.dumps(SNAPSHOT, protocol=4),
        b"\x00",
    ],
)
def test_no_file_of_somebody_elses_is_overwritten(tmp_path, kind, content):
    path = tmp_path / "theirs"
    path.write_bytes(content)
    for use in (lambda: check_file(kind, path), lambda: write_file(kind, path, report(1))):
        with pytest.raises(ConfigError, match=rf"--{kind} .*theirs: exists and is no report of this program"):
            use()
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["theirs"]


@settings(max_examples=25)  # each writes a file
@given(st.sampled_from(KINDS), st.binary(max_size=200), st.binary(min_size=1, max_size=20))
def test_only_what_was_written_and_nobody_changed_is_ours(tmp_path_factory, kind, body, added):
    path = tmp_path_factory.mktemp("marks") / "file"
    path.write_bytes(body)
    assert not is_marked(kind, path)
    path.write_bytes(marked(kind, body))
    assert is_marked(kind, path)
    others = [other for other in KINDS if {other, kind} != {"svg", "html"} and other != kind]
    assert not any(is_marked(other, path) for other in others)
    for changed in (marked(kind, body) + added, added + marked(kind, body)):
        path.write_bytes(changed)
        assert not is_marked(kind, path)


def test_a_report_that_somebody_has_changed_stays(tmp_path):
    path = tmp_path / "report.json"
    write_file("json", path, report(1))
    path.write_text(path.read_text().replace('"a": 1', '"a": "my note"'))
    with pytest.raises(ConfigError, match="was changed since"):
        write_file("json", path, report(2))
    assert "my note" in path.read_text()


def test_a_baseline_is_no_report_and_the_other_way_round(tmp_path):
    path = tmp_path / "baseline.json"
    write_baseline(path, {"test": Peak(1, 1, 1, "", "simulated", "T4")})
    with pytest.raises(ConfigError, match="no report"):
        check_file("json", path)
    assert read_baseline(path) is not None
    path.unlink()
    write_file("json", path, report(1))
    with pytest.raises(ConfigError, match="no baseline of this release"):
        read_baseline(path)


def test_a_file_with_more_than_a_baseline_is_none(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text('{"schema_version": 1, "tests": {}, "notes": "mine"}')
    with pytest.raises(ConfigError, match="no baseline of this release"):
        read_baseline(path)


def test_a_snapshot_with_its_mark_is_a_pickle_still(tmp_path):
    path = tmp_path / "snapshot.pickle"
    write_snapshot(SNAPSHOT, path)
    check_file("snapshot", path)
    assert load_snapshot(path) == pickle.loads(path.read_bytes()) == SNAPSHOT


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_is_written_through_and_stays_a_link(tmp_path, kind):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "report"
    link.symlink_to(target)
    for number in range(2):
        check_file(kind, link)
        write_file(kind, link, report(number))
    assert link.is_symlink()
    assert is_marked(kind, target)
    target.write_text("theirs")
    with pytest.raises(ConfigError, match="no report"):
        write_file(kind, link, report(3))
    assert target.read_text() == "theirs"


def test_an_empty_file_may_be_filled(tmp_path):
    path = tmp_path / "report.json"
    path.touch()
    check_file("json", path)


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "page.svg"
    folder.mkdir()
    for use in (lambda: check_file("svg", folder), lambda: write_file("svg", folder, "<svg")):
        with pytest.raises(ConfigError, match="exists and is no report"):
            use()
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("use", [check_file, lambda kind, path: write_file(kind, path, report(1))])
def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path, use):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--json .*cannot be written \(.+\); name a file") as caught:
        use("json", tmp_path / "file" / "report.json")
    assert len(caught.value.problems) == 1
