"""Pushing the adapter to the Hugging Face Hub; imports its client only when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_hub(repo: str) -> None:
    """Make sure, before a run, that there is a token and that the repository's name can be one; asks no server.

    Raises:
        ConfigError: one line that says what is missing.
    """
    raise NotImplementedError


def push(folder: Path, repo: str, api: Any = None) -> str:
    """Upload the folder of an adapter; return the repository's address.

    Args:
        folder: as `Strategy.export` and `write_model_card` made it.
        repo: `user/name`; made, and private, where it does not exist.
        api: a `huggingface_hub.HfApi`; a new one when None.

    Raises:
        HarnessError: the upload failed; the folder is as it was.
    """
    raise NotImplementedError
