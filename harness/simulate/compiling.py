"""What torch.compile is to meet while PyTorch is patched: it traces through what it finds, and guards on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

Patch = tuple[Any, str, Any]
"""owner, name and the function, or other value, in its place"""


@contextmanager
def compiling_with(originals: Sequence[Patch]) -> Iterator[None]:
    """Within, these functions are in their places while something is compiled."""
    from torch._dynamo import callback_handler

    install_callbacks = callback_handler.install_callbacks  # around each compilation, also once a script has reset all

    @contextmanager
    def compile_with_originals(*args: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for original in originals:
                stack.enter_context(patch.object(*original))
            stack.enter_context(install_callbacks(*args))
            yield

    with patch.object(callback_handler, "install_callbacks", compile_with_originals):
        yield
