"""Errors that the user can mend: one line each, with the value, the limit and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WithstandError(Exception):
    """Base of all errors that the user can mend; the command line ends with exit code 2 on one."""


class ConfigError(WithstandError):
    """The configuration is missing, malformed or contradicts itself."""


class DataError(WithstandError):
    """The data cannot be read or cannot be evaluated."""


class ModelError(WithstandError):
    """The model cannot be loaded or answers in an unexpected form."""


class ThreatError(WithstandError):
    """The threat model is impossible or does not fit the model."""


class BudgetError(WithstandError):
    """A budget allows nothing."""


class CheckpointError(WithstandError):
    """A checkpoint is damaged or belongs to another run."""


class CorpusError(WithstandError):
    """A corpus is damaged, of a newer format, or cannot be written."""


class EvidenceError(WithstandError):
    """An evidence log was changed, is in use, or cannot be written."""


class CertificateError(WithstandError):
    """A proof and an attack contradict each other."""


class DetectorError(WithstandError):
    """A detector cannot work on this model."""


class OutputError(WithstandError):
    """A result cannot be written."""


class OperationError(WithstandError):
    """What was asked of a running service, an incident or a campaign cannot be done."""


class answering:  # noqa: N801 - read as a word of the `with` statement
    """What a user's model raises on an input x becomes a ModelError of one line."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __enter__(self) -> None:
        # A generator would cost three times as much, at every query.
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, WithstandError):
            return
        shape = tuple(getattr(self.x, "shape", ()))
        picture = len(shape) == 4 and shape[1] in (1, 3, 4)
        turned = "set model.layout: hwc if it takes the channels last, or " if picture else ""
        raise ModelError(
            f"the model failed on an input of shape {shape} with {type(error).__name__}: "
            f"{one_line(error)}; {turned}call it on such an input yourself to see where"
        ) from error


def one_line(text: object, most: int = 160) -> str:
    """Text on one line, cut to `most` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names with commas between them, at most `most` of them and then the count of all."""
    names = list(names)
    shown = ", ".join(names[:most]) or "(none)"
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """A clause that names the most similar of the names, or nothing if none is similar."""
    similar = {name.lower(): name for name in names}
    match = get_close_matches(str(word).lower(), similar, n=1)
    return f", did you mean {similar[match[0]]!r}?" if match else ""
