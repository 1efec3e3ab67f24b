"""What watching a script costs: blocks of the same training steps, watched and not, alternating in one process.

python -m tests.bench.watch_cost [OUT.json]   three small models on one core of the CPU, in seconds of that core: the
                                              first steps, all of which are traced, and later ones, of which some are
python -m tests.bench.watch_cost --gpu        a QLoRA step of Llama-3.1-8B with random weights, on a CUDA GPU: in
                                              seconds, and in seconds of the processor that drives the GPU
python -m tests.bench.watch_cost --parts      the calls of such a step that are watched, counted without a GPU, times
                                              what one of them costs on this processor
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.runlog import LogWriter
from memory_harness.harness.observe.own_loop import choose_device
from memory_harness.harness.observe.sampling import WARM_UP_STEPS
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.harness.train.loop import train_step
from tests.bench.agreement import CONFIGURATIONS, batch_of, train
from tests.bench.recorder_overhead import NoRecorder
from tests.bench.records import write_records

LENGTH = 2048
SETTLING_STEPS = 3
"""first steps of a block that are not timed: the optimizer is looked at closely in them"""

GPU_BLOCKS, GPU_STEPS = 8, 9
"""of each kind, and steps in one, the first ones left out"""

Step = Callable[[], object]
Clock = Callable[[], float]


def perceptron() -> Step:
    """Return a step of a model with 3 thousand parameters on 32 samples: nothing but PyTorch's own overhead."""
    return _step_of(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), lambda: torch.randn(32, 32))


def digits() -> Step:
    """Return a step of the perceptron of many a tutorial, on 128 pictures of 28 x 28."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return _step_of(model, lambda: torch.randn(128, 784))


def transformer() -> Step:
    """Return a step of a language model with 0.5 million parameters on 8 sequences of 64 tokens."""
    layers = [nn.TransformerEncoderLayer(128, 4, 256, batch_first=True) for _ in range(2)]
    model = nn.Sequential(nn.Embedding(1000, 128), *layers, nn.Linear(128, 1000))
    return _step_of(model, lambda: torch.randint(1000, (8, 64)))


def _step_of(model: nn.Module, make_batch: Callable[[], torch.Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        loss = model(make_batch()).logsumexp(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@contextmanager
def qlora(device: Device) -> Iterator[Step]:
    """Yield a step of the 8B model, as the harness's own loop makes it."""
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    config = next(c for c in CONFIGURATIONS if c.name == "outputs-dropped").config
    strategy, batch = QLoraStrategy(config, device), batch_of(train(LENGTH))
    with device.active():
        strategy.load()

        def step() -> None:
            train_step(strategy, NoRecorder(), [batch], 1e-4)  # type: ignore[arg-type]
            torch.cuda.synchronize()

        yield step


def milliseconds(step: Step, count: int, clock: Clock) -> float:
    """Return the mean time of a step, the first ones left out."""
    for _ in range(SETTLING_STEPS):
        step()
    begin = clock()
    for _ in range(count):
        step()
    return 1000 * (clock() - begin) / count


def measure(
    name: str, step: Step, device: Callable[[], Device], *, blocks: int, count: int
) -> dict[str, str | float | int]:
    """Return medians over blocks of steps without and with, and the ratios of medians; prints them as a row."""
    off, traced, on = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for block in range(blocks):
            off.append(milliseconds(step, count, time.process_time))
            with LogWriter(Path(folder) / f"{block}.jsonl") as writer:
                observer = ScriptObserver(device(), writer.write, name)
                with observer.running():
                    traced.append(milliseconds(step, WARM_UP_STEPS - SETTLING_STEPS, time.process_time))
                    on.append(milliseconds(step, count, time.process_time))
    middle = statistics.median(off)
    row: dict[str, str | float | int] = {
        "model": name,
        "steps": count,
        "blocks": blocks,
        "off_ms": round(middle, 3),
        "traced_ms": round(statistics.median(traced), 3),
        "on_ms": round(statistics.median(on), 3),
        "traced_ratio": round(statistics.median(traced) / middle, 2),
        "ratio": round(statistics.median(on) / middle, 2),
    }
    print(*row.values(), sep="  ", flush=True)
    return row


