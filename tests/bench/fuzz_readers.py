"""The readers of this program, each with what makes its inputs: a pair of functions by name.

`make` writes what is to be read into a folder and returns what names it; `read` reads it as the program does. Both are
fast: an input costs a fraction of a millisecond to some milliseconds.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from rich.console import Console

from memory_harness.configs import cli
from memory_harness.configs.cards import read_cards
from memory_harness.configs.crisis import load_crisis
from memory_harness.configs.errors import HarnessError
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import config_of_run, load_preset
from memory_harness.configs.recipes.draft import Target
from memory_harness.configs.recipes.read import import_recipe
from memory_harness.configs.schema import SECTIONS, RunConfig
from memory_harness.configs.validation import range_problems, validate
from memory_harness.configs.values import from_text, from_toml
from memory_harness.harness.data.conversations import columns_named, corpus_of
from memory_harness.harness.data.corpus import read_corpus
from memory_harness.harness.data.prompts import read_prompts
from memory_harness.harness.data.records import read_records
from memory_harness.harness.log.manifest import (
    FileSum,
    Manifest,
    Position,
    manifest_text,
    newest_checkpoint,
    read_manifest,
)
from memory_harness.harness.log.records import (
    AgreementRecord,
    DriverRecord,
    DriverUse,
    ForwardFacts,
    GpuProcess,
    KnobRecord,
    MetricsRecord,
    PeakPart,
    Phase,
    PoolRecord,
    PoolUse,
    ProbeRecord,
    Record,
    RecoveryRecord,
    RetryRecord,
    StandInRecord,
    SurvivorRecord,
    record_from_json,
    record_to_dict,
)
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.harness.log.snapshot import read_snapshot
from memory_harness.harness.log.traceback_text import read_traceback
from memory_harness.harness.observe.notebook import cells_of
from memory_harness.harness.results.experiments import EXPERIMENTS, LISTS, NEEDED, RESPONSES, VERSION, check_artefacts
from memory_harness.harness.results.human_sheet import CRITERIA, KEY, score_lines, score_sheet
from memory_harness.probes.budgets.baseline import read_baseline
from memory_harness.probes.compare import compare
from memory_harness.probes.detectors import detect
from memory_harness.probes.plan.choose import Limits, Option, Plan, Prediction, read_plan
from memory_harness.probes.traceback.diagnosis import diagnose
from memory_harness.probes.traceback.held import snapshot_causes
from memory_harness.reports.comparison import Names, comparison_json
from memory_harness.reports.entry import main, parsed
from memory_harness.reports.json import json_text
from memory_harness.reports.next_step import after_comparison
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import print_report
from memory_harness.reports.traceback import traceback_json
from tests.bench.mutations import NUMBERS, TEXTS, any_value, as_json, mutated, mutated_bytes, mutated_settings
from tests.builders import as_published_oom, make_log
from tests.probes.traceback.render import TRACES, message_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "tests" / "configs" / "recipes").iterdir())
QUESTIONS = ("কেন এমন হয়?", "What now?", "a,b", 'he said "no"', "", "line\nline")


class Reader(NamedTuple):
    """What makes an input, and what reads it."""

    make: Callable[[random.Random, Path], Any]
    read: Callable[[Any], object]


def fastest_folder() -> str | None:
    """Return a folder in memory, where the system has one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def warm_up() -> None:
    """Import what readers import when they are first used, which takes seconds, and make the parser only once."""
    import pandas  # noqa: F401
    import torch.distributed.tensor  # noqa: F401
    import transformers

    transformers.AutoConfig.for_model("llama")
    import yaml  # noqa: F401

    cli.build_parser = cache(cli.build_parser)
    find_model("tiny-llama")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- the command line ---------------------------------------------------------------------------------------------


