"""The weights of a model's checkpoint on this machine: found, checked against the model, read one at a time.

Only safetensors files are read: one `model.safetensors`, or the shards that its index names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import read_json
from memory_harness.configs.models import (
    CONFIG_FILES,
    ModelShape,
    download,
    hub_cache_folder,
    hub_id,
    is_local_checkpoint,
)

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

DOWNLOADED = ("*.safetensors", *CONFIG_FILES)
"""what a model needs of its repository; the same weights in other formats stay there"""
PACKED_PARTS = ("absmax", "quant_map", "quant_state.bitsandbytes__nf4")
NESTED_PARTS = ("nested_absmax", "nested_quant_map")
"""what comes with a weight in 4 bits, after its name: constants, their own where those are quantised too

Source: transformers/quantizers/quantizer_bnb_4bit.py, `get_weight_conversions`
"""
MAX_NAMES = 3
"""tensors that a message names before it counts the others"""


def find_checkpoint(shape: ModelShape) -> Path | None:
    """Return the folder that holds the model's weights: its own, or the local Hugging Face cache; None without any."""
    folder = Path(shape.name) if is_local_checkpoint(shape.name) else hub_cache_folder(shape, INDEX, SINGLE)
    if folder is None or not ((folder / SINGLE).is_file() or (folder / INDEX).is_file()):
        return None
    return folder


def download_checkpoint(shape: ModelShape, *, weights: bool) -> Path:
    """Download the model's tokenizer, and its weights if asked, into the local Hugging Face cache.

    Raises:
        ConfigError: the model has no repository, or the hub does not give it.
    """
    repo = hub_id(shape)
    if repo is None:
        raise ConfigError(
            f"--download: {shape.name} is on no hub (allowed: a --model of models.toml that names one, or USER/NAME)"
        )
    return download(repo, DOWNLOADED if weights else CONFIG_FILES)


@dataclass(frozen=True)
class Weights:
    """An open checkpoint."""

    folder: Path
    files: Mapping[str, Any]
    """by tensor name, the open safetensors file that holds it"""

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor in host memory, in `dtype`.

        Raises:
            ConfigError: it holds values that the dtype cannot.
        """
        stored: torch.Tensor = self.files[name].get_tensor(name)
        tensor = stored.to(dtype)
        if dtype.itemsize < 4 and stored.dtype is not dtype and not tensor.isfinite().all():
            raise ConfigError(
                f"--dtype {str(dtype).removeprefix('torch.')}: {name} of {self.folder} has values beyond it; "
                "use --dtype bfloat16 or float32"
            )
        return tensor

    def read_packed(self, name: str, shape: Sequence[int]) -> tuple[torch.Tensor, Any]:
        """Return a weight that bitsandbytes has packed in 4 bits, and its QuantState, in host memory.

        Raises:
            ConfigError: what was packed has another shape, or cannot be read.
        """
        from bitsandbytes.functional import QuantState

        parts = {part: self.files[f"{name}.{part}"].get_tensor(f"{name}.{part}") for part in self._parts_of(name)}
        try:
            state = QuantState.from_dict(parts, device="cpu")
        except Exception as error:  # bitsandbytes and its JSON raise whatever they find first
            raise ConfigError(
                f"--model {self.folder}: cannot read the constants of {name} ({error}); fetch it again"
            ) from None
        if tuple(state.shape) != tuple(shape):
            raise ConfigError(
                f"--model {self.folder}: of another shape than config.json says: {_unlike(name, state.shape, shape)}"
            )
        return self.files[name].get_tensor(name), state

    def _parts_of(self, name: str) -> list[str]:
        return [part for part in (*PACKED_PARTS, *NESTED_PARTS) if f"{name}.{part}" in self.files]

    def check_packed(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Look for weights in 4 bits, and for what they come with.

        Raises:
            ConfigError: one line that says what is missing or not packed.
        """
        missing = []
        for name in shapes:
            missing += [part for part in (name, *(f"{name}.{part}" for part in PACKED_PARTS)) if part not in self.files]
        if missing:
            raise ConfigError(f"--model {self.folder}: the checkpoint lacks {_listed(missing)}")
        self.check({name: (math.ceil(math.prod(shape) / 2), 1) for name, shape in shapes.items()})

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Compare names and shapes with the model's; reads no values.

        Raises:
            ConfigError: one line that says what is missing or of another shape.
        """
        missing = [name for name in shapes if name not in self.files]
        if missing:
            raise ConfigError(f"--model {self.folder}: the checkpoint lacks {_listed(missing)}")
        wrong = []
        for name, shape in shapes.items():
            found = tuple(self.files[name].get_slice(name).get_shape())
            if found != tuple(shape):
                wrong.append(_unlike(name, found, shape))
        if wrong:
            raise ConfigError(f"--model {self.folder}: of another shape than config.json says: {_listed(wrong)}")


def _unlike(name: str, found: Sequence[int], shape: Sequence[int]) -> str:
    return f"{name} is {'x'.join(map(str, found))}, the model's {'x'.join(map(str, shape))}"


def _listed(names: Sequence[str]) -> str:
    listed, rest = ", ".join(names[:MAX_NAMES]), len(names) - MAX_NAMES
    return f"{listed} and {rest} more" if rest > 0 else listed


@contextmanager
def open_weights(folder: Path) -> Iterator[Weights]:
    """Open a checkpoint's files; their content is read when a tensor is asked for.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in _files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"--model {folder}: cannot read {path.name} ({error}); fetch it again") from None
            files.update(dict.fromkeys(file.keys(), file))
        yield Weights(folder, files)


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return [folder / SINGLE]
    try:
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ConfigError(f"--model {folder}: cannot read {INDEX} ({error!r}); fetch it again") from None
    return list(map(folder.joinpath, names))
