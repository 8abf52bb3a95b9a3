"""Networks that bring their own program: TorchScript, torch.export archives, whole pickles."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import ModelError, one_line

# Places of the switch in the arguments of these operators.
_TRAINING = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}
_LOGGERS = ("torch.export", "torch.export.pt2_archive._package")


class ExportedNet(nn.Module):
    """The module of a torch.export archive, whose program has no training mode to leave."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """What the program answers."""
        return self.program(x)

    def train(self, mode: bool = True) -> ExportedNet:
        """Has no effect, since torch forbids it within."""
        return self


def exported(path: Path, name: str, *, allow_pickle: bool) -> nn.Module:
    """The network of a TorchScript archive, a torch.export .pt2 or a pickle, without a factory.

    All hold programs, so they are opened on the user's word only: on loading alone, each of them
    can write files or run a command. Raises ModelError without that
    word, for other files, and for a batch size or a training mode that was exported with it.
    """
    if not path.is_file():
        raise ModelError(f"weights {name} are not there; correct model.weights")
    scripted = _scripted(path, name)
    if scripted is None:
        return _whole(path, name, allow_pickle=allow_pickle)
    if not allow_pickle:
        kind = "a TorchScript archive" if scripted else "a torch.export archive"
        raise ModelError(
            f"weights {name} are {kind}, which can run any code it holds; set allow_pickle: true "
            "if you trust it, or use a factory with a state_dict"
        )
    try:
        if scripted:
            with warnings.catch_warnings():
                # That torch would rather have the other format is no news to its reader.
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
                return torch.jit.load(path, map_location="cpu")  # type: ignore[no-any-return, no-untyped-call]
        with _quiet(), path.open("rb") as file:
            program = torch.export.load(file)
    except Exception as error:
        raise ModelError(
            f"weights {name} cannot be read ({type(error).__name__}: {one_line(error, 80)}); "
            "export the network again with this version of torch"
        ) from None
    _servable(program, name)
    return ExportedNet(program.module())


def _whole(path: Path, name: str, *, allow_pickle: bool) -> nn.Module:
    """The module that `torch.save` pickled with its weights."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not allow_pickle:
            raise ModelError(
                f"weights {name} are a pickle, which can run any code it holds; set allow_pickle: "
                "true if you trust it, or use a factory with a state_dict"
            ) from None
        try:
            found = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as second:
            raise ModelError(
                f"weights {name} cannot be read ({type(second).__name__}: "
                f"{one_line(second, 80)}); use a factory with a state_dict"
            ) from error
    if isinstance(found, nn.Module):
        return found
    raise ModelError(
        f"weights {name} hold no network, only its numbers; add model.factory, e.g. model.py:build"
    )


def _scripted(path: Path, name: str) -> bool | None:
    """Whether the archive is TorchScript; None if it holds no program at all."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [entry.partition("/")[2] for entry in archive.namelist()]
            whole = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise ModelError(
            f"weights {name} cannot be read as an archive of torch; export the network again, or "
            "add model.factory and a state_dict"
        ) from None
    if any(entry.startswith("code/") for entry in inside):
        return True
    if any(e == "archive_format" or e.startswith("models/") for e in inside) or any(
        entry.startswith("serialized_exported_program") for entry in whole
    ):
        return False
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Its reader logs a traceback of what it then raises as well."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _servable(program: Any, name: str) -> None:
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    given = [node for node in inputs if node.name in program.graph_signature.user_inputs]
    if len(given) != 1:
        raise ModelError(
            f"weights {name} take {len(given)} inputs; only a network of one tensor can be "
            "attacked, so export it with the others held fixed"
        )
    shape = given[0].meta["val"].shape
    if len(shape) and isinstance(shape[0], int):
        raise ModelError(
            f"weights {name} were exported for batches of exactly {shape[0]}; export with "
            "dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    for node in program.graph.nodes:
        place = _TRAINING.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise ModelError(
                f"weights {name} were exported in training mode; call eval() on the network before "
                "torch.export.export"
            )
