"""Memory that is freed stays with the process, where the C library learns that from use."""

from __future__ import annotations

from functools import cache

import torch

# The largest block that glibc learns from is 32 MiB with its header.
_LARGEST = 2**25 - 2**16


@cache
def keep_freed() -> None:
    """Have blocks of up to 32 MiB that were freed used again, once for a process.

    Until glibc has seen a large block freed, it hands each one back to the system, which fills it
    with zeros anew for the next pass over a batch: up to half of a small network's time. Nothing is
    written to the block, so it costs no memory; other libraries do not mind.
    """
    torch.empty(_LARGEST, dtype=torch.uint8)
