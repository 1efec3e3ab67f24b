"""Locks: who holds one is said, and a wait ends."""

import os
import threading

import pytest

from memory_harness.harness.log import locks
from memory_harness.harness.log.locks import LockHeld, lock


def in_another_thread(path, **options):
    """Return what comes of taking a lock that this thread holds; threads lock files apart, as processes do."""
    found = []

    def take():
        try:
            lock(path, **options).lock.release()
        except LockHeld as error:
            found.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found


def test_who_holds_it_is_said_and_the_wait_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "SECONDS_IN_SILENCE", 0.05)
    with lock(tmp_path / "run.lock"):
        (reason,) = in_another_thread(tmp_path / "run.lock", seconds=0.2)
    assert reason.startswith(f"another process ({os.getpid()} on ")
    assert f"waiting for another process ({os.getpid()} on " in capsys.readouterr().err


def test_where_nobody_waits_nothing_is_said(tmp_path, capsys):
    with lock(tmp_path / "run.lock"):
        assert in_another_thread(tmp_path / "run.lock", seconds=0)
    assert in_another_thread(tmp_path / "run.lock") == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"x" * 5000])
def test_a_lock_s_file_may_hold_anything(note, tmp_path):
    (tmp_path / "run.lock").write_bytes(note)
    assert locks.holder_of(tmp_path / "run.lock").startswith("another process")
