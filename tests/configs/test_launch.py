"""What a launcher says of the processes that it starts decides how many GPUs train together."""

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.launch import Launched, launched, leads

SECOND_OF_TWO = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def second(monkeypatch):
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)


def test_one_process_is_not_launched_with_others(monkeypatch):
    assert launched() is None
    assert leads()
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some batch systems leave it
    assert launched() is None


def test_two_processes_are_two_gpus(second):
    assert launched() == Launched(rank=1, local_rank=1, size=2, local_size=2)
    assert not leads()
    device = parse_args(["--preset", "smoke_cpu"]).config.device
    assert (device.num_gpus, device.engine) == (2, "ddp")
    assert parse_args(["--preset", "smoke_cpu", "--num-gpus", "2"]).config.device == device


def test_two_hosts_are_told_apart(second, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launched() == Launched(rank=1, local_rank=1, size=4, local_size=2)


def test_another_number_of_gpus_than_processes_is_refused(second):
    with pytest.raises(ConfigError, match=r"--num-gpus 3: .* 2 processes.*allowed: 2.*--nproc-per-node"):
        parse_args(["--preset", "smoke_cpu", "--num-gpus", "3"])


def test_a_script_that_is_watched_knows_by_itself(second, tmp_path):
    (tmp_path / "train.py").touch()
    assert parse_args(["--watch", str(tmp_path / "train.py")]).config.device.num_gpus == 1


def test_variables_that_are_no_numbers_are_refused(second, monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match=r"RANK=first.*torchrun"):
        launched()
