"""The command that compares the ways in which several GPUs can share a model."""

from __future__ import annotations

import json
from dataclasses import asdict

from memory_harness.configs.cards import card_of
from memory_harness.configs.cli import Command
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.data.prepare import check_corpus
from memory_harness.harness.log.environment import environment
from memory_harness.probes.plan.pool import predict_gpus, start_processes
from memory_harness.probes.plan.sharding import Shares, chosen, compare_engines
from memory_harness.probes.session.fork_server import process_context
from memory_harness.reports.blocks import ONLY_JUST, Banner, Cell, Paragraph, Section, Table
from memory_harness.reports.files import check_file, write_file
from memory_harness.reports.json import head
from memory_harness.reports.next_step import after_shardings, next_section
from memory_harness.reports.summary import NextStep
from memory_harness.reports.terminal import make_console, print_sections
from memory_harness.reports.text import gib

NUM_PROCESSES = 2

WHAT_EACH_IS = {
    "ddp": "each GPU has the whole model and its share of the batches; the fastest",
    "fsdp": "each has a share of every layer, gathered when it is computed; its speed hangs on the link between GPUs",
    "split": 'each has some of the layers, as with device_map="auto"; one works while the others wait',
}


def compare_shardings(command: Command) -> int:
    """Simulate what a GPU takes with each engine and show it; return 0 where one fits, 3 where one may, else 1."""
    if command.json is not None:
        check_file("json", command.json)
    check_corpus(command.config)
    with start_processes(NUM_PROCESSES, process_context()) as pool:
        shares = compare_engines(command.config, lambda configs: predict_gpus(configs, pool))
    if command.json is not None:
        write_file("json", command.json, _json(command.config, shares))
    print_sections(_sections(command, shares), make_console())
    taken = chosen(shares)
    if taken is None:
        return 1
    return 3 if taken.is_tight else 0


def _sections(command: Command, shares: list[Shares]) -> list[Section]:
    device, taken = command.config.device, chosen(shares)
    cards = f"{device.num_gpus} x {card_of(device).title}"
    if taken is None:
        banner = Banner("DOES NOT FIT", f"With no engine does the run fit {cards}.", "bad", "simulated")
    elif taken.is_tight:
        words = f"With --sharding {taken.engine} it fits {cards} only if the allocator can give its cache back in time."
        banner = Banner("NOT DECIDED", words, "warning", "simulated")
    else:
        reason = WHAT_EACH_IS[taken.engine]
        banner = Banner("FITS", f"Take --sharding {taken.engine}: {reason}.", "good", "simulated")
    titles = ("engine", "worst", "allocated", "reserved", "beside", "left", "imbalance", "fits")
    table = Table(titles, list(map(_row, shares)), right=titles[2:7])
    remarks = [Paragraph(f"--sharding {each.engine}: {each.refused}", "warning") for each in shares if each.refused]
    accumulation = command.config.train.gradient_accumulation
    if accumulation < device.num_gpus:
        words = f"A step has {device.num_gpus} micro-batches with ddp and fsdp, not {accumulation}: each GPU has one."
        remarks.append(Paragraph(words))
    explanation = (
        f"GiB at the worst moment of the worst GPU, of {format_bytes(shares[0].budget_bytes)} that PyTorch may use. "
        "Beside it lies what NCCL may take, an estimate on the safe side; left is what remains of the budget. "
        "Imbalance: the worst GPU's peak by the mean."
    )
    return [
        Section("verdict", body=[banner]),
        next_section(_step(command.config, shares)),
        Section(
            "shardings", f"{command.config.model.model} on {cards}", body=[table, Paragraph(explanation), *remarks]
        ),
    ]


def _row(shares: Shares) -> list[str | Cell]:
    if shares.refused:
        return [shares.engine, *[""] * 6, Cell("no", "bad")]
    number = f"{shares.worst_gpu} of {len(shares.gpus)}" if len(shares.gpus) > 1 else "alike"
    sizes = (
        shares.worst.peak_allocated_bytes,
        shares.worst.peak_reserved_bytes,
        shares.beside_bytes,
        shares.free_bytes,
    )
    fits = Cell("yes", "good") if shares.fits else Cell("no", "bad")
    if shares.is_tight:
        fits = ONLY_JUST
    return [shares.engine, number, *map(gib, sizes), f"{shares.imbalance:.2f}", fits]


def _step(config: RunConfig, shares: list[Shares]) -> NextStep:
    taken = chosen(shares)
    return after_shardings(
        config, None if taken is None else taken.engine, is_tight=taken is not None and taken.is_tight
    )


def _json(config: RunConfig, shares: list[Shares]) -> str:
    taken = chosen(shares)
    engines = [{**asdict(each), "fits": each.fits, "is_tight": each.is_tight} for each in shares]
    content = {
        **head("sharding", _step(config, shares)),
        "versions": environment(),
        "configuration": config.to_dict(),
        "source": "simulated",
        "take": None if taken is None or taken.is_tight else taken.engine,
        "engines": engines,
    }
    return json.dumps(content, indent=1) + "\n"
