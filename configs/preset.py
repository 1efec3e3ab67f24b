"""Presets: TOML files that hold a configuration, section by section."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memory_harness.configs.cards import with_own_card
from memory_harness.configs.errors import MAX_PROBLEMS, ConfigError
from memory_harness.configs.inputs import read_json
from memory_harness.configs.schema import SECTIONS, RunConfig, config_from_dict, section_by_field
from memory_harness.configs.tables import did_you_mean, read_toml, unknown_name
from memory_harness.configs.values import NONE, from_toml

DEFAULT_PRESET = "as_published"

RUN_CONFIG = "config.json"
"""in the folder of a training run: what it was started with, or last went on with"""

CHECKPOINT_MANIFEST = "manifest.json"
"""in each of its checkpoints; holds the configuration under `config`"""

RUN_SUFFIX = "-train"
"""ends the name of a training run's folder, unless there are several of the same second"""

_FOLDER = Path(__file__).with_name("presets")


def preset_names() -> list[str]:
    """Return the names of the presets that come with the harness."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_preset(name: str) -> RunConfig:
    """Return the configuration of a preset, by its name or as a TOML file.

    Raises:
        ConfigError: no such preset or file, or it holds something that the schema does not allow; all problems at once.
    """
    path = _preset_path(name)
    try:
        content = read_toml(path)
    except ConfigError as error:
        raise ConfigError(f"--preset: {error}") from None
    sections, problems = _read_sections(content)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    if "device" in sections:
        sections["device"] = with_own_card(sections["device"])
    return config_from_dict(sections)


def real_folder(path: Path) -> Path:
    """Return a folder by its own name where it is given as a link or as `.`.

    Its name and the folder above tell a checkpoint from a run. A link that is itself named like a checkpoint stays: its
    run is where the link is.
    """
    if path.name.startswith("checkpoint-") or (path.name not in ("", "..") and not path.is_symlink()):
        return path
    return Path(os.path.realpath(path))  # `resolve` raises RuntimeError where links go in a circle


def config_of_run(flag: str, folder: Path) -> RunConfig | None:
    """Return the configuration that a training run goes on with, that of its last checkpoint; None where it is no run.

    Args:
        flag: the one that named the folder.
        folder: of the run, or one of the folders in it.

    Raises:
        ConfigError: there is no such folder, or its configuration is damaged or another release's.
    """
    if not folder.is_dir():
        raise ConfigError(f"{flag} {folder}: no such folder")
    config = _config_of_checkpoint(_newest_checkpoint(folder))
    if config is not None:
        return config
    for file in (folder / RUN_CONFIG, folder.parent / RUN_CONFIG):
        try:
            content = read_json(file)
            if isinstance(content, dict) and set(content) <= set(SECTIONS):
                return _read_config(content)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"{flag} {folder}: cannot read {file.name} ({reason}); remove it and give the --preset it began with"
            ) from None
    return None


def _newest_checkpoint(folder: Path) -> Path:
    """Return the last checkpoint in a folder; itself where it holds none."""
    numbers = [path.name.partition("-")[2] for path in folder.glob("checkpoint-*")]
    steps = [int(number) for number in numbers if number.isdecimal()]
    return folder / f"checkpoint-{max(steps)}" if steps else folder


def _config_of_checkpoint(folder: Path) -> RunConfig | None:
    """Return what a checkpoint was written with; None where it is damaged, which loading it tells better."""
    try:
        return _read_config(read_json(folder / CHECKPOINT_MANIFEST)["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_config(content: Mapping[str, Any]) -> RunConfig:
    """Return the configuration in JSON. Raises ValueError: it is damaged, or another release's."""
    sections, problems = _read_sections(content)
    if problems:
        raise ValueError(", ".join(problems))
    return config_from_dict(sections)


def newest_run(output: Path) -> Path:
    """Return the training run in the output folder that began last. Raises ConfigError: there is none."""
    runs = sorted(path.parent for path in output.glob(f"*{RUN_SUFFIX}*/{RUN_CONFIG}"))
    if not runs:
        raise ConfigError(f"--resume: no training run in --output {output}; start one with --train, or name its folder")
    return runs[-1]


def _preset_path(name: str) -> Path:
    if name in preset_names():
        return _FOLDER / f"{name}.toml"
    if Path(name).suffix == ".toml" or Path(name).is_file():
        return Path(name)
    raise ConfigError(unknown_name("--preset", name, preset_names()) + ", or a .toml file")


def _read_sections(content: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the values by section and field, and what is wrong with the others."""
    sections: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for name, values in content.items():
        if name in SECTIONS and isinstance(values, dict):
            sections[name] = _read_section(name, values, problems)
        else:
            problems.append(_not_a_section(name, values) if len(problems) < MAX_PROBLEMS else name)
    return sections, problems


def _not_a_section(name: str, values: Any) -> str:
    if name in SECTIONS:
        return f"{name} = {values!r} is a value; write a section [{name}]"
    section = section_by_field().get(name)
    if section is not None and not isinstance(values, dict):
        return f"{name} stands outside its section; write it under [{section}]"
    return f"unknown section [{name}]{did_you_mean(name, SECTIONS)} (allowed: {', '.join(SECTIONS)})"


def _read_section(section: str, values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(SECTIONS[section])}
    hints = _hints(section)
    read = {}
    for key, value in values.items():
        try:
            if key not in fields:
                raise ValueError(_unknown_key(key, fields) if len(problems) < MAX_PROBLEMS else "unknown key")
            written = NONE if value is None else value  # None is JSON's; TOML has none
            read[key] = from_toml(written, hints[key], fields[key])
        except ValueError as error:
            problems.append(f"[{section}] {key}: {error}")
    return read


@functools.cache
def _hints(section: str) -> dict[str, Any]:
    return typing.get_type_hints(SECTIONS[section])


def _unknown_key(key: str, fields: Mapping[str, Any]) -> str:
    section = section_by_field().get(key)
    if section is not None:
        return f"unknown here; it belongs under [{section}]"
    return f"unknown key{did_you_mean(key, fields)} (allowed: {', '.join(fields)})"
