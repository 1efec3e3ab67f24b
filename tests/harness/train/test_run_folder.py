"""A run that is stopped and resumed is the run that never stopped, bit by bit; what cannot be resumed is refused."""

import hashlib
import json
import os
import resource
import shutil
import threading
from contextlib import ExitStack, contextmanager

import pytest

from memory_harness.configs.preset import config_of_run
from memory_harness.configs.schema import fields_of_sections
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.manifest import (
    CONFIG_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    START,
    Manifest,
    changed_fields,
    checkpoints,
)
from memory_harness.harness.log.records import EvalRecord, Outcome, Phase, PhaseBegin, StepRecord
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.harness.strategies.state import STATE_FILE
from memory_harness.harness.train import checkpoint
from memory_harness.harness.train.run_folder import LOCK_FILE, locked
from tests.harness.train.training_runs import CONFIG, are_equal, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing disturbs."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """The folder of a run that was asked to stop after its third step."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    train_until(run, lambda record: isinstance(record, StepRecord) and record.step == 3)
    return run


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def train_until(run, reached, **options):
    """Train until a record asks to stop."""
    asked = []

    def watch(record):
        if reached(record):
            asked.append("SIGTERM")

    return train(run, also=watch, stop=lambda: asked[-1] if asked else "", **options)


def test_it_evaluates_saves_and_answers(whole):
    assert whole.outcome is Outcome.COMPLETED
    assert [step.step for step in whole.log.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [record.step for record in whole.log.evals] == [2, 4, 6, 7]
    assert len(whole.replies) == 2
    assert [m.model for m in whole.log.metrics] == ["tuned"]


def test_it_evaluates_nothing_where_it_is_told_so_and_answers_all_the_same(tmp_path):
    trained = train(tmp_path / "run", CONFIG.with_fields(do_eval=False, max_steps=2))
    assert trained.outcome is Outcome.COMPLETED
    assert not trained.log.evals
    assert not [record for record in trained.log.phases if record.phase is Phase.EVAL]
    assert (len(trained.replies), len(trained.log.metrics)) == (2, 1)
    assert trained.log.metrics[0].perplexity is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "reached",
    [
        lambda record: isinstance(record, StepRecord) and record.step == 3,
        lambda record: isinstance(record, StepRecord) and record.step == 4,  # its evaluation is due
        lambda record: isinstance(record, PhaseBegin) and (record.phase, record.step) == (Phase.EVAL, 4),
        lambda record: isinstance(record, EvalRecord) and record.step == 7,  # of the end, before the replies
    ],
    ids=["between", "before evaluation", "in evaluation", "at the end"],
)
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(whole, reached, tmp_path):
    first = train_until(tmp_path / "run", reached)
    assert first.outcome is first.log.outcome is Outcome.STOPPED
    assert "SIGTERM" in first.log.end.message
    second = train(tmp_path / "run", resume=tmp_path / "run")
    assert second.outcome is Outcome.COMPLETED
    assert second.losses == whole.losses
    assert second.replies == whole.replies
    assert are_equal(second.states, whole.states)


def test_a_resumed_run_began_when_its_first_process_did(stopped):
    before = read_run_log(stopped / LOG_FILE)
    after = train(stopped, resume=stopped).log
    assert after.run.started_at == before.run.started_at <= after.run.resumed_at
    kept = sum(phase.seconds for phase in before.phases)
    assert 0.5 * kept < after.run.seconds_before <= kept
    assert after.seconds == after.run.seconds_before + after.end.seconds


def test_what_came_after_the_checkpoint_is_set_aside(stopped):
    log = (stopped / LOG_FILE).read_bytes()
    train(stopped, resume=stopped)
    kept_and_lost = (stopped / LOG_FILE).read_bytes(), (stopped / "run.lost-1.jsonl").read_bytes()
    assert kept_and_lost[0].startswith(log[: -len(kept_and_lost[1])])
    assert log.endswith(kept_and_lost[1])


def test_an_older_checkpoint_supersedes_those_after_it(stopped, whole):
    again = train(stopped, resume=stopped / "checkpoint-2")
    assert again.losses == whole.losses
    assert are_equal(again.states, whole.states)
    assert (stopped / "superseded-checkpoint-3-1").is_dir()


def test_a_changed_configuration_is_refused_by_name_unless_asked_for(stopped):
    changed = CONFIG.with_fields(learning_rate=1e-3, lora_dropout=0.0, gpu="l4", output="elsewhere")
    with pytest.raises(CheckpointError) as refused:
        train(stopped, changed, resume=stopped)
    assert f"learning_rate ({CONFIG.train.learning_rate} -> 0.001)" in str(refused.value)
    assert "lora_dropout (0.05 -> 0.0)" in str(refused.value)
    assert "gpu" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "--allow-changes" in str(refused.value)
    assert train(stopped, changed, resume=stopped, allow_changes=True).outcome is Outcome.COMPLETED


