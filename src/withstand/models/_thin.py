"""Gradients of convolutions over few channels, where the processor's library is slow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# From four channels on, and with more threads, oneDNN is the quicker one.
_THIN = 3


@contextmanager
def thin_gradients(nets: Iterable[nn.Module]) -> Iterator[None]:
    """Input gradients of first convolutions by matrix products inside, on one thread of a CPU.

    For one to three channels, as pictures have, they take a fifth to three quarters of the time,
    and are the same but for rounding. Everything else is calculated as it was.
    """
    switch = _Switch()
    handles = [
        module.register_forward_hook(switch.watch)
        for net in nets
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and module.in_channels <= _THIN and module.groups == 1
    ]
    try:
        yield
    finally:
        switch.back()
        for handle in handles:
            handle.remove()


class _Switch:
    """oneDNN is off from the gradient of a convolution's output to that of its input."""

    def __init__(self) -> None:
        self.off = False

    def watch(self, module: nn.Module, given: tuple[object, ...], out: object) -> None:
        # Somebody's own kind of convolution may take and give what it likes.
        x = given[0] if given else None
        if (
            isinstance(x, Tensor) and isinstance(out, Tensor) and x.requires_grad
            and x.device.type == "cpu" and out.dtype == torch.float32
            and torch.get_num_threads() == 1
        ):  # fmt: skip
            out.register_hook(self.away)  # type: ignore[no-untyped-call]
            x.register_hook(self.back)  # type: ignore[no-untyped-call]

    def away(self, gradient: Tensor) -> None:
        # The public way sets the precision of products too, which is the user's.
        if torch._C._get_mkldnn_enabled():
            torch._C._set_mkldnn_enabled(False)
            self.off = True

    def back(self, gradient: Tensor | None = None) -> None:
        if self.off:
            torch._C._set_mkldnn_enabled(True)
            self.off = False
