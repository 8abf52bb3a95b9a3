"""What tells a recipe from others, the same in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor, nn

from ..models import TorchModel, describe
from ..threat import Region

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def shown(value: object) -> str:
    """A value as it shows itself, without the addresses of a process."""
    return _ADDRESS.sub("", repr(value))


def identity(value: object, *, inside: tuple[int, ...] = ()) -> object:
    """A value as plain ones that `repr` tells in full: arrays and networks by their digests,
    functions by what they do, objects that show only an address by what they hold.

    inside: the objects that it is a part of, by address.
    """
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))

    def within(part: object) -> object:
        return identity(part, inside=inside)

    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    name = within(type(value))
    if isinstance(value, Region):
        return name, [part.content().hex() for part in value]
    if isinstance(value, nn.Module):
        return name, shown(value), describe(TorchModel(value))["digest"]
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return name, str(value.dtype), tuple(value.shape), _digest(raw.tobytes())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return name, str(value.dtype), value.shape, _digest(value.tobytes())
    if isinstance(value, Mapping):
        return name, [(within(key), within(part)) for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return name, sorted(repr(within(part)) for part in value)
    if isinstance(value, list | tuple):
        return name, [within(part) for part in value]
    if isinstance(value, partial):
        return name, [within(part) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return name, within(value.__func__), within(value.__self__)
    if isinstance(value, FunctionType):
        held = [within(part) for part in (value.__defaults__, value.__kwdefaults__, _held(value))]
        return name, value.__qualname__, within(value.__code__), held
    if isinstance(value, CodeType):
        return name, value.co_code.hex(), value.co_names, [within(one) for one in value.co_consts]
    if is_dataclass(value):
        return name, [(field.name, within(getattr(value, field.name))) for field in fields(value)]
    text = shown(value)
    # An address stands for what an object does not show.
    return (
        (name, text)
        if text == repr(value)
        else (name, text, within(getattr(value, "__dict__", {})))
    )


def _held(function: FunctionType) -> list[object]:
    """What a function has from around it."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
