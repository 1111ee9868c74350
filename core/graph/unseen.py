"""A forward of which only the shapes count."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def numbers_unseen() -> Iterator[None]:
    """Let transformers skip its shortcuts that look at the numbers in a mask, as under torch.compile.

    torch says so by a flag of its own in every release from 2.9 on; the context that sets it came with 2.13.
    """
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
