"""What each fix is worth on the 8B recipe, and whether the chosen ones hold: measured on a GPU, predicted without one.

    python -m tests.bench.fixes ladder   FILE.json              each fix: before, after, time, agreement of losses
    python -m tests.bench.fixes choose   FILE.json              what the planner picks for the two commands below
    python -m tests.bench.fixes variable FILE.json              lengths that vary without a cap: stock, then with fixes
    python -m tests.bench.fixes planned  FILE.json              the default command's recipe with the choice
    python -m tests.bench.fixes ladder   FILE.json --predict    the same runs, simulated; goes beside the measurements
    python -m tests.bench.fixes table    FILE.json              both as markdown
    python -m tests.bench.fixes ladder   FILE.json --tiny       a tiny model on real tensors: does it run at all

Every run is a process of its own, held to what a T4 has: its memory, float16, no flash attention. Losses are compared
over the same samples from the same random weights; how far two runs of the same recipe differ is measured beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from memory_harness.configs.cards import Card, emulated, find_card
from memory_harness.configs.cli import DEFAULT_HEADROOM
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, format_bytes, parse_bytes, parse_part
from memory_harness.harness.data.batching import Example
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.records import Record
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.probes.fixes import FIXES
from tests.bench.records import write_records

TARGET, HOST = "t4", "h100"
"""the card that a run is held to, and the GPU that measures (or is simulated)"""

ROOMY = "70 GiB"
"""for what does not fit the target: its losses, and how much it would have reserved"""

NUM_PROCESSES = 3
"""at once: one runs on the GPU, the others import PyTorch meanwhile"""

LENGTH, PADDING = 2048, 2
NUM_STEPS, NUM_EVAL = 4, 8
VARIABLE_STEPS, LADDER_VARIABLE_STEPS = 64, 16

STOCK = load_preset("as_published").with_fields(
    max_length=LENGTH,
    samples=64,
    epochs=1,
    eval_batch_size=1,
    generate_prompts=0,
    gpu=TARGET,
    pad_to_multiple_of=64,
)
"""the published recipe, but for its evaluation batch, which alone would end every run"""

TINY = {"model": "tiny-llama", "max_length": 128, "dtype": "float32", "device": "simulated", "tensors": "real"}
TINY_SCALE = 16
"""2048 tokens become 128"""


@dataclass(frozen=True)
class Run:
    """One run: how it differs from `STOCK`, and what it is fed."""

    changes: tuple[tuple[str, Any], ...] = ()
    data: str = "padded"
    """padded: full length but for two tokens; full: not even these; variable: any length; corpus: the synthetic one"""
    budget: str | None = None
    """the target's when None"""
    steps: int = NUM_STEPS
    repeat: int = 0
    """tells apart runs of the same recipe"""
    rehearsal: bool = False

    @property
    def config(self) -> RunConfig:
        """The recipe."""
        budget = None if self.budget is None else parse_bytes(self.budget)
        return STOCK.with_fields(budget_bytes=budget, max_steps=self.steps, **dict(self.changes))

    @property
    def name(self) -> str:
        """What differs from stock, unique."""
        parts = [f"{key}={value}" for key, value in self.changes]
        parts += [self.data] if self.data != "padded" else []
        parts += [f"budget={self.budget}"] if self.budget else []
        parts += [f"steps={self.steps}"] if self.steps not in (NUM_STEPS, LADDER_VARIABLE_STEPS) else []
        parts += [f"repeat={self.repeat}"] if self.repeat else []
        return " ".join(parts) or "stock"

    def with_fixes(self, *names: str) -> Run:
        """Return the run with the fixes applied."""
        config = self.config
        for name in names:
            config = FIXES[name].apply(config) or config
        return replace(self, changes=_changes(config))


