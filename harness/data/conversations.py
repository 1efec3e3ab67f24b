"""What rows of people's own data say: who said what before, what is asked, and the reply that is learnt.

A reply is what an assistant says last; what came before it is its prompt. Rows that hold neither are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from memory_harness.harness.data.corpus import Corpus, ReadReport, Row
from memory_harness.harness.data.records import Record, Records, columns_of
from memory_harness.harness.log.errors import DataError

ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
         "tool": "user", "function": "user", "observation": "user", "assistant": "assistant", "gpt": "assistant",
         "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "function_call": "assistant"}  # fmt: skip
"""how data calls who speaks -> how chat templates do"""

PARTS = ("system", "question", "context", "answer")
"""what `--columns` can name a column for; the context is put under the question, as Alpaca's input is"""

PAIRS: dict[str, tuple[tuple[str, ...], ...]] = {
    "alpaca": (("instruction",), ("output", "response")),
    "prompt-completion": (("prompt", "query"), ("completion", "response", "answer")),
    "question-answer": (("question", "questions", "input"), ("answer", "answers", "output", "response")),
}
"""format -> names of the question's column and of the answer's"""

_LISTS = {"messages": ("messages",), "sharegpt": ("conversations", "conversation")}
_CONTEXTS, _SYSTEMS = ("input", "context"), ("system", "system_prompt")

FORMATS = ("messages", "sharegpt", "preference", *PAIRS, "text")
"""in the order in which they are looked for"""

_TITLES = {"preference": "preference: the chosen replies"}

DROPPED = {
    "unreadable": "that could not be read",
    "another_format": "of another format",
    "without_reply": "without a reply",
}
"""kinds of rows that are left out, and how a report calls them"""


def columns_named(text: str | None) -> dict[str, str]:
    """Return what --columns says: from PARTS to names of columns. Raises DataError: not `question=A,answer=B`."""
    named: dict[str, str] = {}
    for pair in (text or "").split(",") if text is not None else ():
        part, equals, column = pair.partition("=")
        if part.strip() not in PARTS or not equals or not column.strip():
            raise DataError(f"--columns {text}: not PART=COLUMN,... (allowed parts: {', '.join(PARTS)})")
        named[part.strip()] = column.strip()
    if text is not None and "answer" not in named:
        raise DataError(f"--columns {text}: names no answer; add answer=COLUMN")
    return named


def corpus_of(records: Records, wanted: str, mapping: Mapping[str, str]) -> Corpus:
    """Return the rows of people's own data.

    Args:
        wanted: one of FORMATS, or `auto`.
        mapping: of --columns, from PARTS to names of columns.

    Raises:
        DataError: no such columns, or no row of the format.
    """
    columns = columns_of(records.rows)
    if mapping:
        _check_columns(mapping, columns)
        name = ", ".join(f"{part}={column}" for part, column in mapping.items())
        convert: _Convert = lambda row: _of_columns(row, mapping)  # noqa: E731
    else:
        name, convert = _format(records.name, wanted, columns)
        name = _TITLES.get(name, name)
    rows: list[Row] = []
    dropped = Counter(unreadable=records.num_unreadable)
    for record in records.rows:
        try:
            row = convert(record)
        except RecursionError:  # nested deeper than any row is
            row = None
        if row is None:
            dropped["another_format"] += 1
        elif not row.answer.strip():
            dropped["without_reply"] += 1
        else:
            rows.append(row)
    num_rows = len(rows) + dropped.total()
    report = ReadReport(num_rows, len(rows), {kind: dropped[kind] for kind in DROPPED}, 0)
    if not rows:
        raise DataError(
            f"{records.name} has no usable row as {name}: {report.line(DROPPED)}; see --data-format and --columns"
        )
    return Corpus(f"{records.name} ({name})", tuple(rows), report)


_Convert = Callable[[Record], "Row | None"]


def _check_columns(mapping: Mapping[str, str], columns: Sequence[str]) -> None:
    missing = [column for column in mapping.values() if column not in columns]
    if missing:
        raise DataError(f"--columns {missing[0]}: no such column (allowed: {', '.join(columns[:12])})")


def _format(file: str, wanted: str, columns: Sequence[str]) -> tuple[str, _Convert]:
    """Return the name of the format, and what makes a row of a record."""
    lower = {name.strip().lower(): name for name in reversed(columns)}
    for name in FORMATS if wanted == "auto" else (wanted,):
        convert = _converter(name, lower)
        if convert is not None:
            return name, convert
    shown = ", ".join(columns[:12])
    if wanted == "auto":
        raise DataError(
            f"--data {file}: no known format has the columns {shown}; name them with --columns question=A,answer=B"
        )
    raise DataError(f"--data-format {wanted}: the columns {shown} of {file} are not of it; see --columns")


