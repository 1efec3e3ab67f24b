"""Faults: one file per mistake, each of which really produces its cause: `FAULT`, called as the file."""

from importlib import import_module

from memory_harness.probes.fault_names import fault_names
from memory_harness.probes.faults.base import Fault
from memory_harness.probes.faults.run import check_plantable, execute_with, run_with, tiny_config

__all__ = ["FAULTS", "Fault", "check_plantable", "execute_with", "run_with", "tiny_config"]

FAULTS: dict[str, Fault] = {name: import_module(f"{__name__}.{name.replace('-', '_')}").FAULT for name in fault_names()}
"""By name; most carry the name of their cause."""
