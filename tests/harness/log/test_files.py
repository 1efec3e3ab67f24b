"""Files and folders are there as a whole, whatever happens while they are written."""

import pytest

from memory_harness.harness.log import files
from memory_harness.harness.log.files import replace_folder, replaced_folders, restore_replaced, write_whole


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "before")

    def refuse(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "before")]


def folder_with(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = folder_with(tmp_path / "folder", "old")
    replace_folder(folder, folder_with(tmp_path / "new", "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (folder / "file").read_text() == "new"


def test_a_folder_that_was_lost_in_between_is_put_back(tmp_path, monkeypatch):
    folder, new = folder_with(tmp_path / "folder-1", "old"), folder_with(tmp_path / "new", "new")
    rename = files.Path.rename

    def killed(path, to):
        if path == new:
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(folder, new)
    assert not folder.exists()
    assert replaced_folders(tmp_path, "folder-*") == [folder]
    restore_replaced(folder)
    assert (folder / "file").read_text() == "old"
    restore_replaced(folder)
    replace_folder(folder, new)
    assert (folder / "file").read_text() == "new"