@cache
def _flags() -> tuple[list[str], list[list[str]]]:
    """Return all flags, and command lines that are right."""
    flags = [flag for action in cli.build_parser()._actions for flag in action.option_strings if flag.startswith("--")]
    right = [
        ["--max-length", "512", "--samples", "40", "--lora-rank", "16", "--gpu", "l4"],
        ["--replay", "runs/x", "--json", "a.json"],
        ["--rank-pattern", "q_proj=8", "--batches", "2x64,1x128", "--optimizer", "sgd", "--optim-args", "momentum=0.9"],
        ["--train", "--preset", "smoke_cpu", "--schedule", "polynomial", "--schedule-args", "power=2"],
        ["--against", "transformers==5.17", "--fail-on-increase", "5%"],
        ["--dry-run", "x.py", "--steps", "3", "--override", "a=1", "--", "--epochs", "1"],
        ["--headroom", "5 %", "--budget", "12 GiB", "--context", "0.4 GiB", "--limits", "--goal", "speed"],
    ]
    return flags, right


def _make_arguments(rng: random.Random, folder: Path) -> list[str]:
    flags, right = _flags()
    arguments = list(rng.choice(right))
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(arguments) + 1)
        value = rng.choice(TEXTS) if rng.random() < 0.7 else str(rng.choice(NUMBERS))
        action = rng.randrange(4)
        if action == 0 and at < len(arguments):
            arguments[at] = value
        elif action == 1:
            arguments[at:at] = [rng.choice(flags), value]
        elif action == 2:
            arguments[at:at] = [f"{rng.choice(flags)}={value}"]
        elif at < len(arguments):
            del arguments[at]
    return [argument for argument in arguments if argument != "--download"]


def _read_arguments(arguments: list[str]) -> object:
    try:
        return parsed(arguments)
    except SystemExit as end:  # the program has said what was asked of itself, such as --version
        if end.code:
            raise RuntimeError(f"ended with exit code {end.code}") from end
        return end


@cache
def _fields() -> list[tuple[Any, Any]]:
    """Return the type and the field of every setting."""
    found = []
    for cls in SECTIONS.values():
        hints = get_type_hints(cls)
        found += [(hints[item.name], item) for item in fields(cls)]
    return found


def _make_value(rng: random.Random, folder: Path) -> tuple[int, Any]:
    which = rng.randrange(len(_fields()))
    given = rng.choice(TEXTS) if rng.random() < 0.5 else any_value(rng)
    if rng.random() < 0.3:
        given = str(rng.choice(NUMBERS)) + rng.choice(("", " GiB", "%", "e5", "_0", "."))
    return which, given


def _read_value(which_and_given: tuple[int, Any]) -> object:
    """Read a value as a flag gives it, or TOML, and look whether it is in range."""
    which, given = which_and_given
    hint, item = _fields()[which]
    try:
        value = from_text(given, hint, item) if isinstance(given, str) else from_toml(given, hint, item)
    except ValueError as error:
        raise HarnessError(str(error)) from None
    return range_problems(RunConfig().with_fields(**{item.name: value}))


# --- settings -----------------------------------------------------------------------------------------------------


@cache
def _presets() -> tuple[str, ...]:
    return tuple(path.read_text("utf-8") for path in sorted((ROOT / "configs" / "presets").glob("*.toml")))


def _make_preset(rng: random.Random, folder: Path) -> Path:
    text = rng.choice(_presets())
    content = mutated_settings(rng, text)
    if rng.random() < 0.2:
        content = mutated_bytes(rng, content)
    return _written(folder / "preset.toml", content)


def _read_preset(path: Path) -> object:
    config = load_preset(str(path))
    validate(config)
    return config.fingerprint()


CARD = """[cards.mine]
title = "Mine"
capacity = "23.52 GiB"
context = "0.44 GiB"
capability = [8, 9]
multiprocessors = 76
bfloat16 = true
sdpa_backends = ["flash", "memory_efficient", "math"]
cublas_workspace = 8519680
aliases = ["my card"]
[cards.mine.sources]
capacity = "measured"
"""


def _make_card(rng: random.Random, folder: Path) -> Path:
    return _written(folder / "cards.toml", mutated_settings(rng, CARD))


def _make_crisis(rng: random.Random, folder: Path) -> Path:
    text = (ROOT / "configs" / "crisis.toml").read_text("utf-8")
    return _written(folder / "crisis.toml", mutated_settings(rng, text))


@cache
def _recipe(path: Path) -> str:
    return path.read_text("utf-8")


