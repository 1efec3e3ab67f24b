"""What the driver counts, read from a scripted NVML; and what CUDA's device makes of it, without a GPU."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.cuda import CudaDevice, private_pools
from memory_harness.harness.devices.nvml import Nvml, open_nvml
from memory_harness.harness.log.records import DriverUse, GpuProcess, MemoryStats, PoolUse

ME = os.getpid()


class ScriptedNvml:
    """Answers as pynvml does; `compute` and `graphics` are what each process uses."""

    class NVMLError(Exception):
        pass

    def __init__(self, used=3 * GIB, compute=None, graphics=None, fails=()):
        self.used, self.compute, self.graphics, self.fails = used, compute or {}, graphics or {}, fails

    def _answer(self, name, value):
        if name in self.fails:
            raise self.NVMLError(name)
        return value

    def nvmlInit(self):
        return self._answer("init", None)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self._answer("handle", f"GPU {index}")

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._answer("memory", SimpleNamespace(used=self.used, total=16 * GIB))

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self._answer("compute", [SimpleNamespace(pid=p, usedGpuMemory=n) for p, n in self.compute.items()])

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        return self._answer("graphics", [SimpleNamespace(pid=p, usedGpuMemory=n) for p, n in self.graphics.items()])


def use(reserved_bytes=GIB, **script):
    return Nvml(ScriptedNvml(**script), "GPU 0").use(reserved_bytes)


def test_this_process_and_a_named_other_one():
    parent = psutil.Process().parent()
    found = use(compute={ME: 2 * GIB, parent.pid: GIB})
    assert found == DriverUse(3 * GIB, 16 * GIB, 2 * GIB, (GpuProcess(parent.pid, parent.name(), GIB),))


@pytest.mark.parametrize(
    ("theirs", "is_peer"),
    [({"RANK": "1"}, True), ({"RANK": "0"}, False), ({"RANK": "1", "MASTER_PORT": "2"}, False), ({}, False)],
    ids=["another rank", "this rank's own child", "another run", "no rank"],
)
def test_a_process_of_the_same_launcher_is_a_peer(theirs, is_peer, monkeypatch):
    of_run = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "LOCAL_RANK": "0"}
    for name, value in (of_run | {"RANK": "0", "LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    environment = {**of_run, **theirs} if theirs else {}
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], env=environment, stdin=pipe, stdout=pipe, bufsize=0) as other:
        # Popen returns before the kernel has laid out the new environment: a process that answers has it.
        other.stdin.write(b"started\n")
        assert other.stdout.readline() == b"started\n"
        (found,) = use(compute={ME: 2 * GIB, other.pid: GIB}).others
    assert found.is_peer is is_peer


def test_a_process_on_both_lists_counts_once():
    assert use(compute={ME: 2 * GIB}, graphics={ME: 2 * GIB, 1: MIB}).own_bytes == 2 * GIB


def test_a_number_that_no_process_has_is_gone():
    (other,) = use(compute={ME: 2 * GIB, 2**22 + 7: GIB}).others
    assert other == GpuProcess(2**22 + 7, "", GIB, is_gone=True)


def test_in_a_container_the_only_process_is_this_one():
    assert use(compute={2**22 + 7: 2 * GIB}) == DriverUse(3 * GIB, 16 * GIB, 2 * GIB, ())


def test_in_a_container_nobody_is_called_gone_and_nobody_guessed():
    found = use(compute={2**22 + 7: 2 * GIB, 2**22 + 8: GIB})
    assert found.own_bytes is None
    assert [process.is_gone for process in found.others] == [False, False]


def test_the_only_process_is_another_one_where_it_holds_too_little():
    assert use(reserved_bytes=GIB, compute={2**22 + 7: MIB}).own_bytes is None


@pytest.mark.parametrize("sizes", [{}, {ME: None}], ids=["none is listed", "sizes are not told"])
def test_without_processes_the_total_is_known(sizes):
    assert use(compute=sizes) == DriverUse(3 * GIB, 16 * GIB)


def test_what_nvml_refuses_is_left_out():
    assert use(fails=("compute", "graphics")) == DriverUse(3 * GIB, 16 * GIB)
    assert use(fails=("memory",)) is None


@pytest.mark.parametrize(
    ("library", "is_there"),
    [(None, False), (ScriptedNvml(fails=("init",)), False), (ScriptedNvml(), True)],
    ids=["no package", "no driver", "both"],
)
def test_opened_where_package_and_driver_are_there(library, is_there, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert (open_nvml(lambda: 0) is not None) is is_there


SEGMENTS = [
    {"device": 0, "total_size": 20 * MIB},
    {"device": 0, "segment_pool_id": (0, 0), "total_size": 20 * MIB},
    {"device": 0, "segment_pool_id": (0, 1), "total_size": 2 * MIB},
    {"device": 0, "segment_pool_id": (0, 1), "total_size": 4 * MIB},
    {"device": 0, "segment_pool_id": [0, 2], "total_size": 8 * MIB},
]


def test_private_pools_are_told_by_their_number():
    assert private_pools(SEGMENTS) == (2, 14 * MIB)
    assert private_pools(SEGMENTS[:2]) == (0, 0)


@pytest.fixture
def cuda_device(monkeypatch):
    """A CUDA device whose memory functions are scripted."""
    device = CudaDevice.__new__(CudaDevice)
    device._nvml, device._keeps_history, device._recording_since = None, False, 0.0
    device._pools_at_bytes, device._private_pools = 0, (0, 0)
    device.reserved_bytes, device.num_snapshots = 40 * MIB, 0

    def snapshot():
        device.num_snapshots += 1
        return [*SEGMENTS, {"device": 1, "segment_pool_id": (0, 3), "total_size": GIB}]

    monkeypatch.setattr(device, "stats", lambda: MemoryStats(reserved_bytes=device.reserved_bytes))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (13 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", snapshot)
    pinned = {"allocated_bytes": {"current": 64 * MIB}, "active_bytes": {"current": MIB}}
    monkeypatch.setattr(torch.cuda.memory, "host_memory_stats_as_nested_dict", lambda: pinned)
    return device


def test_without_nvml_the_card_as_a_whole_is_known(cuda_device):
    assert cuda_device.driver_use() == DriverUse(3 * GIB, 16 * GIB)


def test_segments_are_gone_through_only_where_reserved_has_changed(cuda_device):
    assert cuda_device.pool_use() == cuda_device.pool_use() == PoolUse(2, 14 * MIB, 64 * MIB, MIB)
    assert cuda_device.num_snapshots == 1
    cuda_device.reserved_bytes += 2 * MIB
    cuda_device.pool_use()
    assert cuda_device.num_snapshots == 2


def test_nothing_is_asked_while_events_are_recorded(cuda_device):
    cuda_device._recording_since = 1.0
    assert (cuda_device.pool_use(), cuda_device.num_snapshots) == (None, 0)
