"""Remarks that libraries log and that help nobody who reads the program's output."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