def _make_recipe(rng: random.Random, folder: Path) -> Path:
    path = rng.choice(RECIPES)
    text = _recipe(path)
    if path.suffix in (".json", ".ipynb") and rng.random() < 0.7:
        content = as_json(mutated(rng, json.loads(text)))
    elif path.suffix in (".yaml", ".yml") and rng.random() < 0.7:
        content = mutated_settings(rng, text)
    else:
        content = mutated_bytes(rng, text.encode())
    return _written(folder / f"recipe{path.suffix}", content)


def _read_recipe(path: Path) -> object:
    return import_recipe(path, Target("Tesla T4", "float16", exact_model=False))


# --- data ---------------------------------------------------------------------------------------------------------

_ROWS: tuple[list[dict[str, Any]], ...] = (
    [{"question": q, "answer": "because"} for q in QUESTIONS],
    [{"instruction": q, "input": "", "output": "yes"} for q in QUESTIONS],
    [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "yes"}]} for q in QUESTIONS],
    [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": "yes"}]} for q in QUESTIONS],
    [{"prompt": q, "chosen": "yes", "rejected": "no"} for q in QUESTIONS],
    [{"text": q} for q in QUESTIONS],
)


def _make_rows(rng: random.Random, folder: Path) -> Path:
    rows = rng.choice(_ROWS)
    value = mutated(rng, rows)
    if rng.random() < 0.5 or not isinstance(value, list):
        content, name = as_json(value), "rows.json"
    else:
        content, name = b"\n".join(map(as_json, value)), "rows.jsonl"
    if rng.random() < 0.3:
        content = mutated_bytes(rng, content)
    return _written(folder / name, content)


TABLE = (
    "Topics,Question-Title,Questions,Answers\n"
    'দুঃখ,শিরোনাম,"প্রশ্ন, কী?",উত্তর ১\nদুঃখ,শিরোনাম,প্রশ্ন ২,"উত্তর ""২"""\n'
    'a,b,"c\nc",d\ne,f,g,h\n'
)


def _make_table(rng: random.Random, folder: Path) -> Path:
    text = rng.choice((TABLE, TABLE.replace("Questions", "question").replace("Answers", "answer"), "text\nx\ny\n"))
    content = mutated_bytes(rng, text.encode())
    if rng.random() < 0.1:
        content = content.replace(b",", b"\t")
    return _written(folder / rng.choice(("rows.csv", "rows.tsv", "rows.txt", "rows.csv.gz")), content)


def _read_rows(path: Path) -> object:
    return corpus_of(read_records(path), "auto", columns_named(None))


def _read_table(path: Path) -> object:
    found: list[object] = []
    refused = None
    for read in (_read_rows, read_corpus, lambda file: read_prompts(str(file))):
        try:
            found.append(read(path))
        except HarnessError as error:
            refused = error
    if refused is not None and not found:
        raise refused
    return found


# --- logs ---------------------------------------------------------------------------------------------------------

_OTHERS: tuple[Record, ...] = (
    RetryRecord(0, 2),
    SurvivorRecord(4, Phase.FORWARD, "train.py:3 step", "list losses, train.py:9", 2**20, 4, True, (8, 8), "float32"),
    SurvivorRecord(4, Phase.EVAL, "train.py:5 step", "attribute of Trainer", 2**24, 2, unit="EVAL"),
    DriverRecord(Phase.EVAL, 2, 2**30, DriverUse(2**32, 2**34, 2**31, (GpuProcess(7, "python", 2**30),))),
    PoolRecord(Phase.EVAL, 2, 2**30, PoolUse(1, 2**20, 2**20, 2**10)),
    PeakPart("activation", "model.py:3 forward", "x = y", "train.py:3 step", 2**30, 3),
    ProbeRecord("gc", 4, 2**30, 2**29, 2**31, 2**30),
    RecoveryRecord(Phase.EVAL, 2, 1, "smaller_parts", "detail"),
    StandInRecord("loss", "train.py:3", 4),
    KnobRecord("per_device_eval_batch_size", "8", "train.py:3"),
    AgreementRecord("chunked-loss", "exact", True, True, 0.0, 1e-6),
    MetricsRecord(4, "tuned", 12.0, 1.5, 2, 1.0, 2.0, 0.1, 0.1, 0.1, {"bleu": "x"}),
)


