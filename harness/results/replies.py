"""A generated reply, as it goes from the loop to the metrics and the artefacts; never imports torch."""

from dataclasses import dataclass

TUNED, BASE, VETTED = "tuned", "base", "vetted"
"""who answered: the model with its adapter, the model without it, or people, in advance"""


@dataclass(frozen=True)
class Reply:
    """One answer to one prompt."""

    prompt: int
    """position in `Prepared.prompts`"""
    sample: int
    """0 for the first reply to the prompt"""
    text: str
    token_ids: tuple[int, ...]
    """without the stop id; empty where the reply is vetted"""
    answered_by: str
    """`tuned`, `base` or `vetted`"""
    seed: int | None
    """of the drawing; None where nothing was drawn"""
    stopped: bool
    """whether it ended by itself and not at the longest length allowed"""
