"""What the driver counts while a script is watched and another process takes memory of the same GPU.

python -m tests.bench.driver_series OUT.json            on a CUDA GPU, with nvidia-ml-py

The two keep step by files: at certain steps the script waits until the other process has taken 256 MiB more, at a later
one until it has ended. What the series must show is known therefore: it stands beside it in the result.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory_harness.configs.units import MIB
from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.environment import environment
from memory_harness.probes.detectors import detect
from memory_harness.probes.session.watch import watch_script
from memory_harness.reports.outside import outside_to_json
from tests.bench.records import write_records

TAKES_AT, ENDS_AT, NUM_STEPS, TAKEN_BYTES = (10, 20, 30, 40), 50, 60, 256 * MIB
FOLDER = "DRIVER_SERIES_FOLDER"
READINGS, WAIT_SECONDS = 200, 0.02

SCRIPT = f"""
import os, time
from pathlib import Path
import torch
from torch import nn

folder = Path(os.environ["{FOLDER}"])
model = nn.Sequential(nn.Linear(2048, 8192), nn.GELU(), nn.Linear(8192, 2048)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for step in range(1, {NUM_STEPS + 1}):
    if step in {(*TAKES_AT, ENDS_AT)}:
        (folder / f"asked-{{step}}").touch()
        while not (folder / f"done-{{step}}").exists():
            time.sleep({WAIT_SECONDS})
    x = torch.randn(256, 2048, device="cuda")
    (model(x) - x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def take(folder: Path) -> None:
    """Be the other process: take memory where it is asked for, and end."""
    import torch

    torch.zeros(1, device="cuda")  # its context, before the series begins
    (folder / "ready").touch()
    taken = []
    for step in TAKES_AT:
        _wait_for(folder / f"asked-{step}")
        taken.append(torch.zeros(TAKEN_BYTES, dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        (folder / f"done-{step}").touch()
    _wait_for(folder / f"asked-{ENDS_AT}")


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(WAIT_SECONDS)


def main(output: Path) -> None:
    """Watch the script beside the other process, and write the series and what is found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[FOLDER] = name
        script, log_file = folder / "script.py", folder / "log.jsonl"
        script.write_text(SCRIPT, encoding="utf-8")
        with subprocess.Popen([sys.executable, "-m", "tests.bench.driver_series", "--take", name]) as other:
            _wait_for(folder / "ready")
            end = subprocess.Popen([sys.executable, "-c", _WHEN_ENDED, str(other.pid), name])
            log = watch_script(str(script), (), log_file, device="cuda", gpu=None, budget_bytes=None)
            other.kill()  # it has ended, unless the script died before
            end.wait()
    result: dict[str, Any] = {
        "what": f"a watched script of {NUM_STEPS} steps beside a process that takes {TAKEN_BYTES} bytes at each of the "
        f"steps {TAKES_AT} and ends at step {ENDS_AT}",
        "gpu": log.run.gpu_name,
        "environment": environment(),
        "has_nvml": importlib.util.find_spec("pynvml") is not None,
        "expected_rise_bytes": len(TAKES_AT) * TAKEN_BYTES,
        "seconds_per_reading": _seconds_per_reading(),
        "findings": [[finding.cause, finding.severity, finding.title, finding.bytes] for finding in detect(log)],
        **(outside_to_json(log) or {}),
    }
    write_records(output, result, 2)
    print(output.read_text(encoding="utf-8"))


_WHEN_ENDED = f"""
import pathlib, sys, time, psutil
other, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
while psutil.pid_exists(other) and psutil.Process(other).status() != psutil.STATUS_ZOMBIE:
    time.sleep({WAIT_SECONDS})
(folder / "done-{ENDS_AT}").touch()
"""


def _seconds_per_reading() -> dict[str, float]:
    """Return what one question to the driver and one about the pools take."""
    from memory_harness.harness.devices.cuda import CudaDevice

    device: ObservableDevice = CudaDevice(None, None, share_gpu=True)
    found = {}
    for name, read in (("driver", device.driver_use), ("pools", device.pool_use)):
        read()
        begin = time.perf_counter()
        for _ in range(READINGS):
            read()
        found[name] = (time.perf_counter() - begin) / READINGS
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--take":
        take(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
