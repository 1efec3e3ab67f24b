"""Report files: refused before the run where they cannot be written, written whole after it."""

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.reports.files import check_file, write_file


def test_a_file_is_written_whole_and_again(tmp_path):
    path = tmp_path / "deep" / "report.json"
    check_file("--json", path, "{")
    for text in ('{"a": 1}', '{"b": 2}'):
        write_file("--json", path, text)
        check_file("--json", path, "{")
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", ["Topics,Questions\n", "[", " {"])
def test_another_file_is_not_overwritten(tmp_path, content):
    path = tmp_path / "corpus.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"--json .*corpus.csv: exists and is no report of this program"):
        check_file("--json", path, "{")
    assert path.read_text() == content


def test_an_empty_file_may_be_filled(tmp_path):
    path = tmp_path / "report.json"
    path.touch()
    check_file("--json", path, "{")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="exists and is no report"):
        check_file("--svg", tmp_path, "<svg")
    with pytest.raises(ConfigError, match=r"--svg .*cannot be written"):
        write_file("--svg", tmp_path, "<svg")
    assert [path.name for path in tmp_path.parent.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("use", [check_file, write_file])
def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path, use):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--json .*cannot be written \(.+\); name a file") as caught:
        use("--json", tmp_path / "file" / "report.json", "{")
    assert len(caught.value.problems) == 1
