"""The corpus of a run, ready for training: samples taken, cleaned, split, tokenised."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from memory_harness.configs.crisis import Crisis, load_crisis
from memory_harness.configs.models import find_model, is_hub_name
from memory_harness.configs.schema import DataConfig, RunConfig
from memory_harness.harness.data.batching import Example, given_examples
from memory_harness.harness.data.chat_format import SYSTEM_PROMPT, plain
from memory_harness.harness.data.clean import DROPPED as CLEAN_DROPPED
from memory_harness.harness.data.clean import CleanReport, add_reflective_prefixes, asks_in_crisis, clean, uncleaned
from memory_harness.harness.data.conversations import DROPPED as OTHERS_DROPPED
from memory_harness.harness.data.conversations import columns_named, corpus_of
from memory_harness.harness.data.corpus import (
    COLUMNS,
    Corpus,
    ReadReport,
    Row,
    find_own,
    header_of,
    read_corpus,
    take,
)
from memory_harness.harness.data.corpus import DROPPED as READ_DROPPED
from memory_harness.harness.data.examples import build_example, build_prompt
from memory_harness.harness.data.prompts import as_in_training, read_prompts
from memory_harness.harness.data.records import read_records
from memory_harness.harness.data.synthetic import NUM_ROWS, synthetic_corpus
from memory_harness.harness.data.tokenizer import Tokenizer, load_tokenizer
from memory_harness.harness.log.errors import DataError

_READ_TITLES = READ_DROPPED | OTHERS_DROPPED


@dataclass(frozen=True)
class GenerationPrompt:
    """A question to be answered, and every answer that the corpus has for it (none where it is from elsewhere)."""

    question: str
    references: tuple[str, ...]
    num_tokens: int
    input_ids: tuple[int, ...] | None
    """None where lengths are estimated"""
    vetted_reply: str | None = None
    """given in place of the model's, to a question of self-harm"""

    def tokens(self) -> tuple[int, ...]:
        """Return the prompt's ids; zeros in their number where only that is known."""
        return self.input_ids or (0,) * self.num_tokens


@dataclass(frozen=True)
class Prepared:
    """All that a run needs of the data."""

    train: list[Example]
    eval: list[Example]
    prompts: list[GenerationPrompt]
    corpus_name: str
    """`synthetic` or the file's name"""
    tokenizer: Tokenizer
    read_report: ReadReport
    clean_report: CleanReport
    num_truncated: int
    num_prefixed: int
    """training answers that got a reflective prefix"""
    eval_answer_bytes: int | None = None
    """UTF-8 bytes of the held-out answers, as far as they are not truncated; None where lengths are estimated"""
    prompt_report: ReadReport | None = None
    """of --prompts"""
    approved_by: str = ""
    """who has approved the vetted reply; empty where nobody has"""
    is_plain: bool = False
    """people's own rows, as they are"""
    num_replaced: int = 0
    """rows that would be trained on, were it not for --batches"""

    @property
    def fates(self) -> dict[str, int]:
        """What became of each row of the corpus, by name; all of them together are its rows."""
        cleaned = self.clean_report
        fates = {
            "trained on": len(self.train),
            "evaluated on": len(self.eval),
            "not taken": self.read_report.num_usable - cleaned.num_rows,
            "set aside for vetted replies": len(cleaned.crisis),
        }
        if self.num_replaced:
            fates |= {"trained on": 0, "not trained on, as --batches says on what": self.num_replaced}
        for kind, count in self.read_report.dropped.items():
            fates[_READ_TITLES[kind]] = count
        for reason, count in cleaned.dropped.items():
            fates[CLEAN_DROPPED[reason]] = count
        return fates

    @property
    def left_out(self) -> dict[str, int]:
        """The fates of rows that are neither trained on nor evaluated on, as far as there are such rows."""
        used = ("trained on", "evaluated on")
        return {fate: count for fate, count in self.fates.items() if count and fate not in used}

    def lines(self) -> tuple[str, ...]:
        """Return the report, one line each for the corpus, reading, cleaning, the split, the tokens and the prompts."""
        num_vetted = sum(prompt.vetted_reply is not None for prompt in self.prompts)
        asked = f"prompts: {len(self.prompts)} to answer"
        if num_vetted:
            approval = (
                f"approved by {self.approved_by}" if self.approved_by else "NOT APPROVED BY ANYBODY, see --crisis"
            )
            asked += f", {num_vetted} of them by the vetted reply ({approval})"
        if self.prompt_report:
            asked += f"; {self.prompt_report.line()}"
        return (
            f"corpus: {self.corpus_name}",
            self.read_report.line(_READ_TITLES),
            self.clean_report.line(),
            f"split by question: {len(self.train)} to train ({self.num_prefixed} with a reflective prefix), "
            f"{len(self.eval)} to evaluate",
            f"tokenizer: {self.tokenizer.name}; {self.num_truncated} samples truncated",
            asked,
        )


