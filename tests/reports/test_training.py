"""The report on a training run, for people and for programs."""

import io
import json
from dataclasses import replace
from pathlib import Path

from memory_harness.harness.log.records import MetricsRecord, Outcome
from memory_harness.harness.results.experiments import experiment_id
from memory_harness.reports.html.course import axis_of, parts_of
from memory_harness.reports.terminal import make_console
from memory_harness.reports.training import (
    TrainingResult,
    artefacts_in,
    course_section,
    end_sentence,
    mean_losses,
    print_replies,
    print_training,
    training_exit_code,
    training_page,
    training_to_json,
)
from tests.builders import AS_PUBLISHED, make_log
from tests.reports.html.test_page import Page


def trained_log(outcome=Outcome.COMPLETED):
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1), outcome=outcome)
    steps = [replace(step, loss=4 - step.step / 16) for step in log.steps]
    evals = [replace(record, loss=3.0 - record.step / 16) for record in log.evals]
    evals.append(replace(evals[-1], model="base", loss=4.2))
    metrics = [MetricsRecord(32, "tuned", 7.5, 1.25, 4, 12.5, 30.0, 0.4, 0.2, 0.3)]
    metrics.append(MetricsRecord(32, "base", 66.0, 2.5, 4, 0.5, 10.0, 0.1, 0.0, 0.1))
    run = replace(log.run, let_in_by="the probe in runs/x passed with eval-batch")
    return replace(log, run=run, steps=steps, evals=evals, metrics=metrics)


def printed(result):
    out = io.StringIO()
    print_training(result, make_console(out))
    return out.getvalue()


def test_the_report_names_losses_scores_memory_and_where_things_lie():
    result = TrainingResult(trained_log(), [], {"adapter": Path("runs/y/adapter")}, 12 * 2**30)
    text = printed(result)
    words = ["TRAINED", "32 of 32 steps in 60 s", "simulated on: Tesla T4", "3.6562 → 2.2812", "4.2000", "without the"]
    words += ["perplexity", "bits per byte", "BLEU", "66", "7.5", "runs/y/adapter", "passed with eval-batch"]
    words += ["the probe's peak was 12.00 of 14.40 GiB"]
    assert all(word in text for word in words), text
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_that_ended_early_says_so():
    log = trained_log(Outcome.STOPPED)
    log = replace(log, steps=log.steps[:5], end=replace(log.end, message="stopped by SIGTERM at checkpoint-5"))
    text = printed(TrainingResult(log, [], {}))
    assert "STOPPED" in text
    assert "5 of 32 steps" in text
    assert "SIGTERM" in " ".join(text.split())


def test_a_resumed_run_took_the_time_of_all_its_processes():
    log = trained_log()
    assert end_sentence(replace(log, run=replace(log.run, seconds_before=7140.0))).startswith(
        "32 of 32 steps in 2 h 00"
    )


def test_programs_read_the_same():
    result = TrainingResult(trained_log(), [], {"adapter": Path("a")}, 5)
    data = json.loads(json.dumps(training_to_json(result)))
    assert (data["outcome"], data["step"], data["total_steps"]) == ("completed", 32, 32)
    assert data["last_loss"] < data["first_loss"]
    assert [record["model"] for record in data["evals"]] == ["tuned", "tuned", "base"]
    assert data["metrics"][0]["bleu"] == 12.5
    assert data["artefacts"] == {"adapter": "a"}
    assert data["predicted_peak_reserved_bytes"] == 5
    assert data["peak_reserved_bytes"] == result.log.peak_reserved_bytes


def test_losses_and_seconds_are_of_the_processor_where_the_card_is_simulated():
    log = trained_log()
    told = {block.source for block in course_section(log).details}
    measured = course_section(replace(log, run=replace(log.run, source="cuda"))).details
    assert told == {"computed on the CPU"}
    assert {block.source for block in measured} == {f"measured on: {log.run.gpu_name}"}


def test_without_values_there_is_no_loss():
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    assert mean_losses(log) is None
    assert "Loss" not in printed(TrainingResult(log, [], {}))


def test_exit_codes():
    codes = {outcome: training_exit_code(trained_log(outcome)) for outcome in Outcome}
    assert codes == {Outcome.COMPLETED: 0, Outcome.OOM: 1, Outcome.STOPPED: 3, Outcome.ERROR: 3}


def test_only_what_is_there_counts_as_an_artefact(tmp_path):
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    assert list(artefacts_in(tmp_path / "run")) == ["adapter", "checkpoints"]


def test_the_page_holds_the_training():
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    steps = [replace(step, loss=4.0 - step.step / 20, grad_norm=1.0) for step in log.steps]
    metrics = [MetricsRecord(32, name, 5.0, 0.8, 3, bleu=10.0) for name in ("base", "tuned")]
    log = replace(log, steps=steps, evals=[replace(log.evals[0], loss=2.5)], metrics=metrics)
    replies = [{"question": f"question {n}", "response": "<b>a reply</b>"} for n in range(60)]
    shown = Page(training_page(TrainingResult(log, [], {}), replies))
    for words in ("Trained", "Loss", "Learning rate", "Gradient norm", "held out", "2.5000", "BLEU", "question 39"):
        assert words in shown.text, words
    assert "question 40" not in shown.text
    assert "<b>a reply</b>" in shown.text
    assert {"course", "loss", "scores", "replies", "phases", "time"} <= {s["id"] for s in shown.all("section")}
    ids = [found["id"] for _, found in shown.tags if "id" in found]
    assert len(ids) == len(set(ids))


def test_a_course_fills_its_chart_and_is_drawn_in_few_parts():
    points = [(step, 2.0 + 1 / step) for step in range(1, 5001)]
    parts = parts_of(points, 5000)
    assert len(parts) == 240
    assert parts[0].highest == 3.0
    assert (axis_of([2.1, 2.9]).low, axis_of([0.1, 2.9]).low) == (2.0, 0.0)
    assert axis_of([3.0]).y(3.0) >= 0
    assert axis_of([]).high > axis_of([]).low


def reply_to(question, text, answered_by="tuned", stopped=True, **more):
    return {"question": question, "response": text, "answered_by": answered_by, "stopped": stopped, **more}


def test_the_vetted_reply_is_shown_and_nothing_is_cut_without_a_word(tmp_path):
    log = trained_log()
    replies = [reply_to(f"q{number}", f"a{number}") for number in range(4)]
    replies += [reply_to("crisis", "call somebody", "vetted"), reply_to("other run", "x")]
    replies[1]["stopped"] = False
    for reply in replies:
        reply["experiment_id"] = experiment_id(log.run)
    replies[-1]["experiment_id"] = "another"
    (tmp_path / "GeneratedResponses.json").write_text(json.dumps({"responses": replies}))
    out = io.StringIO()
    print_replies(tmp_path, log.run, make_console(out))
    text = out.getvalue()
    assert "5 replies added" in text
    assert "reply that people have vetted: call somebody" in text
    assert "reply, cut at --max-new-tokens: a1" in text
    assert "a3" not in text
    assert "\n1 more:" in text
    assert "other run" not in text


def test_a_trained_run_says_how_to_ask_it():
    text = printed(TrainingResult(trained_log(), [], {"adapter": Path("runs/y/adapter")}))
    assert "--generate runs/y --ask" in " ".join(text.replace("\\", "").split())
