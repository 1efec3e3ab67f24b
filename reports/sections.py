"""What a report on a probe shows, section by section, as data: `PROBE_SECTIONS` is the order."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from itertools import chain

from memory_harness.configs import schema
from memory_harness.configs.flags import field_help, flag_of
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.step_graphs import reason_against_graphs
from memory_harness.configs.units import format_bytes
from memory_harness.configs.values import to_text as value_text
from memory_harness.harness.log.records import (
    NOT_RUN,
    AgreementRecord,
    MemoryStats,
    ModelFacts,
    OomRecord,
    Outcome,
    Phase,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import End, Failure, analyse_failure, recurrence_in_words
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.detectors.peaks import length_limit
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Finding, FixResult
from memory_harness.probes.plan.choose import Option, Plan
from memory_harness.reports import blocks
from memory_harness.reports.blocks import ONLY_JUST, Cell, Paragraph, Section, Table, facts
from memory_harness.reports.contents import memory_section
from memory_harness.reports.layers import layers_section
from memory_harness.reports.levels import Level, phase_levels, worst_level
from memory_harness.reports.next_step import applied_fixes, flags_against, next_section, next_step
from memory_harness.reports.outside import outside_rows
from memory_harness.reports.snapshot import contents_sections
from memory_harness.reports.summary import ProbeResult, source_in_words, verdict_banner
from memory_harness.reports.text import gib, of_budget, plural, split_formula, table_unit, wording
from memory_harness.reports.traceback import causes_section

MAX_READINGS, MAX_FRAMES = 2, 3
MIN_SHOWN_SHARE = 0.001  # least share of the live bytes that is worth a number
MIN_DATA_SHARE = 0.05  # least share of the peak that data on the CPU has to have for a word on it
HEADROOM = 1.06  # how far above the highest value an axis ends
MIN_DRAWN_SHARE = 0.3  # least share of the budget that the highest value must have for the budget to be on an axis


def probe_sections(result: ProbeResult) -> list[Section]:
    """Return the sections in the order in which they are shown."""
    return list(chain.from_iterable(make(result) for make in PROBE_SECTIONS))


def run_sections(result: ProbeResult) -> list[Section]:
    """Return those about what a run took, for a report that begins otherwise."""
    return list(
        chain.from_iterable(make(result) for make in (_by_phase, _where, _layers, _over_the_run, _lengths, _outside))
    )


def _verdict(result: ProbeResult) -> Iterator[Section]:
    body: list[blocks.Block] = [verdict_banner(result)]
    if fault := result.as_configured.run.fault:
        body.append(Paragraph(f"The mistake {fault} was planted in this run on purpose.", "warning"))
    if reason := _reason_against_graphs(result.as_configured):
        body.append(Paragraph(f"--cuda-graphs: left off, as {reason}.", "warning"))
    rows = [(name, worst_level(log)) for name, log in result.runs if phase_levels(log)]
    budget = result.as_configured.run.budget_bytes
    explanation = f"The worst moment of the run against the {format_bytes(budget)} that PyTorch may use of the card."
    scale = int(_scale(result) * 1.02)
    if not result.as_configured.run.budget_is_known:
        explanation = "The worst moment of the run; what PyTorch could use of the card is not known."
    drawn_budget = _drawn_budget(result.as_configured, scale)
    if result.as_configured.run.budget_is_known and not drawn_budget:
        explanation += " The budget lies far above the bars."
    needed = blocks.Bars("What it needs", explanation, source_in_words(result.as_configured), rows, scale, drawn_budget)
    yield Section("verdict", body=body, details=[needed] if rows else [])


def _reason_against_graphs(log: RunLog) -> str | None:
    """Return why micro-batches were not captured where that was asked for."""
    if not has_config(log) or config_of(log).model.cuda_graphs == "none":
        return None
    return reason_against_graphs(config_of(log))


def _scale(result: ProbeResult) -> int:
    """Return what the full length of a bar stands for: the budget, or the highest level where that is more.

    A budget that lies far above all levels would leave nothing to be seen of them: then it is the highest level.
    """
    highest = budget = 0
    for _, log in result.runs:
        tops = [level.top_bytes for level in phase_levels(log).values()]
        highest, budget = max(highest, *tops, 0), max(budget, log.run.budget_bytes)
    return max(highest, budget) if highest >= MIN_DRAWN_SHARE * budget else highest


def _drawn_budget(log: RunLog, scale_bytes: int) -> int:
    """Return the budget, 0 where it is not known or lies beyond what is drawn."""
    return log.run.budget_bytes if log.run.budget_is_known and log.run.budget_bytes <= scale_bytes else 0


def _axis_top(result: ProbeResult) -> int:
    return int(_scale(result) * HEADROOM) or 1


def _next(result: ProbeResult) -> Iterator[Section]:
    """The fixes that make it fit, each with its flags, and the command to copy."""
    if result.goes_on:
        return
    step = result.next_step or next_step(result)
    rows: list[list[str | Cell]] = []
    for fix in applied_fixes(result):
        rows.append([Cell(fix.name, "good"), f"{fix.flags}\n{fix.title}"])
    fixes: list[blocks.Block] = [Table(("", ""), rows)] if rows else []
    yield next_section(step, fixes)


def _why(result: ProbeResult) -> Iterator[Section]:
    for finding in result.findings:
        if finding.severity == "error":
            found = blocks.Findings([explain(finding, result.as_configured)], in_full=True)
            intro = "What ends the run, the arithmetic behind it, and the line of code that it comes from."
            yield Section("why", "Why", "", finding.cause, intro, [found])


def explain(finding: Finding, log: RunLog) -> blocks.Explanation:
    """Return a finding with what helps, and with the arithmetic of an error taken out."""
    cause = load_causes().get(finding.cause)
    # a warning's explanation reads as one text
    parts = split_formula(finding.explanation) if finding.severity == "error" else (finding.explanation, "", "", "")
    return blocks.Explanation(finding, *parts, cause.fix if cause else "", log, flags_against(finding, log))


def _causes(result: ProbeResult) -> Iterator[Section]:
    if result.causes:
        yield causes_section(result.causes)


def _contents(result: ProbeResult) -> Iterator[Section]:
    if result.contents is not None:
        yield from contents_sections(result.contents)


def _request(result: ProbeResult) -> Iterator[Section]:
    """What the failed request was for, who asked, and what took the memory then."""
    failure = analyse_failure(result.as_configured)
    if failure is None:
        return
    oom, live = failure.oom, _largest_live(failure)
    piece = format_bytes(oom.largest_free_block_bytes)
    retries = f"; the allocator retried {plural(oom.num_alloc_retries, 'time')}" if oom.num_alloc_retries else ""
    rows = {
        "size of": "\n".join(f"{product.what}: {product}" for product in failure.products[:MAX_READINGS]),
        "asked by": "\n".join(oom.frames[:MAX_FRAMES]),
        "live then": " · ".join(f"{name} {level}" for name, level in live),
        "unused": f"{format_bytes(failure.free_bytes)}, in pieces of at most {piece}{retries}",
    }
    requested = f"{format_bytes(oom.requested_bytes)} in {oom.phase}"
    taken = f"{format_bytes(oom.allocated_bytes)} of {format_bytes(oom.budget_bytes)}"
    intro = f"{requested} did not fit: {taken} was allocated."
    in_full = {f"size of {product.what}": f"{product} ({product.legend})" for product in failure.products}
    in_full["asked by, the innermost call first"] = "\n".join(oom.frames)
    details: list[blocks.Detail] = [blocks.Folded("All readings of the size, and all calls", facts(in_full))]
    if live:
        words, highest = "What held memory when the request failed.", max(level.allocated_bytes for _, level in live)
        source = source_in_words(result.as_configured)
        details.append(blocks.Bars("What lived when memory ran out", words, source, live, highest))
    yield Section("request", "What was asked for", "", requested, intro, [facts(rows)], details)


def _caught(result: ProbeResult) -> Iterator[Section]:
    """The failed allocations that a watched script caught, by the lines that asked and that caught them."""
    groups: dict[tuple[str, str, str], list[tuple[OomRecord, bool]]] = {}
    for oom, is_done in result.as_configured.caught_ooms:
        place = (oom.where or "–", oom.caught_at or "not known", str(oom.phase))
        groups.setdefault(place, []).append((oom, is_done))
    rows: list[list[str | Cell]] = []
    for (where, caught_at, phase), failures in groups.items():
        num_done = sum(is_done for _, is_done in failures)
        num = len(failures)
        largest = max(oom.requested_bytes for oom, _ in failures)
        done = Cell("all", "good") if num_done == num else Cell(f"{num_done} of {num}", "bad")
        rows.append([where, caught_at, phase, str(num), format_bytes(largest), done])
    titles = ("asked at", "caught at", "in", "failed", "largest", "done again")
    table = Table(titles, rows, right=("failed", "largest"))
    intro = "Allocations that failed, and were caught. Work counts as done again only where that was seen."
    yield Section("caught", "Failed and caught", intro=intro if rows else "", body=[table] if rows else [])


def _processes(result: ProbeResult) -> Iterator[Section]:
    """The processes of a watched script that starts some, each of which has a log of its own."""
    rows: list[list[str | Cell]] = []
    for number, log in enumerate(result.processes, 1):
        mark = "reported here" if log is result.as_configured else ""
        peak = of_budget(log.peak_allocated_bytes, log.run.budget_bytes)
        rows.append([str(number), str(len(log.steps)), peak, str(log.outcome), mark])
    table = Table(("process", "steps", "peak", "outcome", ""), rows, right=("steps",))
    intro = "The script starts processes. Each is counted against the whole budget, as if the card were its own."
    body: list[blocks.Block] = [table, Paragraph(intro)] if rows else []
    yield Section("processes", "Processes", intro=intro if rows else "", body=body)


def _gpus(result: ProbeResult) -> Iterator[Section]:
    """What each GPU would take where one process lays a model over several."""
    run = result.as_configured.run
    rows: list[list[str | Cell]] = []
    for number, peak in enumerate(run.gpu_peaks):
        fits = Cell("yes", "good")
        if peak > run.budget_bytes:
            fits = ONLY_JUST if result.as_configured.fatal_oom is None else Cell("no", "bad")
        mark = "takes most" if peak == max(run.gpu_peaks) > min(run.gpu_peaks) else ""
        rows.append([str(number), of_budget(peak, run.budget_bytes), fits, mark])
    intro = "What PyTorch would reserve of each GPU, had it as much memory as it wants. The report is of one of them."
    body: list[blocks.Block] = [Table(("GPU", "reserved", "fits", ""), rows), Paragraph(intro)] if rows else []
    yield Section("gpus", "GPUs", intro=intro if rows else "", body=body)


def _largest_live(failure: Failure) -> list[tuple[str, Level]]:
    """Return the categories worth a number; the others together."""
    total = sum(size for _, size in failure.live)
    least = MIN_SHOWN_SHARE * total
    shown, rest = [], total
    for name, size in failure.live:
        if size >= least:
            # a snapshot lists lines of code in place of categories
            shown.append((name if ":" in name else name.replace("_", " "), Level(size)))
            rest -= size
    if rest >= least > 0:
        shown.append(("other", Level(rest)))
    return shown


def _by_phase(result: ProbeResult) -> Iterator[Section]:
    levels = {name: phase_levels(log) for name, log in result.runs}
    reached = set(chain.from_iterable(levels.values()))
    if not reached:
        return
    run = result.as_configured.run
    budget = run.budget_bytes if run.budget_is_known else 0
    scale = _scale(result)
    everything = chain.from_iterable(of_run.values() for of_run in levels.values())
    unit, unit_bytes = table_unit(max(level.top_bytes for level in everything))
    source, phases = source_in_words(result.as_configured), [phase for phase in Phase if phase in reached]
    drawn = _drawn_budget(result.as_configured, scale)
    bars = blocks.PhaseBars(phases, levels, source, scale, drawn, unit_bytes)
    aside = f"peaks in {unit}; the budget is {gib(budget) if unit == 'GiB' else format_bytes(budget)}"
    if not budget:
        aside = f"peaks in {unit}; the budget is not known"
    intro = "The highest memory in each part of the training loop, in the order in which they first run."
    body: list[blocks.Block] = [bars, *_longest_batch(result.as_configured)]
    numbers = blocks.Folded("The numbers, in bytes", _phase_numbers(bars))
    yield Section("phases", "Memory by phase", "", aside, intro, body, [numbers])


def _where(result: ProbeResult) -> Iterator[Section]:
    for name, log in result.runs:
        yield memory_section(log, name, in_terminal=log is result.as_configured)


def _layers(result: ProbeResult) -> Iterator[Section]:
    for name, log in result.runs:
        yield layers_section(log, name, in_terminal=log is result.as_configured)


def _phase_numbers(bars: blocks.PhaseBars) -> Table:
    titles, rows = ["phase", "what runs"], []
    for name in bars.levels:
        titles += [f"{what}, {name}" for what in ("allocated", "reserved", "failed request")]
    for phase in bars.phases:
        cells = [str(phase), wording("phases")[phase]]
        for levels in bars.levels.values():
            level = levels.get(phase)
            if level is None:
                cells += ["–", "–", "–"]
            else:
                cells += [str(level.allocated_bytes), str(level.reserved_bytes), str(level.requested_bytes or "–")]
        rows.append(cells)
    return Table(titles, rows)


def _longest_batch(log: RunLog) -> Iterator[Paragraph]:
    """How long a training batch may get: whether the next longer text will do is what one wants to know."""
    limit = length_limit(log)
    is_packed = has_config(log) and config_of(log).data.batching == "packed"  # of many samples, not of a long one
    if limit is None or is_packed:
        return
    batch = f"A training batch of {plural(limit.batch_size, 'sequence')}"
    possible = _longest_possible(log, limit.batch_size)
    if possible is not None and limit.longest >= possible:
        yield Paragraph(f"{batch} stays within the budget up to {possible} tokens, the longest that is made.")
        return
    if limit.longest >= limit.tried_up_to:
        yield Paragraph(f"{batch} stays within the budget up to {limit.tried_up_to} tokens at least.")
        return
    longer = f"{limit.share_beyond:.1%} of the {limit.num_samples} samples seen are longer"
    if not limit.share_beyond:
        longer = f"none of the {limit.num_samples} samples seen is longer"
    yield Paragraph(f"{batch} reaches the budget beyond {limit.longest} tokens; {longer}.")


def _longest_possible(log: RunLog, batch_size: int) -> int | None:
    """Return how long a batch of that size gets as configured; None where that is not known."""
    if not has_config(log):
        return None
    data = config_of(log).data
    if data.batching != "bucketed" or batch_size == 1:
        return data.max_length
    cap = data.max_batch_tokens or config_of(log).train.train_batch_size * data.max_length
    return min(data.max_length, cap // batch_size)


def _over_the_run(result: ProbeResult) -> Iterator[Section]:
    intro = (
        "From left to right, the run from loading the model to its end; upwards, memory. An allocation fails where it"
        " would lift what is reserved above the budget. Below the curve is a lane for each phase of the loop: it shows"
        " where the phase ran, the stronger in colour the closer its peak came to the budget."
    )
    # a chart of characters shows steps only; a memory snapshot has none
    has_steps = any(record.step for record in result.as_configured.phases)
    for name, log in result.runs:
        unit, _ = table_unit(_scale(result))
        chart = [blocks.Timeline(name, log, _axis_top(result))]
        body, details = (chart, []) if has_steps else ([], chart)
        aside = f"peak of each step in {unit}"
        if log.run.budget_is_known and not _drawn_budget(log, _scale(result)):
            aside += f"; the budget, {format_bytes(log.run.budget_bytes)}, lies far above"
        yield Section("time", "Over the run", name, aside, intro, body, details)


def _lengths(result: ProbeResult) -> Iterator[Section]:
    yield Section("lengths", "Memory and length", details=[blocks.Lengths(result.as_configured, _axis_top(result))])


def _fragmentation(result: ProbeResult) -> Iterator[Section]:
    yield Section("map", "Fragmentation", details=[blocks.MemoryMap(name, log) for name, log in result.runs])


def _outside(result: ProbeResult) -> Iterator[Section]:
    intro = "Memory that no tensor of PyTorch's allocator has, as the driver and PyTorch's other caches count it."
    for name, log in result.runs:
        rows = facts(outside_rows(log))
        yield Section("outside", "Outside PyTorch", name, "", intro if rows.rows else "", [rows] if rows.rows else [])


def _plan(result: ProbeResult) -> Iterator[Section]:
    plan = result.plan
    if plan is None:
        return
    rows = [_option(plan.chosen, "strong")]
    for option in (Option((), plan.as_configured, 1.0), *plan.alternatives):
        if option.fixes != plan.chosen.fixes:
            rows.append(_option(option, ""))
    room = f"{format_bytes(plan.headroom_bytes)} of {format_bytes(plan.budget_bytes)}"
    aside = f"for {plan.goal}, leaving {room} free; peaks in GiB, all predicted"
    numbers = ("alloc", "reserved", "time", "fits")
    body: list[blocks.Block] = [Table(("fixes", *numbers), rows, right=numbers)]
    if words := _less_left(result, plan):
        body.append(Paragraph(words))
    yield Section("plan", "Plan", aside=aside, body=body)


def _less_left(result: ProbeResult, plan: Plan) -> str:
    """Return a sentence where the run that proves a plan leaves less free than was asked for, else nothing."""
    log = result.with_fixes
    if log is None or log.fatal_oom is not None:
        return ""
    free = plan.budget_bytes - log.peak_reserved_bytes
    if free >= plan.headroom_bytes:
        return ""
    return (
        f"The run with what was chosen leaves {format_bytes(max(0, free))} free, less than asked for: predicted is a "
        "part of an epoch, over all of which the allocator's cache grows further. More --headroom leaves more."
    )


def _option(option: Option, tone: blocks.Tone) -> list[str | Cell]:
    prediction = option.prediction
    texts = [" + ".join(option.fixes) or "as configured", gib(prediction.peak_allocated_bytes)]
    texts += [gib(prediction.peak_reserved_bytes), f"{option.slowdown:.2f}×"]
    passes = Cell("yes", "good") if prediction.passes else Cell("no", "bad")
    return [*(Cell(text, tone) for text in texts), passes]


def _fixes(result: ProbeResult) -> Iterator[Section]:
    scale = result.as_configured.run.budget_bytes
    for fix in result.fixes:
        scale = max(scale, fix.before_peak_bytes, fix.after_peak_bytes)
    intro = "Fixes were tried by running again from nothing; each counts only where its cause is gone."
    body, shown = [], set[str]()
    for fix in result.fixes:
        body.append(_tried(fix, scale, result.as_configured, with_peaks=shown.isdisjoint(fix.proved_with)))
        shown.add(fix.name)
    yield Section("fixes", "Fixes", "", "tried by running again", intro, body)


def _tried(fix: FixResult, scale: int, log: RunLog, *, with_peaks: bool) -> blocks.TriedFix:
    """Return what a fix did; the peaks, which those proved together have in common, are for the first of them."""
    state = "verified" if fix.verified else "did not help"
    if fix.verified and not fix.applied:
        state = "fits" if log.run.script else "helps, not needed"
    before, after = Level(fix.before_peak_bytes), Level(fix.after_peak_bytes)
    equal = wording("equivalence")[fix.equivalence]
    words = f"{state} · {equal}"
    if with_peaks:
        time = "" if fix.slowdown is None else f" · {fix.slowdown:.2f}× the time"
        together = f", all {len(fix.proved_with) + 1} together" if fix.proved_with else ""
        words = f"peak {before} → {after}{time}{together} · {words}"
    agrees = agreement_in_words(fix.agreement) if fix.agreement is not None and fix.agreement.agrees else ""
    remarks = list(filter(None, (agrees, fix.reason, fix.note)))
    rows = [("before", before), ("after", after)] if with_peaks else []
    heading, source = f"{fix.name}: {fix.title}", source_in_words(log)
    bars = blocks.Bars(heading, words, source, rows, scale, log.run.budget_bytes)
    return blocks.TriedFix(fix, state, fix.applied and fix.verified, remarks, bars)


def agreement_in_words(agreement: AgreementRecord) -> str:
    """Return how the losses agree, and what they are losses of."""
    of = "this run" if agreement.on_recipe else "a tiny model on real tensors, as this run computed nothing"
    if agreement.equivalence == "data":
        return "losses not compared: it changes what is learned"
    if agreement.difference is None:
        return f"as many samples in each step, the same tokens in an epoch: {of}"
    if agreement.difference == 0:
        return f"losses equal bit for bit: {of}"
    return f"losses differ by {agreement.difference:.1e} of themselves (allowed: {agreement.tolerance:.0e}): {of}"


def _limits(result: ProbeResult) -> Iterator[Section]:
    limits = result.limits
    if limits is None:
        return
    rows = {
        "micro-batch": f"{plural(limits.micro_batch, 'sequence')} of the maximum length",
        "length": f"{limits.length} tokens, at the batch sizes of training and evaluation",
        "token cap": f"{limits.batch_tokens} padded tokens in a training batch",
    }
    aside = f"each with all else unchanged; in multiples of {limits.multiple_of} tokens"
    yield Section("limits", "Largest that fit", aside=aside, body=[facts(rows)])


def _other_counts(result: ProbeResult) -> Iterator[Section]:
    if not result.other_counts:
        return
    rows: list[list[str | Cell]] = []
    ends = []
    for count in result.other_counts:
        outcome = Cell(str(count.outcome), "")
        if count.outcome is Outcome.OOM:
            outcome = Cell("out of memory", "bad")
            ends.append(End(count.step, count.total_steps))
        share = f"{count.step / count.total_steps:.0%}" if count.total_steps else "–"
        rows.append([str(count.samples), f"step {count.step} of {count.total_steps}", share, outcome])
    body: list[blocks.Block] = [
        Table(("samples", "ends at", "of the run", "outcome"), rows, right=("samples", "of the run"))
    ]
    if sentence := recurrence_in_words(ends):
        body.append(Paragraph(sentence))
    yield Section("counts", "The same run at other sample counts", aside="as configured", body=body)


def _prediction(result: ProbeResult) -> Iterator[Section]:
    if result.predicted is None:
        return
    predicted = result.predicted.peaks()
    _, log = result.runs[-1]
    rows = []
    for phase, measured in log.peaks().items():
        simulated = predicted.get(phase, MemoryStats())
        allocated = _difference(measured.peak_allocated_bytes, simulated.peak_allocated_bytes)
        reserved = _difference(measured.peak_reserved_bytes, simulated.peak_reserved_bytes)
        rows.append([str(phase), *allocated, *reserved])
    numbers = ("allocated", "difference", "reserved", "difference")
    intro = "What was measured on the GPU, and how far from it the simulation without one lies; peaks in bytes."
    body: list[blocks.Block] = [Table(("", *numbers), rows, right=numbers), *_whole_run(result.whole_run)]
    yield Section("prediction", "Measured against simulated", "", "peaks in bytes", intro, body)


def _difference(measured: int, simulated: int) -> tuple[str, str]:
    return str(measured), f"{simulated - measured:+d}" if simulated != measured else "0"


def _whole_run(log: RunLog | None) -> Iterator[Paragraph]:
    if log is not None:
        end = "passes" if log.outcome is Outcome.COMPLETED else "runs out of memory"
        peak = of_budget(log.peak_allocated_bytes, log.run.budget_bytes)
        yield Paragraph(f"All {log.run.total_steps} steps, simulated: the run {end}, with a peak of {peak}.")


def _also(result: ProbeResult) -> Iterator[Section]:
    items = [explain(finding, result.as_configured) for finding in result.findings if finding.severity != "error"]
    yield Section("also", "Also costs memory or time", body=[blocks.Findings(items)] if items else [])


def _basis(result: ProbeResult) -> Iterator[Section]:
    log = result.as_configured
    run, model = log.run, log.run.model
    how = "measured with CUDA" if run.source == "cuda" else "simulated with a model of PyTorch's allocator; no GPU used"
    budget = f"{gib(run.budget_bytes)} GiB for PyTorch" if run.budget_is_known else "its size is not known"
    rows = {"memory": how, "card": f"{run.gpu_name}, {budget}"}
    more = {"started": run.started_at, **run.environment}
    if run.script:
        rows["script"] = f"{run.script}, unmodified; its phases and steps are inferred"
    if run.num_ranks > 1:
        rows["ranks"] = (
            f"the first of {run.num_ranks} was followed, as torchrun starts them, one on each GPU; what NCCL itself "
            "takes lies beside what is counted"
        )
    if run.ranks_on_gpu > 1:
        rows["ranks"] = (
            f"the first of {run.num_ranks} was followed, as torchrun starts them; the second has its memory on GPU 0 "
            f"too, so the budget is 1/{run.ranks_on_gpu} of that GPU's"
        )
    if run.gpu_peaks:
        rows["GPUs"] = f"one process lays the model over {len(run.gpu_peaks)}, layer after layer, as device_map does"
    if run.data_bytes >= MIN_DATA_SHARE * log.peak_allocated_bytes > 0:
        rows["host data"] = (
            "tensors on the CPU count as the card's, also data that would stay in host memory; the largest has "
            f"{format_bytes(run.data_bytes)}, made at {run.data_where}"
        )
    if model:
        rows |= {"model": model.name, "weights": wording("weights").get(model.weights, model.weights)}
        rows["slower"] = "; ".join(model.fallbacks)
        if has_config(log):
            rows["positions"] = _beyond_positions(model, config_of(log).data.max_length)
            rows["outliers"] = _outliers(config_of(log), run.source)
            rows["decompositions"] = _decompositions(config_of(log), run.source)
        trained = f"{model.num_parameters:,}, of which {model.num_trainable_parameters:,} are trained"
        more = {"parameters": trained, **more}
    if run.num_train_samples:
        counts = f"{plural(run.num_train_samples, 'sample')} for training, {run.num_eval_samples} for evaluation"
        left_out = ", ".join(f"{count} {why}" for why, count in run.rows_left_out.items())
        rows["corpus"] = f"{run.corpus}: {counts}" + (f"; left out: {left_out}" if left_out else "")
    if log.end is not None and log.outcome is Outcome.COMPLETED:
        rows["stopped"] = log.end.message
    if result.seconds:
        rows["probe"] = f"took {result.seconds:.0f} s"
    if log.num_unreadable_lines:
        rows["log"] = f"{plural(log.num_unreadable_lines, 'line')} could not be read"
    yield Section("environment", "What this rests on", body=[facts(rows)], details=[facts(more)])


def _beyond_positions(model: ModelFacts, max_length: int) -> str:
    """Return what is to be known of sequences that are longer than the model was made for; nothing of others."""
    if not model.max_positions or max_length <= model.max_positions:
        return ""
    return f"the model was made for {model.max_positions}; {max_length} need RoPE scaling (rope_scaling in config.json)"


def _outliers(config: RunConfig, source: str) -> str:
    """Return what a simulation of 8-bit products cannot know."""
    if config.model.quantization != "int8" or not config.model.llm_int8_threshold or source == "cuda":
        return ""
    return (
        f"columns of inputs above {config.model.llm_int8_threshold:g} stay in 16 bits; how many, only values tell, and "
        "none is counted: of random weights on an H200 they took 1.2 % of the peak"
    )


def _decompositions(config: RunConfig, source: str) -> str:
    """Return what a simulation of an adapter that begins as a part of the weights cannot know."""
    if not config.lora.decomposes_weights or source == "cuda":
        return ""
    return (
        f"--init-lora-weights {config.lora.init_lora_weights} decomposes each weight on the card while it loads: the "
        "results are counted, cuSOLVER's workspace is not known and not counted"
    )


def _stand_ins(result: ProbeResult) -> Iterator[Section]:
    """What a dry run took for what it could not know, by the lines that asked; what of a notebook was not run."""
    asked, not_run = [], []
    for stand_in in result.as_configured.stand_ins:
        if stand_in.what.startswith(NOT_RUN):
            not_run.append([stand_in.where, stand_in.what.removeprefix(NOT_RUN)])
        else:
            asked.append([stand_in.where, stand_in.what, str(stand_in.count)])
    table = Table(("asked at", "taken for it", "times"), asked)
    intro = "Without a GPU there are no values. Where the script asked for one, this was taken:"
    yield Section("stand_ins", "Stand-ins", intro=intro if asked else "", body=[table] if asked else [])
    lines = Table(("cell", "line for IPython or a shell"), not_run)
    yield Section("not_run", "Not run", body=[lines] if not_run else [])


def _configuration(result: ProbeResult) -> Iterator[Section]:
    if not has_config(result.as_configured):
        missing = Paragraph("The log does not say how the run was configured.")
        yield Section("configuration", "Configuration", details=[missing])
        return
    before, after = config_of(result.as_configured), config_of(result.runs[-1][1])
    meanings = field_help(inspect.getsource(schema))
    details = []
    for name, cls in schema.SECTIONS.items():
        rows = []
        for item in dataclasses.fields(cls):
            old = value_text(getattr(getattr(before, name), item.name), item)
            new = value_text(getattr(getattr(after, name), item.name), item)
            rows.append([flag_of(item), old, new if new != old else "", meanings[cls.__name__, item.name]])
        changed = sum(bool(row[2]) for row in rows)
        title = f"{name} ({changed} changed by fixes)" if changed else name
        settings = Table(("flag", "value", "with fixes", "meaning"), rows)
        details.append(blocks.Folded(title, settings, is_open=bool(changed)))
    intro = f"Every setting of the run, by its flag; {result.as_configured.run.fingerprint} stands for all of them."
    yield Section("configuration", "Configuration", intro=intro, details=details)


def _words(result: ProbeResult) -> Iterator[Section]:
    yield Section("words", "Words used here", details=[facts(wording("glossary"))])


PROBE_SECTIONS: tuple[Callable[[ProbeResult], Iterator[Section]], ...] = (
    _verdict,
    _next,
    _why,
    _causes,
    _request,
    _contents,
    _caught,
    _processes,
    _by_phase,
    _gpus,
    _where,
    _layers,
    _over_the_run,
    _lengths,
    _fragmentation,
    _outside,
    _plan,
    _fixes,
    _limits,
    _other_counts,
    _prediction,
    _also,
    _basis,
    _stand_ins,
    _configuration,
    _words,
)
