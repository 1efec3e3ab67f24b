"""What earlier simulations have found, in the user's cache: asked for again, the same answer comes without another.

A key stands for all that a simulation depends on: the configuration, what its files hold, every package that is
installed, Python, and this program's own files. Whatever of them changes, the key is another, so that nothing kept is
ever out of date; nothing is lost where the folder is deleted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from memory_harness.configs.models import find_model, hub_cache_folder, is_hub_name
from memory_harness.configs.places import PARTS_FOLDER, user_cache
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.files import write_whole
from memory_harness.probes.session.layer import surroundings

FOLDER = "estimates"
PARTS = ("configs", "harness", "probes", "reports")
SOURCES = (".py", ".toml")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""files that are told by size and time of change: gigabytes, of which a simulation reads no values"""
TOKENIZER = ("tokenizer.json", "tokenizer.model", "config.json")


@dataclass(frozen=True)
class Estimate:
    """Whether a run fits, in a sentence, and what it takes."""

    sentence: str
    exit_code: int
    """of the probe that it was taken from"""
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    budget_bytes: int


def estimate_key(config: RunConfig) -> str:
    """Return what stands for all that a simulation of a configuration depends on, as 32 hex digits.

    Raises:
        ConfigError: there is no such model.
    """
    digest = hashlib.sha256()
    for part in _all_that_counts(config):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def _all_that_counts(config: RunConfig) -> Iterator[str]:
    content = config.with_fields(device="simulated").to_dict()
    del content["output"]
    yield json.dumps(content, sort_keys=True)
    yield from surroundings()
    for part in PARTS:
        yield from _files_below(PARTS_FOLDER / part, SOURCES)
    yield str(hub_cache_folder(find_model(config.model.model), *TOKENIZER))  # its name holds the commit
    for section in content.values():
        for value in section.values():
            if isinstance(value, str):
                yield from _what_is_named(value)


def _what_is_named(value: str) -> Iterator[str]:
    """Yield what a file, the files of a folder, or a repository in the local cache hold; else nothing."""
    path = Path(value)
    if is_hub_name(value):
        for kind in ("models", "datasets"):
            yield from _files_below(Path(HF_HUB_CACHE, f"{kind}--{value.replace('/', '--')}", "refs"))
    elif path.is_dir():
        yield from _files_below(path)
    elif path.is_file():
        yield _told(path)


def _files_below(folder: Path, endings: tuple[str, ...] = ()) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (not endings or path.suffix in endings):
            yield f"{path.relative_to(folder)} {_told(path)}"


def _told(path: Path) -> str:
    if path.suffix in WEIGHTS:
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_estimate(key: str) -> Estimate | None:
    """Return what was kept under a key; None where nothing was, or what lies there cannot be used."""
    try:
        return Estimate(**json.loads(_file(key).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def keep_estimate(key: str, estimate: Estimate) -> None:
    """Keep an estimate; without room or right to write, the next one is simulated again."""
    file = _file(key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(dataclasses.asdict(estimate)))
    except OSError:
        return


def _file(key: str) -> Path:
    return user_cache() / FOLDER / f"{key}.json"