def _records(log: RunLog) -> list[Record]:
    end = [log.end] if log.end else []
    phases = [replace(phase, forward=ForwardFacts(True, 0, 32)) for phase in log.phases[:4]] + log.phases[4:]
    return [log.run, *log.begins[-3:], *phases, *log.steps, *log.evals, *log.ooms, *_OTHERS, *end]


@cache
def _logs() -> tuple[list[dict[str, Any]], ...]:
    """Return some logs as plain data."""
    small = RunConfig().with_fields(samples=8, max_length=256, device="simulated", train_batch_size=1)
    logs = [as_published_oom(6), make_log(small), make_log(small, leak_per_step=2**28)]
    script = make_log(small)
    script.run = replace(script.run, script="train.py", config={}, fingerprint="", model=None)
    plain = []
    for log in (*logs, script):
        plain.append([json.loads(json.dumps(record_to_dict(record))) for record in _records(log)])
    return tuple(plain)


def _log_content(rng: random.Random) -> bytes:
    records = list(rng.choice(_logs()))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(records))
        if rng.random() < 0.15:
            del records[at]
        elif isinstance(records[at], dict):
            records[at] = mutated(rng, records[at])
        if not records:
            break
    content = b"\n".join(map(as_json, records)) + b"\n"
    return mutated_bytes(rng, content) if rng.random() < 0.1 else content


def _make_record(rng: random.Random, folder: Path) -> bytes:
    content = as_json(mutated(rng, rng.choice(rng.choice(_logs()))))
    return mutated_bytes(rng, content) if rng.random() < 0.1 else content


def _read_record(line: bytes) -> object:
    """Read a line of a log; one that is no record is counted there."""
    try:
        return record_to_dict(record_from_json(line))
    except ValueError as error:
        raise HarnessError(f"an unreadable line: {error}") from None


def _make_log(rng: random.Random, folder: Path) -> Path:
    return _written(folder / "run.jsonl", _log_content(rng))


def _read_log(path: Path) -> object:
    return detect(read_run_log(path))


def _read_log_whole(path: Path) -> object:
    result = result_of_log(read_run_log(path))
    print_report(result, Console(file=io.StringIO(), width=100))
    return json_text(result)


def _make_logs(rng: random.Random, folder: Path) -> tuple[Path, Path]:
    return _written(folder / "a.jsonl", _log_content(rng)), _written(folder / "b.jsonl", _log_content(rng))


def _compare_logs(paths: tuple[Path, Path]) -> object:
    return comparison_json(compare(*map(read_run_log, paths)), Names("a", "b"), after_comparison(paths[1]))


def _read_with_main(path: Path) -> object:
    """Replay a log as the command does, with all its files."""
    files = [path.with_name(f"report.{suffix}") for suffix in ("json", "html", "svg")]
    for file in files:
        file.unlink(missing_ok=True)
    arguments = ["--replay", str(path)]
    for file in files:
        arguments += [f"--{file.suffix[1:]}", str(file)]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = main(arguments)
    if code not in (0, 1, 2, 3, 130):
        raise AssertionError(f"exit code {code}: {errors.getvalue()}")
    if code == 2:
        raise HarnessError(errors.getvalue().strip())
    return code


# --- memory snapshots ---------------------------------------------------------------------------------------------


@cache
def _snapshots() -> tuple[dict[str, Any], ...]:
    frames = [{"filename": "/home/u/train.py", "line": 3, "name": "forward"}]
    blocks = [
        {"size": 2**20, "requested_size": 2**20, "state": "active_allocated", "address": 0, "frames": frames},
        {"size": 2**20, "requested_size": 0, "state": "inactive", "address": 2**20, "frames": []},
    ]
    segment = {"device": 0, "address": 0, "total_size": 2**21, "allocated_size": 2**20, "active_size": 2**20}
    segment |= {"requested_size": 2**20, "stream": 0, "segment_type": "large", "blocks": blocks}
    events = []
    for number, action in enumerate(("segment_alloc", "alloc", "alloc", "free_requested", "free_completed", "oom")):
        event = {
            "action": action,
            "addr": number * 512,
            "size": 2**20,
            "stream": 0,
            "time_us": number,
            "frames": frames,
        }
        events.append(event | ({"device_free": 2**20} if action == "oom" else {}))
    whole = {"segments": [segment, {**segment, "address": 2**24}], "device_traces": [events, []]}
    run = record_to_dict(as_published_oom(6).run)
    return whole, {**whole, "harness": {"run": json.loads(json.dumps(run))}}, {**whole, "external_annotations": [
        {"name": "EVAL 8x2048", "device": 0, "stage": "START", "time_us": 1}]}  # fmt: skip


