"""Checkpoints on disk."""

from __future__ import annotations

from memory_harness.harness.train.checkpoint import keep_newest


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in (8, 100, 9, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "training_state.pt").touch()
    (tmp_path / "as_configured.jsonl").touch()
    keep_newest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-20", "checkpoint-100", "as_configured.jsonl"}
    keep_newest(tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 3
