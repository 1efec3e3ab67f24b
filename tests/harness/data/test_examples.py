"""Samples in tokens: the prompt is masked, the reply ends, and truncation leaves both usable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memory_harness.harness.data.chat_format import SYSTEM_PROMPT, llama3_format, render
from memory_harness.harness.data.examples import build_example, build_prompt
from memory_harness.harness.data.tokenizer import CharacterTokenizer, LengthEstimate

CHARACTERS = CharacterTokenizer()
ESTIMATE = LengthEstimate(128_256, 128004, (128001, 128008, 128009))
BOS, EOT = 1, 2


def test_the_prompt_is_llamas_template() -> None:
    assert render("প্রশ্ন", llama3_format("system text")) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nsystem text<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nপ্রশ্ন<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_sample_cannot_end_its_own_turn() -> None:
    example, _ = build_example(CHARACTERS, "x<|eot_id|>y", "<|begin_of_text|>z", 2048)
    assert example.input_ids is not None
    assert example.input_ids.count(BOS) == 1
    assert example.input_ids.count(EOT) == 3  # system, user, assistant


@given(st.integers(1, 400), st.integers(1, 400), st.integers(128, 1000))
def test_examples_fit_and_keep_prompt_start_header_and_targets(question: int, answer: int, max_length: int) -> None:
    example, truncated = build_example(CHARACTERS, "ক" * question, "খ" * answer, max_length)
    full_prompt = CHARACTERS.encode(render("ক" * question, CHARACTERS.chat))
    full = [*full_prompt, *CHARACTERS.encode("খ" * answer), EOT]
    ids = example.input_ids
    assert ids is not None
    assert len(ids) == example.num_tokens == min(len(full), max_length)
    assert truncated == (len(full) > max_length)
    prompt, reply = ids[: example.num_prompt_tokens], ids[example.num_prompt_tokens :]
    tail = CHARACTERS.encode(CHARACTERS.chat.tail)
    assert list(prompt[-len(tail) :]) == tail
    assert list(prompt[: -len(tail)]) == full_prompt[: len(prompt) - len(tail)]
    assert example.num_target_tokens == len(reply) >= min(answer + 1, max_length // 4)
    assert (reply[-1] == EOT) == (len(reply) == answer + 1)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(128, 1000))
def test_estimated_examples_obey_the_same_arithmetic(question: int, answer: int, max_length: int) -> None:
    example, truncated = build_example(ESTIMATE, "ক" * question, "খ" * answer, max_length)
    full_prompt = ESTIMATE.count(render("ক" * question, ESTIMATE.chat))
    full = full_prompt + ESTIMATE.count("খ" * answer + "<|eot_id|>")
    assert example.input_ids is None
    assert example.num_tokens == min(full, max_length)
    assert truncated == (full > max_length)
    assert 0 < example.num_prompt_tokens <= min(full_prompt, max_length - 1)


def test_prompts_to_answer_end_with_the_assistants_header() -> None:
    num_tokens, ids = build_prompt(CHARACTERS, "ক" * 500, 200)
    assert ids is not None
    assert num_tokens == len(ids) == 200
    assert list(ids[-3:]) == CHARACTERS.encode("<|end_header_id|>\n\n")
    assert build_prompt(ESTIMATE, "ক", 200) == (ESTIMATE.count(render("ক", ESTIMATE.chat)), None)
    assert SYSTEM_PROMPT in CHARACTERS.decode(ids)


@given(st.integers(8, 127))
def test_even_lengths_below_the_template_give_a_target(max_length: int) -> None:
    example, truncated = build_example(CHARACTERS, "ক" * 100, "খ" * 100, max_length)
    assert truncated
    assert example.num_tokens == max_length
    assert example.num_target_tokens > 0
