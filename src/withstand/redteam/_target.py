"""The endpoint as attacks see it: no attack can send more, faster or longer than is permitted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .._errors import ModelError
from ..config import ModelConfig
from ..models import Gradient, HttpModel, Objective, load_model
from ..threat import Access, Box
from ._brakes import Brakes, RefusedError
from ._purse import Purse

PROBE = "x-withstand-probe"

_STATUS = re.compile(r" answered (\d{3})\b")
_AGAIN = 3
_PAUSE = 1.0


class Target:
    """A served model whose every query is permitted, paced, counted and labelled before it leaves.

    Its pass and the probe's name go along in headers; `next` says which run and input the next
    queries belong to. A query that is throttled is asked again, and counts again.
    """

    def __init__(self, spec: ModelConfig, brakes: Brakes, purse: Purse) -> None:
        made = load_model(spec)
        assert isinstance(made, HttpModel)
        settings = made.settings
        # The adapter reads them for each request, which is how a query gets a name of its own.
        self._headers = dict(settings.headers)
        # What it would send again by itself would not be counted.
        self._settings = replace(
            settings, headers=self._headers, retries=0, connections=1, rate=None
        )
        self._made = made
        self._model = self._opened()
        self._brakes, self._purse = brakes, purse
        self._pass: dict[str, str] = {}
        self._run = self._input = ""
        self._sent = 0
        self.queries = 0

    @property
    def domain(self) -> Box:
        """The bounds of an input."""
        return self._model.domain

    @property
    def access(self) -> Access:
        """Scores or labels."""
        return self._model.access

    def next(self, run: str, input: str, headers: Mapping[str, str]) -> None:
        """What the following queries belong to, and the pass that they carry."""
        self._run, self._input, self._sent = run, input, 0
        for name in (*self._pass, PROBE):
            self._headers.pop(name, None)
        self._pass = dict(headers)

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of x (B, ...); raises what the brakes and the purse do, or RefusedError."""
        return self._asked(x, "scores")

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of x (B, ...); raises as `scores` does."""
        return self._asked(x, "labels")

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """There is none: raises ModelError."""
        return self._model.gradient(x, objective)

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """There is none: raises ModelError."""
        return self._model.jacobian(x, outputs)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing to hold: the server's state is out of reach."""
        yield

    def close(self) -> None:
        """Close the connection."""
        self._model.close()

    def _opened(self) -> HttpModel:
        made = self._made
        access: Literal["scores", "labels"] = "labels" if made.access == "labels" else "scores"
        return HttpModel(made.url, self._settings, access=access, domain=made.domain)

    def _asked(self, x: Tensor, what: Literal["scores", "labels"]) -> Tensor:
        parts = torch.split(x, self._settings.batch)
        return torch.cat([self._once(part, what) for part in parts])

    def _once(self, x: Tensor, what: Literal["scores", "labels"]) -> Tensor:
        for _ in range(_AGAIN):
            self._brakes.wait(len(x))
            self._purse.take(self._run, self._input, len(x))
            self.queries += len(x)
            if self._pass:
                self._headers |= {**self._pass, PROBE: f"{self._input}.{self._sent}"}
            self._sent += 1
            began = time.monotonic()
            try:
                found: Tensor = getattr(self._model, what)(x)
            except ModelError as error:
                told = _STATUS.search(str(error))
                status = int(told[1]) if told else 0
                if status in (403, 429):
                    # An answer, if not the one that was asked for: nobody suffers.
                    self._brakes.answered(time.monotonic() - began)
                if status == 403:
                    raise RefusedError("the guard refuses this client") from None
                if status == 429:
                    # The adapter would wait by itself, and then send without asking whether it may.
                    self._model.close()
                    self._model = self._opened()
                    self._brakes.pause(_PAUSE)
                    continue
                if status and status < 500:
                    raise
                self._brakes.answered(None)
                fault = error
                continue
            self._brakes.answered(time.monotonic() - began)
            return found
        if status == 429:
            raise RefusedError("the guard throttles this client")
        raise fault
