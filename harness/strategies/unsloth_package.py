"""Unsloth as a package: which versions of it and beside it will do, and importing it ahead of what it patches.

Never imports torch at its top: versions are checked before anything heavy.
"""

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import ConfigError

NEEDED = ("unsloth>=2026.10", "trl>=1.10")
"""as the extra `unsloth` of pyproject.toml"""
CHECKED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth_zoo")
"""packages whose versions Unsloth restricts and that it breaks with; the rest of its list is not needed to train"""
PATCHED = ("transformers", "peft", "trl")
"""packages that Unsloth changes while it is imported, and must therefore come before"""
NO_GPU = "needs a CUDA GPU; its kernels are Triton's, and nothing of it is simulated; use --strategy qlora"

INSTALL = "pip install -e '.[unsloth]', without constraints.txt"


def check_versions() -> None:
    """Compare the installed versions with those that the harness and the installed Unsloth accept.

    Raises:
        ConfigError: one line with what is installed and what is accepted.
    """
    problems = list(_problems(map(Requirement, NEEDED)))
    if not problems:
        problems = list(_problems(_requirements_of_unsloth()))
    if problems:
        raise ConfigError(f"--strategy unsloth: {'; '.join(problems)} ({INSTALL}); or use --strategy qlora")


def _requirements_of_unsloth() -> list[Requirement]:
    """Return what the installed Unsloth itself asks for, without its extras."""
    requirements = map(Requirement, metadata.requires("unsloth") or [])
    wanted = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [r for r in wanted if r.name.replace("-", "_") in CHECKED]


def _problems(requirements: Iterable[Requirement]) -> Iterable[str]:
    for requirement in requirements:
        installed = _version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            accepted = str(requirement.specifier) or "any version"
            yield f"{requirement.name} {installed or 'is not'} installed, accepted: {accepted}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def import_unsloth(config: RunConfig) -> None:
    """Import Unsloth, offline, with the run's settings of the allocator; must come before transformers, peft and trl.

    Raises:
        ConfigError: versions do not fit, what it patches is there already, or it cannot be imported.
    """
    if "unsloth" in sys.modules:
        return
    check_versions()
    if not importlib.import_module("torch").cuda.is_available():
        raise ConfigError(f"--strategy unsloth: {NO_GPU}")
    if early := [name for name in PATCHED if name in sys.modules]:
        raise ConfigError(f"--strategy unsloth: {', '.join(early)} imported before unsloth; start a new process")
    # else Unsloth switches expandable segments on
    os.environ["PYTORCH_ALLOC_CONF"] = f"expandable_segments:{config.device.expandable_segments}"
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", os.path.join(tempfile.gettempdir(), "unsloth_compiled_cache"))
    if config.output.push_to_hub is None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        importlib.import_module("unsloth")
    except (ImportError, NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ConfigError(f"--strategy unsloth: it cannot be imported ({reason}); or use --strategy qlora") from None


def missing_kernels() -> list[str]:
    """Return which of the packages that Unsloth takes its faster kernels from are missing, and what runs instead."""
    instead = {
        "xformers": "attention runs in PyTorch's own kernels",
        "triton": "none of Unsloth's kernels runs",
    }
    return [f"{name} is not installed: {what}" for name, what in instead.items() if not importlib.util.find_spec(name)]