def test_a_checkpoint_of_before_a_setting_was_there_is_one_of_its_default():
    saved = CONFIG.to_dict()
    for section, item in fields_of_sections():
        if item.metadata.get("came_later"):
            del saved[section][item.name]
    of_before = Manifest(START, saved, "", "", {})
    assert changed_fields(of_before, CONFIG) == []
    assert changed_fields(of_before, CONFIG.with_fields(adam_beta1=0.8)) == ["adam_beta1 (0.9 -> 0.8)"]


def test_groups_of_weights_that_are_others_are_refused(stopped):
    with pytest.raises(CheckpointError, match="--weight-decay"):
        train(stopped, CONFIG.with_fields(weight_decay=0.1), resume=stopped, allow_changes=True)


def test_an_adapter_of_another_shape_is_refused_even_then(stopped):
    with pytest.raises(CheckpointError, match="--lora-rank"):
        train(stopped, CONFIG.with_fields(lora_rank=4), resume=stopped, allow_changes=True)


def content_of(run):
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("changes", [{"lora_rank": 4}, {"optimizer": "adamw_8bit"}], ids=["shape", "optimizer"])
def test_a_refused_attempt_changes_nothing(changes, stopped):
    before = content_of(stopped)
    with pytest.raises(CheckpointError):
        train(stopped, CONFIG.with_fields(**changes), resume=stopped / "checkpoint-2", allow_changes=True)
    assert content_of(stopped) == before


def test_a_change_that_was_allowed_stays_so_where_the_run_is_killed_at_once(stopped):
    changed = CONFIG.with_fields(learning_rate=1e-3)

    def kill(record):
        if isinstance(record, PhaseBegin) and record.phase is Phase.FORWARD:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, changed, resume=stopped, allow_changes=True, also=kill)
    assert config_of_run("--resume", stopped) == changed
    assert config_of_run("--resume", stopped / "checkpoint-2") == CONFIG
    assert train(stopped, changed, resume=stopped).outcome is Outcome.COMPLETED


def test_a_change_counts_once_the_run_has_been_restored(stopped, monkeypatch):
    """Killed before, it goes on as it was."""
    changed = CONFIG.with_fields(learning_rate=1e-3)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("memory_harness.harness.train.run_folder.set_aside", kill)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, changed, resume=stopped, allow_changes=True)
    assert config_of_run("--resume", stopped) == CONFIG
    assert train(stopped, resume=stopped).outcome is Outcome.COMPLETED


def test_a_folder_with_a_run_is_not_begun_anew(stopped):
    before = sorted(path.name for path in stopped.iterdir())
    with pytest.raises(CheckpointError, match="--resume"):
        train(stopped)
    assert sorted(path.name for path in stopped.iterdir()) == before


def test_two_runs_do_not_share_a_folder(stopped):
    error = []

    def second():
        try:
            train(stopped, resume=stopped)
        except CheckpointError as refused:
            error.append(str(refused))

    with locked(stopped):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"another process ({os.getpid()} on " in error[0]
    assert (stopped / LOCK_FILE).exists()


def damage_truncate(folder):
    path = folder / STATE_FILE
    path.write_bytes(path.read_bytes()[:-100])
    return f"{STATE_FILE} has"


def damage_flip(folder):
    path = folder / STATE_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return f"{STATE_FILE} does not match its checksum"


def damage_missing_file(folder):
    (folder / checkpoint.RANDOM_FILE).unlink()
    return f"{checkpoint.RANDOM_FILE} is missing"


def damage_manifest_cut(folder):
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text()[:-20])
    return "not whole"


def damage_manifest_changed(folder):
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text().replace('"step": 3', '"step": 2'))
    return f"{MANIFEST_FILE} does not match its checksum"


def damage_future(folder):
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    return "newer release"


def damage_version_of_another_kind(folder):
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": "2"}))
    return f"its {MANIFEST_FILE} is another one's"


def damage_rewritten(folder):
    """By a program that knows how to make the checksum, but not what belongs in."""
    path = folder / MANIFEST_FILE
    manifest = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("checksum", "position")}
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**manifest, "checksum": checksum}))
    return f"{MANIFEST_FILE} holds something else"


def damage_manifest_is_a_folder(folder):
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).mkdir()
    return "it is a folder, not a file"


def damage_foreign(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "trainer_state.json").write_text("{}")
    return "not a checkpoint of this program"


def damage_foreign_manifest(folder):
    (folder / MANIFEST_FILE).write_text('{"version": 1}')
    return "not a checkpoint of this program"


def damage_foreign_version(folder):
    (folder / MANIFEST_FILE).write_text('{"schema_version": "2.0", "checksum": ""}')
    return "not a checkpoint of this program"


