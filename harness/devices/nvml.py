"""What the driver counts on a GPU, by process: NVML, through the package nvidia-ml-py where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from memory_harness.configs.launch import launched
from memory_harness.harness.log.records import DriverUse, GpuProcess

OF_RUN = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""variables that are the same in all processes that a launcher starts for one run"""


class Nvml:
    """Reads one GPU.

    Args:
        library: the module pynvml.
        handle: its handle of the GPU.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle
        self._known: dict[int, tuple[str, bool]] = {}
        """of processes: their names, and whether they are peers"""

    def use(self, reserved_bytes: int) -> DriverUse | None:
        """Return what is used, or None where NVML does not answer; `reserved_bytes` are PyTorch's in this process."""
        try:
            memory = self._library.nvmlDeviceGetMemoryInfo(self._handle)
        except self._library.NVMLError:
            return None
        sizes = dict(self._listed())
        own = own_process(sizes, reserved_bytes)
        # a container counts its processes from 1, the driver those of the host: then nobody can tell who is gone
        counts_alike = own == os.getpid()
        others = tuple(self._process(pid, sizes[pid], counts_alike) for pid in sorted(sizes) if pid != own)
        return DriverUse(int(memory.used), int(memory.total), None if own is None else sizes[own], others)

    def _listed(self) -> Iterator[tuple[int, int]]:
        """Yield each process with what it uses; nothing of those whose use is not told, as on Windows."""
        for read in (
            self._library.nvmlDeviceGetGraphicsRunningProcesses,
            self._library.nvmlDeviceGetComputeRunningProcesses,
        ):
            try:
                processes = read(self._handle)
            except self._library.NVMLError:
                continue
            for process in processes:
                if process.usedGpuMemory is not None:
                    yield int(process.pid), int(process.usedGpuMemory)

    def _process(self, pid: int, used_bytes: int, counts_alike: bool) -> GpuProcess:
        if not counts_alike:
            return GpuProcess(pid, "", used_bytes)
        is_gone = _is_gone(pid)
        if not is_gone and pid not in self._known:
            self._known[pid] = (_name_of(pid), _is_peer(pid))
        name, is_peer = self._known.get(pid, ("", False))
        return GpuProcess(pid, name, used_bytes, is_gone, is_peer)


def open_nvml(index: Callable[[], int]) -> Nvml | None:
    """Return a reader of the GPU with that number, or None without the package or where it finds no driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index()))
    except pynvml.NVMLError:
        return None


def own_process(sizes: dict[int, int], reserved_bytes: int) -> int | None:
    """Return which of the listed processes is this one, or None where that is not sure.

    In a container the numbers are not this process's. The only one that is listed is this one where it holds at least
    what PyTorch has reserved here, as this process is on the card too.
    """
    if os.getpid() in sizes:
        return os.getpid()
    if len(sizes) == 1:
        ((pid, used_bytes),) = sizes.items()
        if used_bytes >= reserved_bytes > 0:
            return pid
    return None


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _is_peer(pid: int) -> bool:
    """Return whether a launcher has started a process together with this one, as another rank of the same run."""
    if launched() is None:
        return False
    try:
        theirs = psutil.Process(pid).environ()
    except psutil.Error:
        return False
    is_same_run = all(theirs.get(name) == os.environ.get(name) for name in OF_RUN)
    return is_same_run and theirs.get("RANK") not in (None, os.environ["RANK"])


def _name_of(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