def _changes(config: RunConfig) -> tuple[tuple[str, Any], ...]:
    ours = ("budget_bytes", "max_steps")
    return tuple(
        (name, value)
        for section, values in config.to_dict().items()
        for name, value in values.items()
        if name not in ours and STOCK.to_dict()[section][name] != value
    )


@dataclass(frozen=True)
class Case:
    """A fix, the run that needs it, and the run that gives the losses where the first one does not finish."""

    fix: str
    before: Run
    losses: Run | None = None

    @property
    def after(self) -> Run:
        """The run with the fix."""
        return self.before.with_fixes(self.fix)


def _run(data: str = "padded", **changes: Any) -> Run:
    return Run(tuple(changes.items()), data, steps=LADDER_VARIABLE_STEPS if data == "variable" else NUM_STEPS)


_LARGE_EVALUATION = _run(eval_batch_size=8)
_VARIABLE = _run("variable", batching="dynamic")

_FULL = {
    "model": "llama-3.2-1b",
    "quantization": "none",
    "kbit_upcast": False,
    "weights_dtype": "float32",
    "finetuning_type": "full",
}

CASES = (
    Case("drop-outputs", _run(hold_outputs=True)),
    Case("cache-off", _run(use_cache=True)),
    Case("eval-batch", _LARGE_EVALUATION, replace(_LARGE_EVALUATION, budget=ROOMY)),
    Case("expandable-segments", _VARIABLE),
    Case("clear-before-eval", _VARIABLE),
    Case("clear-cache", _VARIABLE),
    Case("no-upcast", _run()),
    Case("auto-attention", _run(attention="math")),
    Case("optimizer-8bit", _run()),
    Case("expand-kv", _run("full")),
    Case("paged-optimizer", _run(lora_rank=64)),
    Case("chunked-loss", _run()),
    Case("liger-loss", _run()),
    Case("embeddings-on-host", _run()),
    Case("tiled-mlp", _run(loss="chunked", kbit_upcast=False)),
    Case("offload-activations", _run()),
    Case("bucketed-batches", _VARIABLE),
    Case("quantise-experts", _run(model="tiny-moe")),
    Case("adafactor", replace(_run(**_FULL), budget=ROOMY)),
    Case("train-adapter", replace(_run(**_FULL), budget=ROOMY)),
    Case("truncation", _run()),
)
REPEATED = (replace(_run(), repeat=1), replace(_VARIABLE, repeat=1))
"""the same again: what differs then is the GPU's own"""


def ladder_runs() -> list[Run]:
    """Return every run of `CASES` once; without those of a fix that cannot be applied here."""
    runs: dict[Run, None] = {}
    for case in CASES:
        if case.after != case.before:
            runs |= dict.fromkeys(run for run in (case.before, case.after, case.losses) if run is not None)
    return [*runs, *REPEATED]


def variable_runs(fixes: Sequence[str]) -> list[Run]:
    """Return the stock recipe on varying lengths with room and without, and the recipe with the fixes."""
    stock = replace(_VARIABLE, steps=VARIABLE_STEPS)
    return [replace(stock, budget=ROOMY), stock, stock.with_fixes(*fixes)]


def planned_runs(fixes: Sequence[str]) -> list[Run]:
    """Return the default command's recipe with the fixes, rehearsed over 4000 samples."""
    recipe = Run((("samples", 4000), ("epochs", 2), ("eval_batch_size", 8), ("generate_prompts", 4)), "corpus")
    return [replace(recipe.with_fixes(*fixes), rehearsal=True)]


def execute_run(run: Run, mode: str) -> dict[str, Any]:
    """Carry out one run here: `measure` on the GPU, `predict` on fake tensors, `tiny` on real ones."""
    warnings.simplefilter("ignore", FutureWarning)
    config = run.config.with_fields(**TINY) if mode == "tiny" else run.config
    from memory_harness.harness.train.execute import execute
    from memory_harness.harness.train.run import Run, make_strategy

    device = _open(config, mode)
    records: list[Record] = []
    with TemporaryDirectory() as folder:
        strategy = make_strategy(config, device)
        config = config.with_fields(max_steps=None) if run.rehearsal else config
        data = prepared(run, config)
        opened = Run(config, device, strategy, data)
        execute(opened, records.append, Path(folder), rehearsal=run.rehearsal)
    return summary(collect(records))