def prepare(config: RunConfig) -> Prepared:
    """Read or make the corpus, clean it, split it by question and turn it into examples.

    Raises:
        DataError: the corpus or the tokenizer cannot be used.
    """
    data = config.data
    vocab_size = find_model(config.model.model).vocab_size
    corpus, is_plain = _first_samples(config)
    tokenizer = load_tokenizer(config, vocab_size, None if is_plain else SYSTEM_PROMPT)
    cleaned, clean_report = (corpus, uncleaned(corpus)) if is_plain else clean(corpus)
    if not cleaned.rows:
        raise DataError(f"nothing is left of {corpus.name}: {clean_report.line()}; raise --samples or change --data")
    if config.train.compares_answers:
        cleaned = replace(cleaned, rows=_with_rejected(cleaned, config))
    else:
        cleaned = replace(cleaned, rows=tuple(replace(row, rejected="") for row in cleaned.rows))
    train_rows, eval_rows = split_by_question(cleaned.rows, data.eval_fraction, data.seed)
    if not eval_rows and config.eval.do_eval:
        taken = "" if data.samples is None else f" at --samples {data.samples}"
        raise DataError(f"nothing to evaluate on: {corpus.name} has one question{taken}; give two or more")
    prefixed, num_prefixed = (train_rows, 0) if is_plain else add_reflective_prefixes(train_rows, data.seed)
    examples = _examples_of_prompts if config.train.objective == "grpo" else _examples
    train, train_truncated = examples(tokenizer, prefixed, config)
    evaluation, eval_truncated = examples(tokenizer, eval_rows, config)
    questions, prompt_report = _questions(config, eval_rows)
    crisis = load_crisis(config.generation.crisis)
    if data.train_on_prompts:
        train = [replace(example, num_prompt_tokens=0) for example in train]
    given = [example for shape in data.given_batches for example in given_examples(*shape, config)]
    return Prepared(
        train=given or train,
        eval=evaluation,
        prompts=_prompts(tokenizer, questions, None if is_plain else crisis, data.max_length),
        corpus_name=corpus.name,
        tokenizer=tokenizer,
        read_report=corpus.report,
        clean_report=clean_report,
        num_truncated=train_truncated + eval_truncated,
        num_prefixed=num_prefixed,
        eval_answer_bytes=_answer_bytes(tokenizer, eval_rows, evaluation),
        prompt_report=prompt_report,
        approved_by=crisis.approved_by,
        is_plain=is_plain,
        num_replaced=len(train) if given else 0,
    )


def check_corpus(config: RunConfig) -> None:
    """Read the corpus and no more, to say in time what of it cannot be used.

    Raises:
        DataError: it cannot be read.
    """
    if config.data.data is not None:
        _first_samples(config)


def _first_samples(config: RunConfig) -> tuple[Corpus, bool]:
    """Return the rows to use, and whether they are taken as they are.

    A synthetic corpus is as large as it must be to keep that many once it is cleaned.
    """
    data = config.data
    if data.data is None:
        return synthetic_corpus(NUM_ROWS if data.samples is None else data.samples, data.seed), False
    corpus, is_own = _read(data)
    style = data.data_style
    is_plain = not is_own if style == "auto" else style == "plain"
    # a preset's number is meant for the Bengali corpus: of people's own rows, all are taken where there are fewer
    rows = take(corpus, data.samples) if is_own else corpus.rows[: data.samples]
    return replace(corpus, rows=rows), is_plain


def _read(data: DataConfig) -> tuple[Corpus, bool]:
    """Return the rows of --data, and whether it is the Bengali corpus."""
    assert data.data is not None
    path = Path(data.data)
    may_be_own = data.data_format == "auto" and data.columns is None and not is_hub_name(data.data)
    file = find_own(path) if may_be_own else None
    if file is not None and set(header_of(file)) & set(COLUMNS):
        return read_corpus(file), True
    return corpus_of(read_records(file or path), data.data_format, columns_named(data.columns)), False


def _examples_of_prompts(tokenizer: Tokenizer, rows: Iterable[Row], config: RunConfig) -> tuple[list[Example], int]:
    """Return the rows' prompts, each with a completion as long as it may get, and how many prompts were truncated."""
    completion, examples, num_truncated = config.train.max_completion_length, [], 0
    for row in rows:
        whole, _ = build_prompt(tokenizer, row.question, sys.maxsize, row.turns)
        length = min(whole, config.data.max_length - completion)
        examples.append(Example(length + completion, length))
        num_truncated += length < whole
    return examples, num_truncated


