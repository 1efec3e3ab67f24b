"""The cards that a run can be asked to fit, from gpus.toml or a file of the user's own."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import DeviceConfig
from memory_harness.configs.tables import did_you_mean, read_toml, unknown_name
from memory_harness.configs.units import format_bytes, parse_bytes

BACKENDS = ("flash", "memory_efficient", "math")
"""of scaled_dot_product_attention"""

_FILE = Path(__file__).with_name("gpus.toml")
CUDNN_CAPABILITIES = ((9, 0), (10, 0))
"""of cards on which scaled_dot_product_attention takes cuDNN's kernel"""

_OPTIONAL = ("speeds",)
"""keys of a card that may be left out"""
_OF_CAPABILITY = ("bfloat16", "sdpa_backends", "cublas_workspace")
"""keys of a card that may be left out where its capability is known"""
_NAMES_NOTHING = {"nvidia", "geforce", "tesla", "gpu"}
"""words in the name of a card that tell it from no other"""


NCCL_MEASURED = {((9, 0), 2): 912_261_120}
"""What NCCL takes outside of PyTorch's allocator, by compute capability and number of GPUs. Measured by the driver on
two H200 joined by NVLink: tests/bench/results/h200_two_gpus.json."""
MOST_OF_NCCL, SHARE_OF_NCCL = parse_bytes("1.6 GiB"), 0.05
"""What it may take elsewhere: an estimate on the safe side, until it is measured. 544 MB were seen between two
A100, 688 MB between four (github.com/NVIDIA/nccl/issues/964), 1.6 GB in github.com/NVIDIA/nccl/issues/864; it grows
with the channels, of which cards linked by PCIe alone have fewer."""


@dataclass(frozen=True)
class Speeds:
    """How fast a card computes and moves memory in a training step, and how fast its host launches kernels."""

    half_flops: float
    """floating-point operations a second in products of 16-bit matrices"""
    float32_flops: float
    """the same in 32 bits"""
    bytes_per_second: float
    """to and from the card's memory"""
    operator_seconds: float
    """that the host takes for an operator, with what PyTorch and the model do around it"""


SHARE_OF_FLOPS, SHARE_OF_BANDWIDTH = 0.56, 0.7
"""of the maker's figures that a step reaches: fitted to those of tests/bench/results/h200_fast_path.json"""
OPERATOR_SECONDS = 23e-6
"""of an operator on the host: fitted to the same, of a host with an H200"""


@dataclass(frozen=True)
class Card:
    """A GPU as PyTorch's allocator sees it."""

    name: str
    """its name in gpus.toml and for --gpu"""
    title: str
    """its name for people"""
    capacity_bytes: int
    """what PyTorch prints as the total capacity"""
    context_bytes: int
    """taken outside the allocator by the CUDA context and its libraries"""
    capability: tuple[int, int]
    """compute capability, major and minor"""
    num_sms: int
    """streaming multiprocessors"""
    has_bfloat16: bool
    """bfloat16 in hardware"""
    sdpa_backends: tuple[Literal["flash", "memory_efficient", "math"], ...]
    """in the order in which scaled_dot_product_attention tries them"""
    cublas_workspace_bytes: int
    """allocated once for each thread that multiplies matrices"""
    sources: Mapping[str, str] = field(hash=False)
    """where each value comes from; `estimate` where nothing public gives it"""
    aliases: tuple[str, ...] = ()
    """other names that --gpu takes"""
    peak_speeds: tuple[float, float, float] | None = None
    """the maker's: TFLOPS of 16-bit products that are added up in float32, TFLOPS in float32, GB/s; None: unknown"""

    @property
    def speeds(self) -> Speeds:
        """What of the maker's figures a step reaches; the T4's for each multiprocessor where these are not known."""
        t4 = load_cards()["t4"]
        share = self.num_sms / t4.num_sms
        half, single, bandwidth = self.peak_speeds or tuple(share * value for value in t4.peak_speeds or ())
        return Speeds(
            half * 1e12 * SHARE_OF_FLOPS,
            single * 1e12 * SHARE_OF_FLOPS,
            bandwidth * 1e9 * SHARE_OF_BANDWIDTH,
            OPERATOR_SECONDS,
        )

    @property
    def budget_bytes(self) -> int:
        """What is left for the allocator."""
        return self.capacity_bytes - self.context_bytes


