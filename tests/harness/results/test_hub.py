"""Pushing to the Hub, without one: what is called, and what is said where it cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from memory_harness.configs.errors import ConfigError, HarnessError
from memory_harness.harness.results.hub import check_hub, push


class StubApi:
    """Takes the calls that `HfApi` would send out; their arguments are checked against its own signatures."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.error = error

    def create_repo(self, **arguments: object) -> str:
        self._note("create_repo", arguments)
        return f"https://huggingface.co/{arguments['repo_id']}"

    def upload_folder(self, **arguments: object) -> None:
        self._note("upload_folder", arguments)
        if self.error:
            raise self.error

    def _note(self, name: str, arguments: dict[str, object]) -> None:
        import inspect

        inspect.signature(getattr(HfApi, name)).bind(self, **arguments)
        self.calls.append((name, arguments))


def test_a_private_repository_is_made_and_gets_the_folder(tmp_path: Path) -> None:
    api = StubApi()
    assert push(tmp_path, "someone/adapter", api) == "https://huggingface.co/someone/adapter"
    (created, how), (uploaded, what) = api.calls
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert (how["private"], how["exist_ok"], what["folder_path"]) == (True, True, str(tmp_path))


def test_a_failed_upload_says_where_the_adapter_is(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no route to host; the adapter is in") as failure:
        push(tmp_path, "someone/adapter", StubApi(ConnectionError("no route to host\nmore")))
    assert f"hf upload someone/adapter {tmp_path}" in str(failure.value)


@pytest.mark.parametrize(
    ("repo", "token", "offline", "said"),
    [
        ("someone/adapter", None, False, "no token; set HF_TOKEN"),
        ("someone/adapter", "hf_x", True, "HF_HUB_OFFLINE is set"),
        ("adapter", "hf_x", False, "not of the form USER/NAME"),
        ("some one/adapter!", "hf_x", False, "--push-to-hub some one/adapter!: "),
        ("someone/adapter", "hf_x", False, None),
    ],
)
def test_what_is_missing_is_known_before_the_run(
    monkeypatch: pytest.MonkeyPatch, repo: str, token: str | None, offline: bool, said: str | None
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    if said is None:
        check_hub(repo)
        return
    with pytest.raises(ConfigError, match=said) as failure:
        check_hub(repo)
    assert len(failure.value.problems) == 1
    assert "\n" not in str(failure.value)