def damage_gone(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return "no such checkpoint"


@pytest.mark.parametrize("damage", [f for name, f in sorted(globals().items()) if name.startswith("damage_")])
def test_a_bad_checkpoint_is_one_clear_line(damage, stopped):
    folder = checkpoints(stopped)[-1]
    expected = damage(folder)
    log = (stopped / LOG_FILE).read_bytes()
    with pytest.raises(CheckpointError) as refused:
        train(stopped, resume=folder)
    message = str(refused.value)
    assert expected in message
    assert "\n" not in message
    assert str(folder) in message
    assert "checkpoint-2" in message  # what else could be given
    assert (stopped / LOG_FILE).read_bytes() == log


def test_a_checkpoint_that_was_lost_between_two_renames_is_found_again(stopped, whole):
    for folder in checkpoints(stopped):
        folder.rename(stopped / f".{folder.name}.replaced")
    again = train(stopped, resume=stopped)
    assert again.losses == whole.losses


def test_a_folder_without_checkpoints_is_no_silent_restart(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(tmp_path, resume=tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        train(tmp_path, resume=tmp_path / "nowhere")


def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path, monkeypatch):
    def refuse(run, save, about):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("memory_harness.harness.train.recovery.write_checkpoint", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\); make room"):
        train(tmp_path)


def test_a_configuration_that_is_refused_does_not_become_the_runs(stopped):
    before = (stopped / CONFIG_FILE).read_text()
    with pytest.raises(CheckpointError, match="--lora-rank"):
        train(stopped, CONFIG.with_fields(lora_rank=4), resume=stopped, allow_changes=True)
    assert (stopped / CONFIG_FILE).read_text() == before


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(whole, tmp_path, monkeypatch):
    def refuse(run, save, about):
        if about.position.step == 4:
            raise OSError(28, "No space left on device")
        return checkpoint.write_checkpoint(run, save, about)

    monkeypatch.setattr("memory_harness.harness.train.recovery.write_checkpoint", refuse)
    run = train(tmp_path)
    assert run.outcome is Outcome.COMPLETED
    assert run.losses == whole.losses
    assert [(r.step, r.action, r.detail) for r in run.log.recoveries] == [
        (4, "skip-checkpoint", "No space left on device")
    ]


def test_a_checkpoint_that_cannot_be_removed_is_no_skipped_one(tmp_path, monkeypatch):
    def refuse(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError(13, "Permission denied")

    monkeypatch.setattr("memory_harness.harness.train.checkpoint.shutil.rmtree", refuse)
    run = train(tmp_path, CONFIG.with_fields(max_steps=4, generate_prompts=0, keep_checkpoints=2))
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-0", "checkpoint-2", "checkpoint-4"]
    assert [(record.action, record.detail) for record in run.log.recoveries] == [("keep-outdated", "Permission denied")]


def test_a_stop_names_the_checkpoint_that_there_is(tmp_path, monkeypatch):
    def refuse(run, save, about):
        if about.position.step == 3:
            raise OSError(28, "No space left on device")
        return checkpoint.write_checkpoint(run, save, about)

    monkeypatch.setattr("memory_harness.harness.train.recovery.write_checkpoint", refuse)
    run = train_until(tmp_path, lambda record: isinstance(record, StepRecord) and record.step == 3)
    assert run.log.end.message == "stopped by SIGTERM at step 3, of which there is no checkpoint, but checkpoint-2"


@contextmanager
def full_disk(num_bytes):
    """Within, no file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_be_written_stops_the_run_at_its_last_checkpoint(whole, tmp_path):
    disk = ExitStack()

    def fill(record):
        if isinstance(record, StepRecord) and record.step == 5:
            disk.enter_context(full_disk((tmp_path / LOG_FILE).stat().st_size + 100))

    with disk, pytest.raises(CheckpointError) as stopped:
        train(tmp_path, also=fill)
    assert str(stopped.value).startswith(
        f"{tmp_path / LOG_FILE}: the log cannot be written (File too large); make room"
    )
    assert str(stopped.value).endswith(f"--resume {tmp_path}")
    assert read_run_log(tmp_path / LOG_FILE).num_unreadable_lines == 0
    again = train(tmp_path, resume=tmp_path)
    assert again.losses == whole.losses
    assert are_equal(again.states, whole.states)


def test_a_folder_that_takes_no_checkpoint_is_told_before_the_first_step(tmp_path, monkeypatch):
    def refuse(run, save, about):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("memory_harness.harness.train.recovery.write_checkpoint", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
        train(tmp_path)


def test_a_checkpoint_that_fails_half_way_leaves_the_one_before(stopped, monkeypatch):
    before = [path.name for path in checkpoints(stopped)]

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_seal", fail)
    about = checkpoint.read_manifest(stopped / before[-1])
    with pytest.raises(OSError, match="No space"):
        checkpoint.write_checkpoint(stopped, lambda folder: (folder / "training_state.pt").touch(), about)
    assert [path.name for path in checkpoints(stopped)] == before
    checkpoint.read_manifest(stopped / before[-1])
    assert not list(stopped.glob(".*.partial"))