def _converter(name: str, columns: Mapping[str, str]) -> _Convert | None:
    """Return what makes a row of a record of a format; None where the columns are not of it."""
    if name in _LISTS:
        column, system = _first(_LISTS[name], columns), _first(_SYSTEMS, columns)
        if column is None:
            return None
        return lambda row: _after(_as_text(row.get(system)) if system else "", _of_turns(row.get(column)))
    if name == "preference":
        return _preference(columns)
    if name == "text":
        text = columns.get("text")
        return None if text is None else lambda row: Row("", "", "", _as_text(row.get(text)))
    questions, answers = PAIRS[name]
    question, answer = _first(questions, columns), _first(answers, columns)
    if question is None or answer is None:
        return None
    mapping = {"question": question, "answer": answer}
    others = {"context": _first(_CONTEXTS, columns), "system": _first(_SYSTEMS, columns)}
    mapping |= {part: column for part, column in others.items() if column not in (None, question, answer)}
    return lambda row: _of_pair(row, mapping)


def _first(names: Sequence[str], columns: Mapping[str, str]) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _preference(columns: Mapping[str, str]) -> _Convert | None:
    """Return what takes the reply that was chosen; the whole conversation where there is no prompt beside it."""
    if not {"chosen", "rejected"} <= columns.keys():
        return None
    prompt, chosen, rejected = columns.get("prompt"), columns["chosen"], columns["rejected"]

    def convert(row: Record) -> Row | None:
        asked, reply = _value(row.get(prompt)) if prompt else None, _value(row.get(chosen))
        before = asked if isinstance(asked, list) else [{"role": "user", "content": asked}] if asked else []
        after = reply if isinstance(reply, list) else [{"role": "assistant", "content": reply}]
        goes_on = next(_turns(after), ("assistant", ""))[0] == "assistant"  # else the prompt is in it again
        found = _of_turns([*before, *after] if goes_on or len(after) == 1 else after)
        return None if found is None else replace(found, rejected=_last_reply(_value(row.get(rejected))))

    return convert


def _last_reply(value: Any) -> str:
    if not isinstance(value, list):
        return _as_text(value)
    found = _of_turns(value)
    return "" if found is None else found.answer


def _of_pair(row: Record, mapping: Mapping[str, str]) -> Row | None:
    """Return the row of a question and its answer, each a text or a list of turns."""
    question, answer = _value(row.get(mapping["question"])), _value(row.get(mapping["answer"]))
    if isinstance(question, list) or isinstance(answer, list):
        before = question if isinstance(question, list) else [{"role": "user", "content": question}]
        after = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        return _of_turns([*before, *after])
    return _of_columns(row, mapping)


def _of_columns(row: Record, mapping: Mapping[str, str]) -> Row:
    texts = {part: _as_text(row.get(column)) for part, column in mapping.items()}
    question = "\n\n".join(text for text in (texts.get("question"), texts.get("context")) if text)
    system = texts.get("system")
    return Row("", "", question, texts.get("answer", ""), (("system", system),) if system else ())


def _after(system: str, row: Row | None) -> Row | None:
    """Return a row behind the system prompt that stands in a column of its own."""
    return replace(row, turns=(("system", system), *row.turns)) if row is not None and system else row


def _of_turns(value: Any) -> Row | None:
    """Return the row of a conversation up to the assistant's last turn; None where it is none."""
    turns = list(_turns(_value(value)))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if not turns or None in (role for role, _ in turns):
        return None
    *before, (_, answer) = turns
    if before and before[-1][0] == "user":
        return Row("", "", before[-1][1], answer, tuple(before[:-1]))  # type: ignore[arg-type]
    return Row("", "", "", answer, tuple(before))  # type: ignore[arg-type]


def _turns(value: Any) -> Iterator[tuple[str | None, str]]:
    """Yield who says what, with None for a role that nobody knows."""
    if not isinstance(value, list):
        return
    for turn in value:
        if not isinstance(turn, Mapping):
            yield None, ""
            continue
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        calls = turn.get("tool_calls")
        yield ROLES.get(str(role).strip().lower()), "\n".join(filter(None, (_as_text(content), _as_text(calls))))


def _value(value: Any) -> Any:
    """Return a cell's value: a list of turns may stand in a table as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[{", "[ {")):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _as_text(value: Any) -> str:
    """Return a cell as a text: of contents in parts, the texts among them."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # half of a character, as a cut may leave, has no bytes
    if isinstance(value, list):
        return "\n".join(filter(None, map(_as_part, value)))
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, bool)) else str(value)


def _as_part(part: Any) -> str:
    """Return one of several parts of a content: its text, or all of one that is something else."""
    if isinstance(part, Mapping) and "text" in part:
        return _as_text(part["text"])
    if isinstance(part, Mapping) and part.get("type") in ("image", "image_url", "audio", "video"):
        return ""
    return _as_text(part)
