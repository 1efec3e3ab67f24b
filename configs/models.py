"""Models before they are built: shapes from models.toml, which need no download, and checkpoints here or on the hub."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError, reason_of
from memory_harness.configs.inputs import read_json
from memory_harness.configs.tables import read_toml, unknown_name

MLP_LAYERS = ("gate_proj", "up_proj", "down_proj")
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", *MLP_LAYERS)
"""Linear layers inside each block of Llama and the many that follow it."""

ALL_LINEAR = "all-linear"
"""in place of layers' names: every linear layer of the blocks; peft's word for it"""

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")
"""model types whose blocks and head are laid out as Llama's: what the techniques that replace parts of a model know"""

TEXT_PARTS = ("text_config", "llm_config")
"""under which the configuration of a model for images and text holds that of its decoder"""

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""under which the configurations of mixtures say how many experts a layer has"""

CLASSIFIER = "ForSequenceClassification"
"""what the names of classes end in whose head classifies a sequence"""

CONFIG_FILES = ("*.json", "*.jinja", "tokenizer*")
"""what tells of a model in its repository on the hub, but for its weights: config.json and the tokenizer"""

DATA_FILES = tuple(f"*.{suffix}" for suffix in ("parquet", "jsonl", "json", "csv", "tsv", "txt", "gz"))
"""what rows of a dataset stand in, in its repository on the hub"""

QUANTISED_BY = ("bitsandbytes",)
"""the methods whose quantised checkpoints are taken as they are"""


@dataclass(frozen=True)
class ModelShape:
    """A model's config.json: enough to build it with random or fake weights."""

    name: str
    """its name in models.toml, on the hub, or its folder: what --model takes"""
    source: str
    """the checkpoint whose config.json it repeats"""
    values: Mapping[str, Any] = field(hash=False)
    """config.json, as written; its model_type is the whole model's"""
    folder: Path | None = None
    """where its config.json lies; None for a shape of models.toml"""
    is_typed_by_class: bool = False
    """whether config.json gives no model_type, or its text part's: it is then that of the class which it names"""

    @property
    def vocab_size(self) -> int:
        """Tokens that the model knows. Raises ConfigError: config.json gives no such number."""
        size = self._text_value("vocab_size")
        if size is None:
            size = _default_of_class(self.values, "vocab_size")
        if type(size) is not int or size < 1:
            raise ConfigError(f"--model {self.name}: its config.json gives no vocab_size (found {size!r})")
        return int(size)

    @property
    def max_position_embeddings(self) -> int | None:
        """The longest sequence; None where config.json names no limit."""
        names = ("max_position_embeddings", "n_positions", "max_seq_len")
        for name in names:
            limit = self._text_value(name)
            if isinstance(limit, int) and limit > 0:
                return limit
        return None

    @property
    def tie_word_embeddings(self) -> bool | None:
        """Whether the output head is the embeddings' weight; None where config.json leaves it to the model's class."""
        value = self._text_value("tie_word_embeddings")
        return value if isinstance(value, bool) else None

    @property
    def classifies(self) -> bool:
        """Whether its head gives a sequence one of a few classes, where others predict the next token."""
        heads = self.values.get("architectures")
        return isinstance(heads, list) and bool(heads) and str(heads[0]).endswith(CLASSIFIER)

    @property
    def is_like_llama(self) -> bool:
        """Whether blocks and head are laid out as Llama's; a head that scales its logits, say, is not."""
        return self.values["model_type"] in LIKE_LLAMA and not self.classifies

    @property
    def rope(self) -> Mapping[str, Any]:
        """What is said of rotary embeddings; empty where that is nothing."""
        return self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}

    @property
    def reading_rope(self) -> str | None:
        """The type of rotary embeddings that depend on the longest sequence of a batch; None where they do not.

        Source: `dynamic_rope_update` in transformers/modeling_rope_utils.py.
        """
        kind = self.rope.get("rope_type") or self.rope.get("type")
        return kind if kind in ("dynamic", "longrope") else None

    @property
    def has_experts(self) -> bool:
        """Whether its feed-forward blocks choose among experts."""
        return any(isinstance(self._text_value(name), int) for name in EXPERT_COUNTS)

    @property
    def bos_token_id(self) -> int:
        """The id that begins a text; 0 where none is named."""
        return next(iter(self._token_ids("bos_token_id")), 0)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a reply."""
        return self._token_ids("eos_token_id")

    @property
    def pad_token_id(self) -> int:
        """Never one of `eos_token_ids`: any other id does, as padding is masked everywhere."""
        stops = self.eos_token_ids
        candidates: list[int] = [*self._token_ids("pad_token_id"), *range(len(stops) + 1)]
        return next(token_id for token_id in candidates if token_id not in stops)

    @property
    def quantised_by(self) -> str | None:
        """The method by which the checkpoint's weights are quantised already; None where they are not."""
        settings = self.values.get("quantization_config") or self._text_value("quantization_config")
        if not isinstance(settings, Mapping):
            return None
        return str(settings.get("quant_method") or "an unnamed method")

    def _token_ids(self, name: str) -> tuple[int, ...]:
        """Return the ids that config.json gives as a list, as a number, or not at all."""
        value = self.values.get(name, self._text_value(name))
        ids = value if isinstance(value, list) else [value]
        return tuple(token_id for token_id in ids if isinstance(token_id, int))

    def _text_value(self, name: str) -> Any:
        for part in TEXT_PARTS:
            text = self.values.get(part)
            if isinstance(text, Mapping) and name in text:
                return text[name]
        return self.values.get(name)


