"""Files and folders are there as a whole, whatever happens while they are written."""

import os
import signal

import pytest

from memory_harness.harness.log import files
from memory_harness.harness.log.files import (
    partial_folder,
    replace_folder,
    replaced_folders,
    restore_replaced,
    sweep_folder,
    write_new,
    write_whole,
)


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


def killed_while(work):
    """Run the work in a process that is killed at its next fsync."""
    child = os.fork()
    if child == 0:
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        work()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_what_a_killed_process_left_goes_when_its_place_is_written_next(tmp_path):
    write_whole(tmp_path / "a", "before")
    (tmp_path / ".a.4711.partial").write_text("left by an earlier release")
    for _ in range(2):
        killed_while(lambda: write_whole(tmp_path / "a", "after"))
    killed_while(lambda: write_whole(tmp_path / "b", "another"))
    assert (tmp_path / "a").read_text() == "before"
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".a.")]
    assert len(left) == 1
    write_whole(tmp_path / "a", "after")
    assert sorted(path.name.split(".")[1] for path in tmp_path.glob(".*")) == ["b"]
    sweep_folder(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "after")]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with partial_folder(tmp_path / "adapter") as mine:
        folder_with(mine / "adapter", "mine")
        with partial_folder(tmp_path / "adapter") as other:
            sweep_folder(tmp_path)
            assert other.is_dir()
        assert (mine / "adapter" / "file").read_text() == "mine"
        replace_folder(tmp_path / "adapter", mine / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_no_partial_name_can_be_guessed_and_no_link_in_its_place_is_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to(victim)
    write_whole(tmp_path / "a", "mine")
    tokens = iter(["known", "free"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda num_bytes: next(tokens))
    monkeypatch.setattr(files, "sweep", lambda target: None)
    (tmp_path / ".a.known.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", "again")
    assert (victim.read_text(), (tmp_path / "a").read_text()) == ("theirs", "mine")


def test_a_link_is_written_through_and_a_circle_refused(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    write_whole(tmp_path / "link", "a")
    assert ((tmp_path / "far" / "file").read_text(), (tmp_path / "link").is_symlink()) == ("a", True)
    (tmp_path / "adapter").symlink_to(folder_with(tmp_path / "far" / "adapter", "old"))
    with partial_folder(tmp_path / "adapter") as partial:
        replace_folder(tmp_path / "adapter", folder_with(partial / "new", "new"))
    assert ((tmp_path / "far" / "adapter" / "file").read_text(), (tmp_path / "adapter").is_symlink()) == ("new", True)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(tmp_path / "circle", "a")
    assert (tmp_path / "circle").is_symlink()


def test_what_is_no_file_is_not_replaced_and_permissions_stay(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="something else than a file"):
        write_whole(tmp_path / "fifo", "a")
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    write_whole(secret, "a")
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_new_file_is_in_no_others_place(tmp_path):
    write_new(tmp_path / "a", "first")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, "second")
    assert (tmp_path / "a").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]
