"""Errors that a configuration can cause, and the root of all errors, here because every layer may import it.

HarnessError
└── ConfigError        a value the user gave is not usable (exit code 2)

`harness.log.errors` draws the rest of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence


class HarnessError(Exception):
    """Base of all errors that the harness raises on purpose."""


class ConfigError(HarnessError):
    """One or several configuration problems, all reported at once, one line each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


CODE_NOT_RUN = "it comes with code of its own, which is never run"


def reason_of(error: Exception) -> str:
    """Return the first line of what a library's error says, or its name where it says nothing.

    A library that was told to run no code of a checkpoint's advises to allow it, which is no way out.
    """
    if "trust_remote_code" in str(error):
        return CODE_NOT_RUN
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
