"""Chat templates of the families that people fine-tune: the prompt is the template's own, the reply ends its turn."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.harness.data.chat_format import SYSTEM_PROMPT, plain, render
from memory_harness.harness.data.examples import build_example
from memory_harness.harness.data.tokenizer import TransformersTokenizer
from memory_harness.harness.log.errors import DataError
from tests.harness.data.tokenizer_files import make_tokenizer

MERGED = f"{SYSTEM_PROMPT}\n\nQ"
SPECIALS = (
    "<s>", "</s>", "<turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|end|>",
    "<|user|>", "<|assistant|>", "<|channel|>", "<|message|>",
)  # fmt: skip

ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
MISTRAL_2 = (
    "{{ bos_token }}" + ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_3 = (
    "{{ bos_token }}{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}"
    "[INST] {% if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ m.content }}[/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ bos_token + '[INST] <<SYS>>\n' + "
    "messages[0].content + '\n<</SYS>>\n\n' + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PHI_3 = (
    "{% for m in messages if m.role != 'system' %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n'@ + m.content + '<|im_end|>\n' }}{% endfor %}"
OPEN_TURN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
NO_THOUGHTS = "('<think>\n\n</think>\n\n' if m.role == 'assistant' else '')"
QWEN_3 = (
    CHATML.replace("@", " + " + NO_THOUGHTS) + OPEN_TURN + "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN_3_THINKING = CHATML.replace("@", " + " + NO_THOUGHTS) + OPEN_TURN + "{{ '<think>\n' }}{% endif %}"
R1 = CHATML.replace("@", "") + OPEN_TURN + "{{ '<think>\n' }}{% endif %}"
CHANNELS = (
    CHATML.replace("@", " + ('<|channel|>final<|message|>' if m.role == 'assistant' else '')")
    + OPEN_TURN + "{% endif %}"
)  # fmt: skip
GLM = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CHATML_PROMPT = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
FAMILIES = {
    "Gemma 2": (GEMMA, f"<s><turn>user\n{MERGED}<end_of_turn>\n<turn>assistant\n", "<end_of_turn>"),
    "Mistral v0.2": (MISTRAL_2, f"<s>[INST] {MERGED} [/INST]", "</s>"),
    "Mistral v0.3": (MISTRAL_3, f"<s>[INST] {MERGED}[/INST]", "</s>"),
    "Llama 2": (LLAMA_2, f"<s>[INST] <<SYS>>\n{SYSTEM_PROMPT}\n<</SYS>>\n\nQ [/INST]", " </s>"),
    "Phi-3": (PHI_3, f"<|user|>\n{MERGED}<|end|>\n<|assistant|>\n", "<|end|>"),
    "Qwen 3": (QWEN_3, CHATML_PROMPT + "<think>\n\n</think>\n\n", "<|im_end|>"),
    "Qwen 3, thinking": (QWEN_3_THINKING, CHATML_PROMPT + "<think>\n\n</think>\n\n", "<|im_end|>"),
    "DeepSeek R1": (R1, CHATML_PROMPT + "<think>\n\n</think>\n\n", "<|im_end|>"),
    "channels": (CHANNELS, CHATML_PROMPT + "<|channel|>final<|message|>", "<|im_end|>"),
    "GLM-4": (GLM, f"<|system|>\n{SYSTEM_PROMPT}<|user|>\nQ<|assistant|>", "</s>"),
    "named": (
        {"tool_use": "{{ tools[0].name }}", "default": GLM},
        f"<|system|>\n{SYSTEM_PROMPT}<|user|>\nQ<|assistant|>",
        "</s>",
    ),
}


def own(template: Any, eos: str | None = "</s>") -> TransformersTokenizer:
    return TransformersTokenizer(make_tokenizer(SPECIALS, template, eos), "made")


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_end_are_the_familys(family: str) -> None:
    template, prompt, end = FAMILIES[family]
    tokenizer = own(template)
    assert render("Q", tokenizer.chat) == prompt
    assert tokenizer.chat.end == end
    example, _ = build_example(tokenizer, "Q", "A", 2048)
    assert example.input_ids is not None
    assert example.input_ids[-1] == tokenizer.stop_ids[0]
    assert tokenizer.encode("</s>")[0] in tokenizer.stop_ids
    assert len(set(tokenizer.stop_ids)) == len(tokenizer.stop_ids)


TOKENIZERS = [make_tokenizer(SPECIALS, template, "</s>") for template in (GEMMA, MISTRAL_2, PHI_3, QWEN_3)]
PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<[|"), min_size=1).filter(
    lambda t: t == t.strip()
)


@given(st.sampled_from(TOKENIZERS), PLAIN_TEXT, PLAIN_TEXT)
def test_a_sample_is_what_the_template_makes_of_it(made: Any, question: str, answer: str) -> None:
    chat = TransformersTokenizer(made, "made").chat
    system = {"role": "system", "content": SYSTEM_PROMPT}
    messages = [system, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if made.chat_template != QWEN_3:
        messages = [{"role": "user", "content": f"{SYSTEM_PROMPT}\n\n{question}"}, messages[-1]]
    whole = made.apply_chat_template(messages, tokenize=False)
    assert whole.startswith(render(question, chat) + plain(answer, chat) + chat.end)


@given(st.sampled_from(TOKENIZERS), st.lists(st.sampled_from([*SPECIALS, "<", "|", "[", "ক", " "])))
def test_no_text_holds_a_special_token(made: Any, parts: list[str]) -> None:
    tokenizer = TransformersTokenizer(made, "made")
    ids = tokenizer.encode(plain("".join(parts), tokenizer.chat))
    assert not set(ids) & set(made.all_special_ids + tokenizer.encode("".join(SPECIALS)))


def test_every_day_has_the_text_of_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    dated = "Today: {{ strftime_now('%d %B %Y') }}\n" + GLM

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Tomorrow:
            return cls(2031, 2, 3)

    first = own(dated).chat
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert own(dated).chat == first
    assert first.head.startswith("Today: 26 July 2024\n")


def test_without_an_end_of_sequence_the_templates_token_ends_a_reply() -> None:
    tokenizer = own(GEMMA, eos=None)
    assert tokenizer.stop_ids == (tokenizer.encode("<end_of_turn>")[0],)


@pytest.mark.parametrize("eos", [None, ""])
def test_a_reply_that_nothing_ends_is_refused(eos: str | None) -> None:
    with pytest.raises(
        DataError, match=r"made has no eos_token.*set eos_token in its tokenizer_config.json.*--tokeniz"
    ):
        own("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}", eos)


def test_a_template_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_harness.harness.data.chat_format.TEMPLATE_SECONDS", 0.05)
    with pytest.raises(DataError, match="cannot be used: it does not end within"):
        own("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + GLM)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (5, "it is 5, not a text"),
        ({"default": 5}, "it is 5, not a text"),
        ({"rag": GLM}, "no default"),
        ("{% if", "unexpected"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ no_such_variable + '' }}" + GLM, "'no_such_variable' is undefined"),
        ("{{ raise_exception('first\nsecond') }}", "cannot be used: first;"),
        ("{{ messages[0].content }}", "once and unchanged"),
        (GLM.replace("m.content", "m.content + m.content"), "once and unchanged"),
        (GLM.replace("m.content", "m.content | upper"), "once and unchanged"),
        (GLM.replace("m.content", "m.content | tojson"), "once and unchanged"),
        (GLM.replace("m.content", "(m.content if m.role != 'assistant' else '')"), "once and unchanged"),
        (None, "has no chat template, as those of base models"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_clear_line(template: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        own(template)
    assert reason in str(caught.value)
    assert "--tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_tuned_from_llama_3_keeps_its_own_template() -> None:
    llama = (
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|im_start|>",
        "<|im_end|>",
    )
    tuned = TransformersTokenizer(make_tokenizer(llama, CHATML.replace("@", ""), "<|im_end|>"), "tuned")
    assert tuned.chat.end == "<|im_end|>"
    assert "<|eot_id|>" not in render("Q", tuned.chat)
    original = TransformersTokenizer(make_tokenizer(llama, "{{ '<|start_header_id|>' }}", "<|eot_id|>"), "original")
    assert original.chat.end == "<|eot_id|>"


def test_a_text_without_tokens_and_ids_with_gaps() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 998}, "?")), eos_token="</s>")
    words.chat_template = GLM
    tokenizer = TransformersTokenizer(words, "made")
    assert tokenizer.vocab_size == 999
    with pytest.raises(DataError, match=r"made cannot encode a text .*--tokenizer"):
        tokenizer.encode("b")
