"""Checkpoints on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.manifest import Manifest, Position
from memory_harness.harness.strategies.state import read_tensors
from memory_harness.harness.train.checkpoint import keep_newest, restore_checkpoint, write_checkpoint


class Elsewhere:
    """What a pickle may ask for that is no tensor."""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("content", [b"", b"abc", pickle.dumps({"a": 1}), pickle.dumps(Elsewhere())])
def test_a_state_file_of_other_contents_is_one_line_without_advice(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_tensors(tmp_path / "state.pt")
    assert "holds something else than tensors" in str(error.value)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "touched").exists()


def restores(error):
    def restore(folder):
        raise error

    return restore


@pytest.mark.parametrize(
    "error", [KeyError("optimizer"), RuntimeError("size mismatch"), TypeError("None"), ValueError()]
)
def test_a_checkpoint_with_right_checksums_and_other_contents_is_one_line(error, tmp_path):
    folder = write_checkpoint(tmp_path, lambda to: None, Manifest(Position(2), {}, "", "", {}))
    with pytest.raises(CheckpointError, match="hold something else than a checkpoint does"):
        restore_checkpoint(folder, restores(error))


def test_a_lack_of_memory_in_a_restore_stays_what_it_is(tmp_path):
    folder = write_checkpoint(tmp_path, lambda to: None, Manifest(Position(2), {}, "", "", {}))
    with pytest.raises(torch.OutOfMemoryError):
        restore_checkpoint(folder, restores(torch.OutOfMemoryError("no room")))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in (8, 100, 9, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "training_state.pt").touch()
    (tmp_path / "as_configured.jsonl").touch()
    keep_newest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-20", "checkpoint-100", "as_configured.jsonl"}
    keep_newest(tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 3
