"""What nobody raised on purpose: exit code 2 where something given is at fault, 4 for a defect; never 0 or 1."""

import errno
import os
from pathlib import Path

import pytest

from memory_harness.reports import command
from memory_harness.reports.entry import main


def ended(monkeypatch, capsys, error):
    def run(*arguments):
        raise error

    monkeypatch.setattr(command, "run", run)
    code = main(["--explain"])
    (line,) = capsys.readouterr().err.splitlines()
    return code, line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), "x.csv: cannot be used (No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: cannot be used (Permission denied)"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: cannot be written"),
        (OSError("odd"), "cannot be used (odd)"),
        (RecursionError(), "nested too deeply"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_what_was_given_is_exit_code_2(error, words, monkeypatch, capsys):
    code, line = ended(monkeypatch, capsys, error)
    assert code == 2
    assert words in line


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("a\nb"), AssertionError(), ValueError("odd")])
def test_a_defect_is_exit_code_4_and_says_where_to_report_it(error, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, line = ended(monkeypatch, capsys, error)
    assert code == 4
    assert "CONTRIBUTING.md, Reporting a defect" in line
    (report,) = tmp_path.iterdir()
    assert str(report) in line
    assert "Traceback" in report.read_text()
    root = Path(command.__file__).resolve().parents[1]
    assert "## Reporting a defect" in (root / "CONTRIBUTING.md").read_text()


def test_a_deleted_folder_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, line = ended(monkeypatch, capsys, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert code == 2
    assert "started in is gone" in line