def measure_on_gpu(step: Step, device: Device) -> None:
    """Print how single steps differ: a host that is shared adds to some steps what has nothing to do with watching."""
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for block in range(2 * GPU_BLOCKS):
            watched = block % 4 in (1, 2)  # off, on, on, off: a drift falls on both alike
            with ExitStack() as stack:
                if watched:
                    writer = stack.enter_context(LogWriter(Path(folder) / f"{block}.jsonl"))
                    stack.enter_context(ScriptObserver(device, writer.write, "qlora").running())
                times[watched] += [_times(step) for _ in range(GPU_STEPS)][SETTLING_STEPS:]
    for name, index in (("seconds", 0), ("processor's seconds", 1)):
        off, on = ([each[index] for each in times[watched]] for watched in (False, True))
        low, middle, high = ratio_of_medians(off, on)
        medians = f"{1000 * statistics.median(off):.1f} -> {1000 * statistics.median(on):.1f} ms"
        quickest = f"quickest {1000 * min(off):.1f} -> {1000 * min(on):.1f} ms"
        print(f"{name:20} {medians} a step, ratio {middle:.3f} ({low:.3f} to {high:.3f} of resamplings); {quickest}")


def _times(step: Step) -> tuple[float, float]:
    begin = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def ratio_of_medians(off: list[float], on: list[float]) -> tuple[float, float, float]:
    """Return the ratio's 2.5 % quantile over resamplings of both, itself, and the 97.5 % quantile."""
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(sample, (2000, len(sample))), axis=1) for sample in (on, off)]
    low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975))
    return float(low), statistics.median(on) / statistics.median(off), float(high)


def measure_parts() -> None:
    """Print how often a QLoRA step of the 8B model calls what is wrapped, and what the wrappers add to a call."""
    from memory_harness.harness.strategies.qlora import QLoraStrategy
    from memory_harness.harness.train.run import simulate_card

    config = next(c for c in CONFIGURATIONS if c.name == "outputs-dropped").config
    device = simulate_card(config.with_fields(tensors="fake"), find_card("h100"))
    strategy, batch = QLoraStrategy(config, device), batch_of(train(LENGTH))
    counts = {"__call__": 0, "to": 0}
    with device.active(), ExitStack() as stack:
        strategy.load()
        for owner, name in ((nn.Module, "__call__"), (torch.Tensor, "to")):
            stack.enter_context(patch.object(owner, name, _counted(getattr(owner, name), name, counts)))
        train_step(strategy, NoRecorder(), [batch], 1e-4)  # type: ignore[arg-type]
    module, tensor = nn.Identity(), torch.zeros(())
    calls: dict[str, Step] = {"__call__": lambda: module(tensor), "to": lambda: tensor.to(torch.float32)}
    observer = ScriptObserver(choose_device("simulated", None, None), lambda record: None, "parts")
    observer.call_depth = 1  # inside the model's own call, as nearly all are
    for owner, name, wrapper in observer.patches():
        if name in calls and owner in (nn.Module, torch.Tensor):
            off = _nanoseconds(calls[name])
            with patch.object(owner, name, wrapper):
                added = _nanoseconds(calls[name]) - off
            total = counts[name] * added / 1e6
            print(f"{owner.__name__}.{name}: {counts[name]} a step, {added:.0f} ns each, {total:.2f} ms a step")


def _counted(function: Callable[..., Any], name: str, counts: dict[str, int]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return function(*args, **kwargs)

    return call


def _nanoseconds(call: Step, number: int = 20_000) -> float:
    return min(timeit.repeat(call, number=number, repeat=9)) / number * 1e9


def main() -> None:
    """Print the table."""
    if "--parts" in sys.argv:
        measure_parts()
        return
    if "--gpu" in sys.argv:
        device = choose_device("cuda", None, None)
        with qlora(device) as step:
            print(f"a QLoRA step of Llama-3.1-8B, {LENGTH} tokens, on {device.gpu_name}, torch {torch.__version__}")
            measure_on_gpu(step, device)
        return
    torch.set_num_threads(1)

    def simulated() -> Device:
        return choose_device("simulated", None, None)

    rows = [
        measure("perceptron, 3 thousand parameters", perceptron(), simulated, blocks=5, count=400),
        measure("perceptron, 0.3 million parameters", digits(), simulated, blocks=5, count=150),
        measure("transformer, 0.5 million parameters", transformer(), simulated, blocks=3, count=60),
    ]
    if len(sys.argv) > 1:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "threads": 1}
        write_records(Path(sys.argv[1]), {"environment": versions, "rows": rows}, 2)


if __name__ == "__main__":
    main()
