"""PyTorch's own launcher, as torchrun runs it, for `--num-gpus`: `python -m memory_harness.probes.session.launcher`.

Driven by `session.process` as a worker is: it reads a request on standard input and starts a worker for each GPU with
it. Those answer on its standard output; it adds which of them has died. Signals go to all of them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from memory_harness.probes.session.messages import PEER_LOST, Reply, Request

SECONDS_TO_END = "5"
"""for the other processes of a run, once one has died, to write down where they were; 30 before PyTorch 2.13"""

IS_NOT_HANDLED = "SIGQUIT"
"""PyTorch's launcher ends at the others; a run that trains has a checkpoint to write first, however long that takes"""


def main() -> int:
    """Start the workers, wait for their end; return 0, or 1 where one has died."""
    from memory_harness.probes.session.worker import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _pass_on)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return 0
    request: Request = json.loads(line)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        file.write_text(line, encoding="utf-8")
        died = _launch(request["config"]["device"]["num_gpus"], file)
    if died is not None:
        print(json.dumps(died), flush=True)
    return int(died is not None)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Send a signal to every worker; end by it where there is none yet."""
    workers = psutil.Process().children()
    for worker in workers:
        worker.send_signal(number)
    if not workers:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _launch(number: int, request: Path) -> Reply | None:
    """Run so many workers to their end; return who died first, where one did."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # who died is said in one line, by us
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = SECONDS_TO_END
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle=IS_NOT_HANDLED,
        logs_specs=DefaultLogsSpecs(log_dir=str(request.parent)),
    )
    worker = ("-P", "-m", "memory_harness.probes.session.worker", str(request))
    try:
        elastic_launch(config, sys.executable)(*worker)
    except ChildFailedError as error:
        return _first_death(error.failures)
    return None


def _first_death(failures: dict[int, Any]) -> Reply:
    """Return which worker died by itself, not one that ended because of another; else the first of all.

    Args:
        failures: by rank, in the order in which they were seen; those that the launcher has ended come last.
    """
    codes = [(rank, failure.exitcode) for rank, failure in failures.items()]
    return {"died": next((found for found in codes if found[1] != PEER_LOST), codes[0])}


if __name__ == "__main__":
    sys.exit(main())
