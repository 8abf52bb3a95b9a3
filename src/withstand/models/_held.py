"""Torch modules held still while they are attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ._differentiable import Differentiable
from ._thin import thin_gradients


@contextmanager
def held_modules(*parts: object) -> Iterator[None]:
    """Eval mode and frozen parameters for what is a module; mode, buffers and RNG come back.

    The parts of a Differentiable are held too; functions have nothing to hold.
    """
    nets = [net for part in parts for net in _nets(part)]
    modes = [(module, module.training) for net in nets for module in net.modules()]
    wanted = [(p, p.requires_grad) for net in nets for p in net.parameters()]
    buffers = [(b, b.detach().clone()) for net in nets for b in net.buffers()]
    devices = {p.device for p, _ in (*wanted, *buffers) if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), thin_gradients(nets):
        try:
            for net in nets:
                net.eval()
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, required in wanted:
                parameter.requires_grad_(required)
            with torch.no_grad():
                for buffer, before in buffers:
                    # A graph that is used later refuses tensors that were written to.
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


def _nets(part: object) -> list[nn.Module]:
    if isinstance(part, Differentiable):
        return [*_nets(part.defence), *_nets(part.surrogate)]
    return [part] if isinstance(part, nn.Module) else []