def emulated(target: Card, host: Card) -> Card:
    """Return the target card as a larger GPU can emulate it: its memory and attention backends on the host's hardware.

    What the hardware decides stays the host's: cuBLAS' workspace and the kernels that libraries pick by capability.
    """
    return dataclasses.replace(
        host,
        name=target.name,
        title=f"{target.title}, emulated on {host.title}",
        capacity_bytes=target.capacity_bytes,
        context_bytes=target.context_bytes,
        sdpa_backends=tuple(name for name in target.sdpa_backends if name in host.sdpa_backends),
    )


def find_card(name: str, file: str | None = None, *, flag: str = "--gpu") -> Card:
    """Return the card of that name, of the user's own file before gpus.toml.

    Case, spaces, hyphens and the maker's names do not matter: `NVIDIA GeForce RTX 3090` is `rtx3090`.

    Args:
        name: the card's name, its title or one of its aliases.
        file: TOML file with cards of the user's own.
        flag: what the name was given to.

    Raises:
        ConfigError: there is no such card, it cannot be simulated, or the file is not usable.
    """
    own, wanted = read_cards(file) if file else {}, _spelling(name)
    for card in (*own.values(), *load_cards().values()):
        if wanted in map(_spelling, (card.name, card.title, *card.aliases)):
            return card
    reason = _gpus_toml()["not_simulated"].get(wanted)
    if reason is not None:
        raise ConfigError(f"{flag} {name}: not simulated: {reason} (allowed: a card of gpus.toml, or of --gpu-file)")
    raise ConfigError(unknown_name(flag, name, [*own, *load_cards()], _spelling))


def card_of(device: DeviceConfig) -> Card:
    """Return the card that a configuration names, its context as configured. Raises ConfigError: see `find_card`."""
    card = find_card(device.gpu, device.gpu_file)
    return card if device.context_bytes is None else dataclasses.replace(card, context_bytes=device.context_bytes)


def budget_of(device: DeviceConfig) -> int:
    """Return the bytes that the allocator may reserve, where GPUs talk without what that takes beside it.

    Raises:
        ConfigError: see `find_card`.
    """
    return device.budget_bytes or card_of(device).budget_bytes - bytes_beside(device)


def bytes_beside(device: DeviceConfig) -> int:
    """Return what communication may take of a card outside of PyTorch's allocator; a budget that is given is without.

    Raises:
        ConfigError: see `find_card`.
    """
    if device.engine not in ("ddp", "fsdp") or device.budget_bytes:
        return 0
    card = card_of(device)
    estimate = min(MOST_OF_NCCL, int(SHARE_OF_NCCL * card.capacity_bytes))
    return NCCL_MEASURED.get((card.capability, device.num_gpus), estimate)