def _default_of_class(values: Mapping[str, Any], name: str) -> Any:
    """Return what transformers takes where config.json leaves a value of the decoder out, as Gemma 3's do; or None."""
    from transformers import AutoConfig  # which takes seconds: most folders say all that is asked

    try:
        return getattr(AutoConfig.for_model(**values).get_text_config(decoder=True), name, None)
    except Exception:  # transformers' configurations raise whatever their checks raise; building the model says what
        return None


@functools.cache
def load_models() -> dict[str, ModelShape]:
    """Return the shapes of models.toml by name, in the order in which they are written."""
    tables = read_toml(Path(__file__).with_name("models.toml"))["models"]
    return {name: ModelShape(name, values.pop("source"), values) for name, values in tables.items()}


def find_model(name: str) -> ModelShape:
    """Return the shape of that name, of the checkpoint in that folder, or of the hub's in the local cache.

    Raises:
        ConfigError: there is none, or its config.json cannot be read.
    """
    if is_local_checkpoint(name):
        return _checkpoint_shape(name, Path(name))
    models = load_models()
    if name in models:
        return models[name]
    if is_hub_name(name):
        folder = _cache_folder(name, "config.json")
        same = [shape for shape in models.values() if (hub_id(shape) or "").lower() == name.lower()]
        if folder is None and same:  # the table says what its config.json would
            return same[0]
        if folder is None:
            raise ConfigError(
                f"--model {name}: no folder with a config.json, and not in the local Hugging Face cache; fetch it from "
                f"the hub with --download (allowed without: {', '.join(models)})"
            )
        return _checkpoint_shape(name, folder)
    hint = ", a local directory that holds a checkpoint with its config.json, or USER/NAME of the Hugging Face Hub"
    raise ConfigError(unknown_name("--model", name, models) + hint)


def is_hub_name(name: str) -> bool:
    """Return whether a name could be that of a repository on the Hugging Face Hub: USER/NAME, and no folder here."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None and not Path(name).exists()


def download(repo: str, patterns: Sequence[str], repo_type: str = "model") -> Path:
    """Download files of a repository into the local Hugging Face cache, and return their folder; what is there stays.

    Raises:
        ConfigError: the hub does not give it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns), repo_type=repo_type))
    except Exception as error:  # the hub's own errors, and those of the HTTP library below, which differs by version
        reason = reason_of(error)
        raise ConfigError(
            f"--download: cannot get {repo} ({reason}); accept its licence on the hub and set HF_TOKEN where it is "
            f"gated, or give a folder with {'--model' if repo_type == 'model' else '--data'} DIR"
        ) from error


def hub_id(shape: ModelShape) -> str | None:
    """Return the repository on the Hugging Face Hub that `source` names, or None where it names none."""
    repo = shape.source.partition(";")[0]
    if repo.count("/") != 1 or " " in repo or is_local_checkpoint(shape.name):
        return None
    return repo


def hub_cache_folder(shape: ModelShape, *file_names: str) -> Path | None:
    """Return the folder of the local Hugging Face cache that holds one of the model's files; None without any."""
    repo = hub_id(shape)
    return None if repo is None else _cache_folder(repo, *file_names)


def _cache_folder(repo: str, *file_names: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in file_names:
        file = try_to_load_from_cache(repo, name)
        if isinstance(file, str):
            return Path(file).parent
    return None


def is_local_checkpoint(name: str) -> bool:
    """Return whether the name is a directory that holds a model's config.json."""
    return Path(name, "config.json").is_file()


def _typed(name: str, folder: Path, values: dict[str, Any]) -> ModelShape:
    """Return the shape with the model_type of the whole model, in doubt that of the class that config.json names."""
    given = values.get("model_type")
    text_types = [values[part].get("model_type") for part in TEXT_PARTS if isinstance(values.get(part), dict)]
    if isinstance(given, str) and given not in text_types:
        return ModelShape(name, name, values, folder)
    of_class = _type_of_class(values.get("architectures"))
    if of_class is not None and of_class != given:
        return ModelShape(name, name, values | {"model_type": of_class}, folder, is_typed_by_class=True)
    if not isinstance(given, str):
        raise ConfigError(
            f"--model {name}: its config.json names no model_type, and no class of transformers under architectures, "
            "so its architecture is not known"
        )
    return ModelShape(name, name, values, folder)


def _type_of_class(architectures: Any) -> str | None:
    """Return the model_type of the first of these classes; None where transformers has no such class."""
    import transformers  # which takes seconds: most folders name their type

    first = next(iter(architectures), None) if isinstance(architectures, list) else None
    try:
        model_class = getattr(transformers, str(first), None)
    except (ImportError, RuntimeError):  # a name whose module asks for a package that is not here
        return None
    model_type = getattr(getattr(model_class, "config_class", None), "model_type", None)
    return model_type or None


def _checkpoint_shape(name: str, folder: Path) -> ModelShape:
    try:
        values = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model {name}: cannot read its config.json ({reason_of(error)})") from None
    shape = _typed(name, folder, values if isinstance(values, dict) else {})
    if shape.quantised_by not in (None, *QUANTISED_BY):
        raise ConfigError(
            f"--model {name}: its weights are quantised already, by {shape.quantised_by}, whose training kernels are "
            f"not modelled (allowed: {', '.join(QUANTISED_BY)}); give the 16-bit checkpoint"
        )
    return shape