def _examples(tokenizer: Tokenizer, rows: Iterable[Row], config: RunConfig) -> tuple[list[Example], int]:
    """Return the rows as examples, and how many of them were truncated."""
    examples, num_truncated, max_length = [], 0, config.data.max_length
    for row in rows:
        example, truncated = build_example(tokenizer, row.question, row.answer, max_length, row.turns)
        if row.rejected:
            rejected, too = build_example(tokenizer, row.question, row.rejected, max_length, row.turns)
            example, truncated = replace(example, rejected=rejected), truncated or too
        examples.append(example)
        num_truncated += truncated
    return examples, num_truncated


def _with_rejected(corpus: Corpus, config: RunConfig) -> tuple[Row, ...]:
    """Return the rows, each with an answer that its own is preferred to: of a synthetic corpus, that of another row.

    Raises:
        DataError: a row has none.
    """
    rows = corpus.rows
    if config.data.data is None:
        others = (*rows[1:], rows[0])
        return tuple(replace(row, rejected=other.answer) for row, other in zip(rows, others, strict=True))
    missing = sum(not row.rejected for row in rows)
    if missing:
        raise DataError(
            f"--objective {config.train.objective}: {missing} of {len(rows)} rows of {corpus.name} have no rejected "
            "answer (allowed: rows with chosen and rejected; or --objective sft)"
        )
    return rows


def _answer_bytes(tokenizer: Tokenizer, rows: Sequence[Row], examples: Sequence[Example]) -> int | None:
    """Return the bytes of the answers as the examples hold them: of one that was truncated, what is left."""
    total = 0
    for row, example in zip(rows, examples, strict=True):
        if example.input_ids is None:
            return None
        ids = example.input_ids[example.num_prompt_tokens :]
        is_whole = bool(ids) and ids[-1] in tokenizer.stop_ids
        text = plain(row.answer, tokenizer.chat) if is_whole else tokenizer.decode(ids)
        total += len(text.encode())
    return total


_Asked = dict[tuple[str, tuple[tuple[str, str], ...]], list[str]]
"""a question, with what was said before it -> its references"""


def _questions(config: RunConfig, eval_rows: Iterable[Row]) -> tuple[_Asked, ReadReport | None]:
    """Return the questions to be answered, and what became of the rows of --prompts."""
    if config.generation.ask is not None:
        return {(as_in_training(config.generation.ask), ()): []}, None
    if config.generation.prompts is not None:
        questions, report = read_prompts(config.generation.prompts)
        return {(question, ()): [] for question in questions}, report
    references: _Asked = {}
    for row in eval_rows:
        if row.question:
            references.setdefault((row.question, row.turns), []).append(row.answer)
    return dict(islice(references.items(), config.eval.generate_prompts)), None


def _prompts(tokenizer: Tokenizer, asked: _Asked, crisis: Crisis | None, max_length: int) -> list[GenerationPrompt]:
    """Return the prompts.

    Args:
        crisis: the reply to questions of self-harm; None where the model answers all.
    """
    prompts = []
    for (question, turns), references in asked.items():
        num_tokens, ids = build_prompt(tokenizer, question, max_length, turns)
        is_vetted = crisis is not None and asks_in_crisis(question, crisis.phrases)
        vetted_reply = crisis.text if crisis is not None and is_vetted else None
        prompts.append(GenerationPrompt(question, tuple(references), num_tokens, ids, vetted_reply))
    return prompts


def split_by_question(rows: Sequence[Row], eval_fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Return training and evaluation rows in random order, all answers to one question on one side.

    The evaluation side is as near to its fraction as whole questions allow; neither is empty, given two questions.
    """
    by_question: dict[Any, list[Row]] = {}
    for row in rows:
        by_question.setdefault((row.turns, row.question or row.answer), []).append(row)
    groups = list(by_question.values())
    Random(seed).shuffle(groups)
    train: list[Row] = []
    evaluation: list[Row] = []
    chosen = _choose(list(map(len, groups)), eval_fraction * len(rows))
    for i, group in enumerate(groups):
        if i in chosen:
            evaluation += group
        else:
            train += group
    return train, evaluation


def _choose(sizes: Sequence[int], target: float) -> set[int]:
    """Return indices whose sizes add up to the reachable sum nearest to the target, neither nothing nor everything."""
    total = sum(sizes)
    last_of: dict[int, int] = {0: -1}
    reachable = 1  # bit s is set where some of the sizes so far add up to s
    for i, size in enumerate(sizes):
        new = (reachable << size) & ~reachable
        reachable |= new
        while new:
            lowest = new & -new
            last_of[lowest.bit_length() - 1] = i
            new ^= lowest
    sums = [s for s in last_of if 0 < s < total] or [0]
    left, chosen = min(sums, key=lambda s: (abs(s - target), s)), set()
    while left:
        chosen.add(last_of[left])
        left -= sizes[last_of[left]]
    return chosen
