"""Errors that a configuration can cause, and the root of all errors, here because every layer may import it.

HarnessError
└── ConfigError        a value the user gave is not usable (exit code 2)

`harness.log.errors` draws the rest of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_PROBLEMS = 20
"""Lines of one error that are shown; the others are counted."""
MAX_LINE = 2000
"""Characters of a line that are shown: the longest of ours lists some dozens of allowed names."""
MAX_REASON = 200
"""Characters of a library's message that are repeated: it may quote what it was given."""
CODE_NOT_RUN = "it comes with code of its own, which is never run"
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class HarnessError(Exception):
    """Base of all errors that the harness raises on purpose; each says what is wrong in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(HarnessError):
    """One or several configuration problems, all reported at once, one line each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        shown = [one_line(problem) for problem in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            shown.append(f"and {len(self.problems) - MAX_PROBLEMS} more of such problems")
        self.lines = tuple(shown)
        Exception.__init__(self, self.problems)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def one_line(text: str) -> str:
    """Return a text that may repeat what somebody gave: in one line, not for ever, and with nothing unseen in it."""
    if len(text) > MAX_LINE:
        half = MAX_LINE // 2
        text = f"{text[:half]} [{len(text) - MAX_LINE} characters more] {text[-half:]}"
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def reason_of(error: Exception) -> str:
    """Return the first line of what a library's error says, or its name where it says nothing.

    A library that was told to run no code of a checkpoint's advises to allow it, which is no way out.
    """
    if "trust_remote_code" in str(error):
        return CODE_NOT_RUN
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_REASON]