def _open(config: RunConfig, mode: str) -> Any:
    from memory_harness.harness.train.run import simulate_card

    if mode != "measure":
        return simulate_card(config, card())
    from memory_harness.harness.devices.cuda import CudaDevice, host_card

    target = find_card(TARGET)
    budget = config.device.budget_bytes or target.budget_bytes
    return CudaDevice(
        host_card(target),
        budget,
        attention=config.model.attention,
        expandable_segments=config.device.expandable_segments,
        share_gpu=True,
    )


def card() -> Card:
    """Return the target as the measuring GPU emulates it."""
    return emulated(find_card(TARGET), find_card(HOST))


def prepared(run: Run, config: RunConfig) -> Prepared:
    """Return the run's samples, with ids of their own: what is compared has to be the same tokens."""
    vocab_size = find_model(config.model.model).vocab_size
    data = prepare(config)
    if run.data == "corpus":
        return data
    scale = TINY_SCALE if config.model.model == TINY["model"] else 1
    num_train = run.steps * config.train.train_batch_size * config.train.gradient_accumulation
    rng = np.random.default_rng(0)
    longest = LENGTH // scale
    lengths = {
        "padded": [longest - PADDING] * (num_train + NUM_EVAL),
        "full": [longest] * (num_train + NUM_EVAL),
        "variable": [int(n) * 64 // scale for n in rng.integers(1, 33, num_train + NUM_EVAL)],
    }[run.data]
    # cut as a tokenizer's truncation would
    ids = [rng.integers(0, vocab_size, length) for length in lengths]
    cut = [tuple(int(i) for i in sample[: config.data.max_length]) for sample in ids]
    examples = [Example(len(sample), 1, sample) for sample in cut]
    return replace(data, train=examples[:num_train], eval=examples[num_train:], prompts=[])


def summary(log: RunLog) -> dict[str, Any]:
    """Return what is compared of a run."""
    oom, seconds = log.fatal_oom, [step.seconds for step in log.steps]
    return {
        "gpu": log.run.gpu_name,
        "source": log.run.source,
        "environment": log.run.environment,
        "budget_bytes": log.run.budget_bytes,
        "outcome": str(log.outcome),
        "failed_in": None if oom is None else str(oom.phase),
        "needed_bytes": log.needed_bytes,
        "peak_allocated_bytes": log.peak_allocated_bytes,
        "peak_reserved_bytes": log.peak_reserved_bytes,
        "num_alloc_retries": max((phase.after.num_alloc_retries for phase in log.phases), default=0),
        "phases": {
            str(phase): [stats.peak_allocated_bytes, stats.peak_reserved_bytes] for phase, stats in log.peaks().items()
        },
        "num_steps": len(log.steps),
        "seconds": seconds,
        # the first step makes the optimizer's state and warms kernels up; what else the host does only adds time
        "seconds_per_step": min(seconds[1:]) if len(seconds) > 1 and log.run.source == "cuda" else None,
        "losses": [step.loss for step in log.steps],
        "eval_loss": log.evals[-1].loss if log.evals else None,
        "tokens_per_step": [step.target_tokens for step in log.steps],
    }


def run_all(runs: Iterable[Run], mode: str, keep: Callable[[Run, dict[str, Any]], None]) -> None:
    """Carry out every run in a process of its own, one at a time on a GPU; one that fails does not lose the others."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        turn = manager.Lock()
        processes = NUM_PROCESSES if mode == "measure" else 1
        with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
            futures: dict[Run, Future[dict[str, Any]]] = {run: pool.submit(_take_turn, run, mode, turn) for run in runs}
            for run, future in futures.items():
                try:
                    result = future.result()
                    keep(run, result)
                    print(_line(run.name, result), flush=True)
                except Exception as error:
                    print(f"{run.name}: {type(error).__name__}: {error}", flush=True)


def _take_turn(run: Run, mode: str, turn: Any) -> dict[str, Any]:
    import gc

    import memory_harness.harness.train.run  # noqa: F401  (seconds, spent while another run has the GPU)

    with turn:
        result = execute_run(run, mode)
        gc.collect()
        if mode == "measure":
            import torch

            torch.cuda.empty_cache()
        return result


def _line(name: str, result: dict[str, Any]) -> str:
    peak, reserved = (format_bytes(result[f"peak_{kind}_bytes"]) for kind in ("allocated", "reserved"))
    seconds = "" if result["seconds_per_step"] is None else f", {result['seconds_per_step']:.3f} s a step"
    return (
        f"{name}: {result['outcome']} after {result['num_steps']} steps, {peak} allocated, {reserved} reserved, "
        f"{result['num_alloc_retries']} retries{seconds}"
    )


def loss_difference(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Return the largest relative difference of a step's or the evaluation's loss; None where losses are missing."""
    pairs = list(zip(before["losses"], after["losses"], strict=False))
    pairs += [(before["eval_loss"], after["eval_loss"])]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return max(abs(a - b) / abs(a) for a, b in known) if known else None


def agreement(case: Case, results: dict[str, dict[str, Any]]) -> str:
    """Return how the losses agree, in the terms of the fix's class."""
    kind = FIXES[case.fix].equivalence
    before = results.get((case.losses or case.before).name)
    after = results.get(case.after.name)
    if before is None or after is None:
        return ""
    if kind == "data":
        return "other data"
    if kind == "reordered":
        same = sum(before["tokens_per_step"]) == sum(after["tokens_per_step"])
        complete = before["num_steps"] == after["num_steps"] and same
        return "same tokens in as many steps" if complete else "not the same tokens"
    difference = loss_difference(before, after)
    return "" if difference is None else f"{difference:.1e}"


def ladder_table(content: dict[str, Any]) -> str:
    """Return the measurements and predictions of all fixes as markdown."""
    measured, predicted = content.get("measured") or content.get("tiny", []), content.get("predicted", [])
    lines = [
        "| fix | class | allocated, GiB | predicted | reserved | predicted | seconds a step | losses differ by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if case.after == case.before:
            continue  # not to be had where the table is made
        runs = (case.before, case.after)
        results, foretold = _one_call(measured, runs), _one_call(predicted, runs)
        found, foreseen = ([part.get(run.name) for run in runs] for part in (results, foretold))
        cells = [_arrow(part, _peak(kind)) for kind in ("allocated", "reserved") for part in (found, foreseen)]
        cells += [_arrow(found, _seconds), agreement(case, results)]
        lines.append(f"| {case.fix} | {FIXES[case.fix].equivalence} | " + " | ".join(cells) + " |")
    again = [(run.data, replace(run, repeat=0), run) for run in REPEATED]
    again += [(f"{case.fix}'s, with more memory", case.before, case.losses) for case in CASES if case.losses]
    for name, first, second in again:
        results = _one_call(measured, (first, second))
        if first.name in results and second.name in results:
            difference = loss_difference(results[first.name], results[second.name]) or 0
            lines.append(f"| (none, the same twice: {name}) | | | | | | | {difference:.1e} |")
    return "\n".join(lines)


def _one_call(calls: Sequence[dict[str, dict[str, Any]]], runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Return the latest results that one call has of all the runs, as another machine is as fast as it is; else all."""
    names = {run.name for run in runs}
    together = (results for results in reversed(calls) if names <= results.keys())
    return next(together, _all_calls(calls))


def _all_calls(calls: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {name: result for results in calls for name, result in results.items()}


def run_table(content: dict[str, Any]) -> str:
    """Return the runs that belong to no fix alone: varying lengths, and the planner's choice."""
    own = {run.name for run in ladder_runs()}
    lines = [
        "| run | source | outcome | steps | allocated | reserved | retries |",
        "|---|---|---|---|---|---|---|",
    ]
    for source in ("measured", "predicted", "tiny"):
        for name, result in _all_calls(content.get(source, [])).items():
            if name not in own:
                peaks = [_gib(result[f"peak_{kind}_bytes"]) for kind in ("allocated", "reserved")]
                values = [name, source, result["outcome"], result["num_steps"], *peaks, result["num_alloc_retries"]]
                lines.append("| " + " | ".join(map(str, values)) + " |")
    return "\n".join(lines)


def _arrow(results: Sequence[dict[str, Any] | None], show: Callable[[dict[str, Any]], str]) -> str:
    values = ["" if result is None else show(result) for result in results]
    return " → ".join(value or "–" for value in values) if any(values) else ""


def _peak(kind: str) -> Callable[[dict[str, Any]], str]:
    def show(result: dict[str, Any]) -> str:
        ending = " (out of memory)" if result["outcome"] == "oom" else ""
        return _gib(result[f"peak_{kind}_bytes"]) + ending

    return show


def _seconds(result: dict[str, Any]) -> str:
    return "" if result["seconds_per_step"] is None else f"{result['seconds_per_step']:.3f}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f}"


def main(argv: Sequence[str]) -> int:
    """Run what the arguments ask for; results are kept in the file as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ladder", "choose", "variable", "planned", "table"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default=None, help="fixes whose runs are wanted, comma-separated; ladder only")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--predict", action="store_const", dest="mode", const="predict", default="measure")
    how.add_argument("--tiny", action="store_const", dest="mode", const="tiny")
    arguments = parser.parse_args(argv)
    content = json.loads(arguments.file.read_text()) if arguments.file.exists() else {}
    if arguments.what == "choose":
        for name, run in (("variable", _VARIABLE), ("planned", planned_runs([])[0])):
            content.setdefault("choices", {})[name] = _choice(run)
            write_records(arguments.file, content, 3)
    elif arguments.what != "table":
        calls = content.setdefault({"measure": "measured", "predict": "predicted"}.get(arguments.mode, "tiny"), [])
        calls.append({})

        def keep(run: Run, result: dict[str, Any]) -> None:
            calls[-1][run.name] = result
            write_records(arguments.file, content, 3)

        run_all(_wanted(arguments, content.get("choices", {})), arguments.mode, keep)
    print(ladder_table(content), run_table(content), sep="\n\n")
    return 0


def _wanted(arguments: argparse.Namespace, choices: dict[str, list[str]]) -> list[Run]:
    if arguments.what == "variable":
        return variable_runs(choices["variable"])
    if arguments.what == "planned":
        return planned_runs(choices["planned"])
    only = arguments.only.split(",") if arguments.only else list(FIXES)
    wanted = [run for case in CASES if case.fix in only for run in (case.before, case.after, case.losses)]
    return [run for run in ladder_runs() if replace(run, repeat=0) in wanted]


def _choice(run: Run) -> list[str]:
    """Return the fixes that a plan for speed takes on the target card, with the default headroom."""
    from memory_harness.probes.plan.pool import plan_fixes, start_processes
    from memory_harness.probes.session.process import start_probing_worker

    headroom = parse_part(DEFAULT_HEADROOM, find_card(TARGET).budget_bytes)
    processes = start_processes(2, multiprocessing.get_context("spawn"))
    with processes as pool, start_probing_worker(run.config) as worker:
        plan = plan_fixes(run.config, pool, "speed", headroom, worker.fewest_recomputed)
    assert plan.passes
    print(json.dumps(dataclasses.asdict(plan), indent=1))
    return [name for name in plan.chosen.fixes if name in FIXES]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