def with_own_card(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a device; where they have a file of cards and name none of them, its only card is named.

    Raises:
        ConfigError: the file is not usable, or holds several cards.
    """
    file = fields.get("gpu_file")
    if file is None or "gpu" in fields:
        return dict(fields)
    names = list(read_cards(file))
    if len(names) > 1:
        raise ConfigError(f"--gpu-file {file}: holds {len(names)} cards; name one with --gpu ({', '.join(names)})")
    return {**fields, "gpu": names[0]}


@functools.cache
def load_cards() -> dict[str, Card]:
    """Return the cards of gpus.toml by name, in the order in which they are written."""
    tables = _gpus_toml()
    return _cards(tables["cards"], tables["sources"], _FILE.name)


def read_cards(file: str) -> dict[str, Card]:
    """Return the cards of a file of the user's own by name: tables under [cards] with the keys of gpus.toml.

    Raises:
        ConfigError: it cannot be read, holds no card, or a card lacks a key or has one that is not usable.
    """
    try:
        tables = read_toml(Path(file)).get("cards")
    except ConfigError as error:
        raise ConfigError(f"--gpu-file: {error}") from None
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"--gpu-file {file}: holds no card; write a table [cards.NAME], as gpus.toml does")
    return _cards(tables, dict.fromkeys(_KEYS, file), f"--gpu-file {file}")


@functools.cache
def _gpus_toml() -> dict[str, Any]:
    return read_toml(_FILE)


def _spelling(name: str) -> str:
    """Return what tells one name from another."""
    words = re.split(r"[\s_-]+", name.lower())
    return "".join(word for word in words if word not in _NAMES_NOTHING)


def _cards(tables: Mapping[str, Any], sources: Mapping[str, str], file: str) -> dict[str, Card]:
    cards, problems = {}, []
    for name, values in tables.items():
        try:
            cards[name] = _card(name, values, sources)
        except ConfigError as error:
            problems += [f"{file}: card {name}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return cards


def _card(name: str, values: Any, shared_sources: Mapping[str, str]) -> Card:
    """Return the card in a table. Raises ConfigError: what is wrong with its keys, one line each."""
    if not isinstance(values, dict):
        raise ConfigError(f"is a value; write a table [cards.{name}]")
    problems = [f"unknown key {key}{did_you_mean(key, _KEYS)}" for key in values if key not in _KEYS]
    given = {"aliases": [], "sources": {}} | _architecture(values.get("capability")) | values
    read: dict[str, Any] = {}
    for key, (field_name, allowed, reader) in _KEYS.items():
        if key not in given:
            if key in _OPTIONAL:
                continue
            if key not in _OF_CAPABILITY or "capability" in read:  # else what is wrong is the capability
                problems.append(f"{key} is missing (allowed: {allowed})")
            continue
        try:
            read[field_name] = reader(given[key])
        except ValueError:
            problems.append(f"{key} {given[key]!r} is not usable (allowed: {allowed})")
    if not problems and read["context_bytes"] >= read["capacity_bytes"]:
        problems = [f"context {values['context']}: the card has {format_bytes(read['capacity_bytes'])}; lower it"]
    if problems:
        raise ConfigError(problems)
    return Card(name=name, **{**read, "sources": {**shared_sources, **read["sources"]}})


def _architecture(capability: Any) -> dict[str, Any]:
    """Return what the compute capability decides, or nothing where gpus.toml does not know it."""
    for architecture in _gpus_toml()["architectures"]:
        if capability in architecture["capabilities"]:
            return {key: value for key, value in architecture.items() if key != "capabilities"}
    return {}


def _that_is(is_allowed: bool, value: Any) -> Any:
    if not is_allowed:
        raise ValueError
    return value


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least  # a bool is an int too


def _size(value: Any, least: int = 0) -> int:
    num_bytes = parse_bytes(_that_is(isinstance(value, str), value))
    return int(_that_is(num_bytes >= least, num_bytes))


def _capability(value: Any) -> tuple[int, int]:
    pair = isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))
    return tuple(_that_is(pair, value))


def _backends(value: Any) -> tuple[str, ...]:
    return tuple(_that_is(isinstance(value, list) and value != [] and all(name in BACKENDS for name in value), value))


def _speeds(value: Any) -> tuple[float, ...]:
    is_number = isinstance(value, list) and all(type(number) in (int, float) and number > 0 for number in value)
    return tuple(_that_is(is_number and len(value) == 3, value))


def _aliases(value: Any) -> tuple[str, ...]:
    return tuple(_that_is(isinstance(value, list) and all(isinstance(name, str) for name in value), value))


_KEYS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "title": ("title", "a text", lambda value: _that_is(isinstance(value, str), value)),
    "capacity": ("capacity_bytes", 'a size above 0, such as "23.52 GiB"', lambda value: _size(value, 1)),
    "context": ("context_bytes", 'a size, such as "0.44 GiB"', _size),
    "capability": ("capability", "two whole numbers, such as [8, 9]", _capability),
    "multiprocessors": ("num_sms", "1 or more", lambda value: _that_is(_is_count(value, 1), value)),
    "bfloat16": ("has_bfloat16", "true or false", lambda value: _that_is(isinstance(value, bool), value)),
    "sdpa_backends": ("sdpa_backends", f"a list of {', '.join(BACKENDS)}", _backends),
    "cublas_workspace": ("cublas_workspace_bytes", "bytes", lambda value: _that_is(_is_count(value), value)),
    "speeds": ("peak_speeds", "three numbers above 0: TFLOPS in 16 bits, TFLOPS in float32, GB/s", _speeds),
    "aliases": ("aliases", "a list of names", _aliases),
    "sources": ("sources", "a table of texts", lambda value: _that_is(isinstance(value, dict), value)),
}
"""of a table: the field of `Card`, what is allowed, and what reads it or raises ValueError"""