def _make_snapshot(rng: random.Random, folder: Path) -> Path:
    value = mutated(rng, rng.choice(_snapshots()))
    content = pickle.dumps(value, protocol=4) if rng.random() < 0.9 else b"\x80\x04"
    if rng.random() < 0.2:
        content = mutated_bytes(rng, content)
    return _written(folder / "snapshot.pickle", content)


def _read_snapshot(path: Path) -> object:
    found = read_snapshot(path)
    result = replace(result_of_log(found.log), contents=found.contents, causes=snapshot_causes(found))
    print_report(result, Console(file=io.StringIO(), width=100))
    return json_text(result)


# --- what is kept in folders --------------------------------------------------------------------------------------

_FITS = Prediction(True, 2**30, 2**31)
_PLAN = Plan(
    goal="speed",
    budget_bytes=2**34,
    headroom_bytes=2**30,
    as_configured=Prediction(False, 2**34, 2**34),
    chosen=Option(("eval-batch-1",), _FITS, 1.2),
    reasons={"eval-batch-1": "cheapest"},
    alternatives=(Option(("chunked-loss",), _FITS, 1.0),),
)


@cache
def _plan() -> dict[str, Any]:
    return {"plan": json.loads(json.dumps(asdict(_PLAN))), "limits": asdict(Limits(1, 512, 1024, 8))}


def _make_plan(rng: random.Random, folder: Path) -> Path:
    return _written(folder / "plan.json", _of_json(rng, _plan()))


def _of_json(rng: random.Random, value: Any) -> bytes:
    content = as_json(mutated(rng, value))
    return mutated_bytes(rng, content) if rng.random() < 0.15 else content


@cache
def _manifest() -> dict[str, Any]:
    files = {"state.pt": FileSum(3, hashlib.sha256(b"abc").hexdigest())}
    config = RunConfig()
    whole = Manifest(Position(4, 1, 4), config.to_dict(), config.fingerprint(), "digest", {"torch": "2"}, 10, files)
    content: dict[str, Any] = json.loads(manifest_text(whole))
    return content


def _make_manifest(rng: random.Random, folder: Path) -> Path:
    content = mutated(rng, _manifest())
    if isinstance(content, dict) and rng.random() < 0.7:  # a checksum that is right, of contents that are not
        content.pop("checksum", None)
        content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    run = folder / "run-train"
    (run / "checkpoint-4").mkdir(parents=True, exist_ok=True)
    (run / "checkpoint-4" / "state.pt").write_bytes(b"abc")
    _written(run / "checkpoint-4" / "manifest.json", as_json(content))
    return run


def _read_run(run: Path) -> object:
    return config_of_run("--resume", run), read_manifest(newest_checkpoint(run))


def _make_config(rng: random.Random, folder: Path) -> Path:
    run = folder / "begun-train"
    run.mkdir(exist_ok=True)
    _written(run / "config.json", _of_json(rng, RunConfig().to_dict()))
    return run


@cache
def _baseline() -> dict[str, Any]:
    peak = {"peak_allocated_bytes": 2**30, "peak_reserved_bytes": 2**31, "budget_bytes": 2**32, "phase": "EVAL"}
    peak |= {"source": "simulated", "gpu_name": "Tesla T4"}
    return {"schema_version": 1, "tests": {"test_a.py::test": peak, "test_b.py::test": peak}}


def _make_baseline(rng: random.Random, folder: Path) -> Path:
    return _written(folder / "baseline.json", _of_json(rng, _baseline()))


def _make_results(rng: random.Random, folder: Path) -> Path:
    results = folder / "results"
    results.mkdir(exist_ok=True)
    for file in results.iterdir():
        file.unlink()
    name = rng.choice((RESPONSES, EXPERIMENTS))
    key = LISTS[name]
    entry = dict.fromkeys(NEEDED[key], "x")
    _written(results / name, _of_json(rng, {"schema_version": VERSION, key: [entry, entry]}))
    return results


