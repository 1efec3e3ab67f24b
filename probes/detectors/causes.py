"""The known causes of an out-of-memory part-way through a LoRA or QLoRA run, from causes.toml."""

import functools
from dataclasses import dataclass
from pathlib import Path

from memory_harness.configs.tables import read_toml
from memory_harness.probes.findings import UNEXPLAINED_GROWTH


@dataclass(frozen=True)
class Cause:
    """One way in which a run goes out of memory."""

    id: str
    """the name that findings carry"""
    title: str
    """what happens, in one line"""
    looks_like: str
    """how it shows in a record of memory per phase and step"""
    fix: str
    known_from: tuple[str, ...] = ()
    """public threads that report it, as repository#number, or documents"""
    decisive_test: str = ""
    """what tells it from its look-alikes; empty where the signature decides by itself"""


@functools.cache
def load_causes() -> dict[str, Cause]:
    """Return the causes of causes.toml by id, in the order in which they are written."""
    found = {}
    for cause_id, values in read_toml(Path(__file__).with_name("causes.toml")).items():
        known_from = tuple(values.pop("known_from"))
        found[cause_id] = Cause(id=cause_id, known_from=known_from, **values)
    return found


UNEXPLAINED = Cause(
    id=UNEXPLAINED_GROWTH,
    title="Memory grew or ran out, and no cause of the table fits",
    looks_like="Any growth or failed request whose size, phase and course match none of the known causes.",
    decisive_test="Read the failed size and the lines that made and hold the memory: the report names what it found.",
    fix="Follow the named line; a wrong name would be worse than none.",
)
"""What findings say where they know nothing better; no entry of the table."""
