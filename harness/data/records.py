"""Reading rows of any format: tables, JSON, JSON lines, parquet, plain text, folders of `datasets`; gzipped or not."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memory_harness.configs.inputs import GZIP, read_input
from memory_harness.configs.models import is_hub_name
from memory_harness.harness.data.corpus import decode, table_of
from memory_harness.harness.log.errors import DataError

Record = Mapping[str, Any]

_LISTS_OF_TURNS = {"messages", "conversations", "conversation"}
"""columns that hold arrays: an object with one is a row"""

_TRAIN = re.compile(r"(^|[-_.])train([-_.]|$)")
"""in the name of a file beside those of other splits"""

MAX_REASON = 80
"""characters of a library's message that a line repeats"""


@dataclass(frozen=True)
class Records:
    """Rows as they stand in a file."""

    name: str
    rows: list[Record]
    num_unreadable: int
    """rows that are none: lines that are no JSON object, lines of a table with too many fields"""


def read_records(path: Path) -> Records:
    """Read a file, or a folder of them: that of `datasets.save_to_disk`, one with files, or a dataset of the Hub.

    Raises:
        DataError: missing, of an unknown suffix, or not what its suffix says.
    """
    if _reader_of(path) is None and is_hub_name(str(path)):
        folder = _cached_dataset(str(path))
        return replace(_read_folder(folder, folder.rglob("*")), name=str(path))
    return _read_folder(path, path.iterdir()) if path.is_dir() else _read_file(path)


def _cached_dataset(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except Exception:  # the hub's own errors, which differ by version
        raise DataError(
            f"no file at --data {_short(Path(name))}, and no dataset of the Hugging Face Hub in the local cache; add "
            "--download"
        ) from None


def _read_folder(path: Path, inside: Iterable[Path]) -> Records:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _read_saved(path)
    files = _files_in(inside)
    if not files:
        raise DataError(f"nothing to read in --data {_short(path)}: {ALLOWED}")
    parts = [_read_file(file) for file in files]
    rows = [row for part in parts for row in part.rows]
    return Records(path.name, rows, sum(part.num_unreadable for part in parts))


def _files_in(paths: Iterable[Path]) -> list[Path]:
    """Return those to read, in order: of the training split where names say so, texts where nothing else is there."""
    files = [file for file in sorted(paths) if _reader_of(file) is not None and file.is_file()]
    files = [file for file in files if _TRAIN.search(file.name)] or files
    return [file for file in files if not file.name.endswith((".txt", ".txt.gz"))] or files


def _read_file(file: Path) -> Records:
    read = _reader_of(file)
    if not file.is_file():
        raise DataError(f"no file at --data {_short(file)}")
    if read is None:
        raise DataError(f"--data {_short(file)}: of unknown format ({ALLOWED})")
    rows, num_unreadable = read(file)
    if not rows:
        raise DataError(f"--data {_short(file)}: holds no row ({num_unreadable} unreadable)")
    return Records(file.name, rows, num_unreadable)


def _reader_of(file: Path) -> Callable[[Path], tuple[list[Record], int]] | None:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz" and suffixes[-2:] != [".parquet", ".gz"]:  # that is compressed in itself
        suffixes.pop()
    return _READERS.get(suffixes[-1]) if suffixes else None


def _text(file: Path) -> str:
    try:
        content = read_input(file)
        if file.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except gzip.BadGzipFile:
        raise DataError(f"cannot read --data {_short(file)}: not gzip, or not that alone") from None
    except OSError as error:
        raise DataError(f"cannot read --data {_short(file)}: {error.strerror}") from None
    except (EOFError, zlib.error):
        raise DataError(f"cannot read --data {_short(file)}: its compressed data is damaged or cut off") from None
    if content.startswith(GZIP):
        raise DataError(f"cannot read --data {_short(file)}: it is gzip; give it a name that ends in .gz")
    return decode(content, file, "--data")


def _read_table(separator: str) -> Callable[[Path], tuple[list[Record], int]]:
    def read(file: Path) -> tuple[list[Record], int]:
        table = table_of(_text(file), file, "--data", separator)
        rows: list[Record] = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
        return rows, table.num_malformed

    return read


def _read_json(file: Path) -> tuple[list[Record], int]:
    """Read an array of objects, or the one array of an object; lines of objects go by this name too."""
    text = _text(file)
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        rows, num_unreadable = _json_lines(text)
        if len(rows) > num_unreadable:
            return rows, num_unreadable
        raise DataError(f"--data {_short(file)}: is not JSON, {_short(error)}") from None
    if isinstance(value, dict) and not _LISTS_OF_TURNS & value.keys():
        arrays = [member for member in value.values() if isinstance(member, list)]
        value = arrays[0] if len(arrays) == 1 else [value]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"--data {_short(file)}: is no array of objects")
    rows = [row for row in value if isinstance(row, dict)]
    return rows, len(value) - len(rows)


def _read_json_lines(file: Path) -> tuple[list[Record], int]:
    return _json_lines(_text(file))


def _json_lines(text: str) -> tuple[list[Record], int]:
    rows: list[Record] = []
    num_unreadable = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            num_unreadable += 1
    return rows, num_unreadable


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object. Raises ValueError: two have one name, of which one would be lost."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has two members of one name")
    return members


def _read_parquet(file: Path) -> tuple[list[Record], int]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(file).names
        if len(set(names)) < len(names):
            raise DataError(f"--data {_short(file)}: has a column more than once ({_short(', '.join(names))})")
        rows: list[Record] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"--data {_short(file)}: is not parquet, {_short(error)}") from None
    except (ValueError, OverflowError) as error:  # a date that Python has no name for, a text that is no UTF-8
        raise DataError(f"--data {_short(file)}: holds what cannot be read, {_short(error)}") from None
    return rows, 0


def _read_plain(file: Path) -> tuple[list[Record], int]:
    """Read paragraphs: what blank lines separate."""
    paragraphs = _text(file).replace("\r\n", "\n").split("\n\n")
    return [{"text": paragraph.strip("\n")} for paragraph in paragraphs if paragraph.strip()], 0


def _read_saved(folder: Path) -> Records:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets raises whatever its parsers raise
        raise DataError(f"--data {_short(folder)}: cannot be loaded by datasets, {_short(error)}") from None
    if isinstance(saved, dict):
        split = "train" if "train" in saved else next(iter(saved))
        return Records(f"{folder.name} ({split})", list(saved[split]), 0)
    return Records(folder.name, list(saved), 0)


def _short(value: object) -> str:
    """Return what a line may repeat: a file may be its own message."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


_READERS: dict[str, Callable[[Path], tuple[list[Record], int]]] = {
    ".csv": _read_table(","),
    ".tsv": _read_table("\t"),
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
    ".txt": _read_plain,
}
ALLOWED = f"allowed: {', '.join(_READERS)}, each but parquet with .gz too, or a folder of datasets"


def columns_of(rows: Sequence[Record]) -> list[str]:
    """Return the names of all columns, in order of first use; rows of JSON may lack some."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)