_RATED = "{row},q,r" + ",3" * len(CRITERIA) + ",\n"
SHEET = f"row,question,response,{','.join(CRITERIA)},notes\n{_RATED.format(row=1)}{_RATED.format(row=2)}"


def _make_sheet(rng: random.Random, folder: Path) -> Path:
    key = {str(row): {"prompt_id": row, "answered_by": "tuned"} for row in (1, 2)}
    if rng.random() < 0.5:
        _written(folder / KEY, _of_json(rng, key))
        return _written(folder / "sheet.csv", SHEET.encode())
    _written(folder / KEY, as_json(key))
    return _written(folder / "sheet.csv", mutated_bytes(rng, SHEET.encode()))


# --- models and programs ------------------------------------------------------------------------------------------

MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 32,
    "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8,
    "hidden_act": "silu", "max_position_embeddings": 512, "eos_token_id": [2, 3], "bos_token_id": 1, "pad_token_id": 0,
    "tie_word_embeddings": False, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}, "text_config": {"vocab_size": 300},
}  # fmt: skip


def _make_model(rng: random.Random, folder: Path) -> Path:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    _written(model / "config.json", _of_json(rng, MODEL))
    return model


def _read_model(folder: Path) -> object:
    shape = find_model(str(folder))
    validate(RunConfig().with_fields(model=str(folder), device="simulated"))
    return shape.vocab_size, shape.pad_token_id, shape.eos_token_ids, shape.has_experts, shape.tie_word_embeddings


@cache
def _traces() -> tuple[str, ...]:
    texts = []
    for trace in TRACES:
        lines = ["Traceback (most recent call last):"]
        for frame in trace["frames"]:
            place, _, code = frame.partition(" :: ")
            path, _, rest = place.rpartition(":")
            line, _, function = rest.partition(" ")
            lines += [f'  File "{path}", line {line}, in {function}', f"    {code}"]
        texts.append("\n".join([*lines, message_of(trace["wording"], trace["sizes"])]))
    return tuple(texts)


def _make_traceback(rng: random.Random, folder: Path) -> Path:
    text = rng.choice(_traces()).encode()
    return _written(folder / "oom.txt", mutated_bytes(rng, text, rng.choice(_traces()).encode()))


def _read_traceback(path: Path) -> object:
    return traceback_json(diagnose(read_traceback(path)))


NOTEBOOK = {"cells": [{"cell_type": "code", "source": ["import torch\n", "!ls\n"], "outputs": [{"text": ["x"]}]}]}


def _make_notebook(rng: random.Random, folder: Path) -> Path:
    return _written(folder / "book.ipynb", _of_json(rng, NOTEBOOK))


READERS: dict[str, Reader] = {
    "command line": Reader(_make_arguments, _read_arguments),
    "values": Reader(_make_value, _read_value),
    "presets": Reader(_make_preset, _read_preset),
    "cards": Reader(_make_card, lambda path: read_cards(str(path))),
    "crisis": Reader(_make_crisis, lambda path: load_crisis(str(path)).text),
    "recipes": Reader(_make_recipe, _read_recipe),
    "rows": Reader(_make_rows, _read_rows),
    "tables": Reader(_make_table, _read_table),
    "records": Reader(_make_record, _read_record),
    "logs": Reader(_make_log, _read_log),
    "log reports": Reader(_make_log, _read_log_whole),
    "replays": Reader(_make_log, _read_with_main),
    "comparisons": Reader(_make_logs, _compare_logs),
    "snapshots": Reader(_make_snapshot, _read_snapshot),
    "plans": Reader(_make_plan, read_plan),
    "manifests": Reader(_make_manifest, _read_run),
    "run configs": Reader(_make_config, lambda run: config_of_run("--resume", run)),
    "baselines": Reader(_make_baseline, read_baseline),
    "results": Reader(_make_results, check_artefacts),
    "sheets": Reader(_make_sheet, lambda sheet: score_lines(score_sheet(sheet))),
    "models": Reader(_make_model, _read_model),
    "tracebacks": Reader(_make_traceback, _read_traceback),
    "notebooks": Reader(_make_notebook, cells_of),
}
