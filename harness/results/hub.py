"""Pushing the adapter to the Hugging Face Hub; imports its client only when called."""

from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError, HarnessError, reason_of


def check_hub(repo: str) -> None:
    """Make sure, before a run, that there is a token and that the repository's name can be one; asks no server.

    Raises:
        ConfigError: one line that says what is missing.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub {repo}: {str(error).splitlines()[0]}") from None
    if repo.count("/") != 1:
        raise ConfigError(f"--push-to-hub {repo}: not of the form USER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"--push-to-hub {repo}: HF_HUB_OFFLINE is set; unset it, or leave the flag out")
    if get_token() is None:
        raise ConfigError(
            f"--push-to-hub {repo}: no token; set HF_TOKEN to one that may write (huggingface.co/settings/tokens),"
            " or run: hf auth login"
        )


def push(folder: Path, repo: str, api: Any = None) -> str:
    """Upload the folder of an adapter; return the repository's address.

    Args:
        folder: as `Strategy.export` and `write_model_card` made it.
        repo: `user/name`; made, and private, where it does not exist.
        api: a `huggingface_hub.HfApi`; a new one when None.

    Raises:
        HarnessError: the upload failed; the folder is as it was.
    """
    from huggingface_hub import HfApi

    api = api or HfApi(library_name="qlora-memory-harness")
    try:
        address = str(api.create_repo(repo_id=repo, private=True, exist_ok=True))
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="LoRA adapter and its model card")
    except (
        Exception
    ) as error:  # the client lets through what its HTTP library raises: another one in each major version
        reason = reason_of(error)
        raise HarnessError(
            f"--push-to-hub {repo}: {reason}; the adapter is in {folder}, to try again: hf upload {repo} {folder}"
        ) from error
    return address
