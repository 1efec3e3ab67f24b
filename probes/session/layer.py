"""Libraries at other versions than those installed, in a folder that goes before them on `PYTHONPATH`.

A layer holds only what differs: the libraries asked for, and what these need in other versions than are installed.
All else is the installed environment itself, so that two runs differ by nothing more, and no gigabytes of PyTorch are
copied. A virtual environment of its own would have to be given the same packages again, and could not be given those
that were installed from a checkout or a file. pip, which knows the user's index and proxies, says what a layer needs,
with all other libraries held at what is installed; where an environment has no pip, as those that uv makes, uv does.

Layers are kept in the user's cache, by the versions of everything installed here: with another of these a layer
might need other packages. One is built under another name and under a lock, and then renamed: what a killed build
left is never taken for whole, and the next build of the same removes it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from filelock import FileLock
from packaging.requirements import Requirement

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.pins import FLAG, SUPPORTED, Pin
from memory_harness.configs.places import user_cache
from memory_harness.harness.log.files import partial_folder

FOLDER = "layers"
"""in the user's cache"""

PACKAGES = "site-packages"
"""in a layer: what lies there is known for a library's by the name of the folder, and paths below it compare"""

BESIDE = ("datasets",)
"""what a run imports too, and may go along in another version where it needs that"""

OFFLINE = ("Retrying (", "NewConnectionError", "error sending request", "dns error")
"""in what an installer says where it cannot reach its index"""

MAX_REASON = 240
"""characters of an installer's message that an error repeats"""


def installed_version(name: str) -> str | None:
    """Return the version of a package here, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def layer_of(pins: Sequence[Pin], say: Callable[[str], None]) -> Path:
    """Return the folder that holds the libraries at these versions, made now where it was not made before.

    Args:
        say: is told, in a line, what takes long.

    Raises:
        ConfigError: there is no such version, no network, no installer, no room, or the versions do not go together.
    """
    folder = cache_folder() / _name(pins)
    packages = folder / PACKAGES
    if packages.is_dir():
        return packages
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not packages.is_dir():  # another command has made it meanwhile
                _build(folder, pins, say)
    except OSError as error:
        raise ConfigError(
            f"{FLAG}: {error.filename or folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to another"
        ) from None
    return packages


def cache_folder() -> Path:
    """Return where layers are kept."""
    return user_cache() / FOLDER


def _name(pins: Sequence[Pin]) -> str:
    """Return the name of a layer: what it is of, and the digest of that and all that it lies over."""
    whole = [*sorted(map(str, pins)), *surroundings()]
    digest = hashlib.sha256("\n".join(whole).encode()).hexdigest()[:16]
    return "_".join([*sorted(f"{pin.name}-{pin.version}" for pin in pins), digest])


def surroundings() -> list[str]:
    """Return what a run depends on beside what it is given: Python, the machine's kind, and all that is installed."""
    return [sys.version, platform.machine(), *_installed()]


def _installed() -> list[str]:
    return sorted({f"{found.name}=={found.version}" for found in metadata.distributions()})


def _build(folder: Path, pins: Sequence[Pin], say: Callable[[str], None]) -> None:
    say(f"looking up what {' '.join(map(str, pins))} needs")
    needed = _needed(pins)
    if any(Requirement(requirement).name == "torch" for requirement in needed):
        say(f"torch of another version is several GB to download and to keep, in {folder}")
    say(f"installing {' '.join(needed)} into {folder}, once")
    with partial_folder(folder) as partial:
        _run([*_installer(), "--no-deps", "--target", str(partial / PACKAGES), *needed], pins)
        partial.rename(folder)


def _needed(pins: Sequence[Pin]) -> list[str]:
    """Return the packages of a layer, `NAME==VERSION`: those asked for, and those that change with them."""
    wanted = [*map(str, pins), *BESIDE]
    for name in SUPPORTED.keys() - {pin.name for pin in pins}:
        version = installed_version(name)
        if version is not None:
            wanted.append(f"{name}=={version}")
    if not _has_pip():
        said = _run([*_installer(), "--dry-run", *wanted], pins).stderr
        return re.findall(r"^ \+ (\S+==\S+)", said, re.MULTILINE)
    report = json.loads(_run([*_installer(), "--dry-run", "--report", "-", *wanted], pins).stdout)
    packages = [entry["metadata"] for entry in report["install"]]
    return [f"{package['name']}=={package['version']}" for package in packages]


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def _installer() -> list[str]:
    """Return the command that installs packages for this Python. Raises ConfigError where there is none."""
    if _has_pip():
        quiet = ("--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1")
        return [sys.executable, "-P", "-m", "pip", "install", *quiet]  # -P: nothing of the current folder
    uv = shutil.which("uv")
    if uv is None:
        raise ConfigError(f"{FLAG}: neither pip nor uv is here to install with; add pip: python -m ensurepip")
    return [uv, "pip", "install", "--python", sys.executable]


def _run(command: Sequence[str], pins: Sequence[Pin]) -> subprocess.CompletedProcess[str]:
    """Run an installer to its end. Raises ConfigError: what it says, in one line."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        _refuse(done.stdout + done.stderr, pins)
    return done


def _refuse(said: str, pins: Sequence[Pin]) -> NoReturn:
    what = f"{FLAG} {' '.join(map(str, pins))}"
    if any(sign in said for sign in OFFLINE):
        raise ConfigError(f"{what}: the package index cannot be reached; connect, or name one that can (PIP_INDEX_URL)")
    if "No matching distribution found for" in said:
        missing = said.rpartition("No matching distribution found for")[2].split()[0]
        raise ConfigError(f"{what}: the package index has no {missing} for this Python and machine")
    conflicts = re.findall(r"^    (\S.* depends on .*)$", said, re.MULTILINE)
    if conflicts:
        raise ConfigError(f"{what}: do not go together with what is installed: {_short('; '.join(conflicts))}")
    errors = re.findall(r"^(?:ERROR|error): *(.*)$", said, re.MULTILINE) or said.strip().splitlines() or ["no reason"]
    raise ConfigError(f"{what}: cannot be installed: {_short(errors[0])}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
