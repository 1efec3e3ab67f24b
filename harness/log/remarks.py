"""Remarks that libraries log and that help nobody who reads the program's output."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def without_remarks(name: str) -> Iterator[None]:
    """Within, the logger of this name says nothing below an error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Within, libraries that are imported for our sake do not ask for packages that nothing here needs.

    bitsandbytes would like kernels for some CPUs, tqdm widgets for its bars in a notebook. What filters of warnings the
    libraries set stays.
    """
    with without_remarks("bitsandbytes.backends.cpu.ops"):
        warnings.filterwarnings("ignore", message="IProgress not found")
        ours = warnings.filters[0]
        try:
            yield
        finally:
            with suppress(ValueError):  # a library has reset them
                warnings.filters.remove(ours)  # type: ignore[attr-defined]  # typed as what cannot be changed
