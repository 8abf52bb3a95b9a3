"""A model behind HTTP: queries only, counted, paced and capped before they leave."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import torch
from torch import Tensor

from .._errors import ModelError, one_line
from ..threat import Access, Box
from ._http_client import Client, result_of
from ._http_secrets import VARIABLE, shown
from ._http_tally import Tally
from ._protocol import Gradient, Objective
from ._torch import largest
from ._wire import V2, MLflow, Template, Wire

Format = Literal["v2", "v2-binary", "mlflow", "template"]

_SECRET = re.compile(r"auth|cookie|key|token|secret|passw|credential|session", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How a served model is asked, and how much of it may be asked.

    format: v2 and v2-binary (Open Inference Protocol), mlflow, or template; name: the model's name
    for v2; input, output, datatype: v2's tensors; request: for template, plain values or JSON text
    in which "$batch" stands for the rows, or "$row" for the only one; reply: dotted path to the
    numbers, * for each element of a list; headers: values may hold $NAME, an environment variable
    read when asking, and secrets must; batch: rows in a request; connections: requests in flight;
    timeout: seconds for one request in all; retries: of one request; pause: seconds before the
    first retry, doubled for each further one, up to 30; rate: requests in a second, evenly spaced;
    queries: rows sent in all, retries included. Raises ModelError.
    """

    format: Format = "v2"
    name: str | None = None
    input: str = "input-0"
    output: str | None = None
    datatype: Literal["FP32", "FP64"] = "FP32"
    request: Any = None
    reply: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    batch: int = 32
    connections: int = 8
    timeout: float = 30.0
    retries: int = 3
    pause: float = 0.5
    rate: float | None = None
    queries: int | None = None

    def __post_init__(self) -> None:
        for key in ("batch", "connections", "timeout", "rate", "queries"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ModelError(f"model.http.{key} is {value}; give more than 0")
        for key in ("retries", "pause"):
            if not getattr(self, key) >= 0:
                raise ModelError(f"model.http.{key} is {getattr(self, key)}; give 0 or more")
        for name, value in self.headers.items():
            if _SECRET.search(name) and not VARIABLE.search(value):
                # The value is not told: it may be the secret itself.
                raise ModelError(
                    f"model.http.headers.{name} holds its value in the open; put it into an "
                    f"environment variable and write {name}: $NAME"
                )

    def wire(self) -> Wire:
        """The format, ready to use; raises ModelError for a template without a place."""
        if self.format == "mlflow":
            return MLflow()
        if self.format == "template":
            if self.request is None:
                raise ModelError(
                    "model.http.request is missing; format template needs it, e.g. request: {x: "
                    '"$batch"}'
                )
            template = Template(self.request, self.reply)
            if template.single and self.batch != 1:
                raise ModelError(
                    f'model.http.batch is {self.batch}, but "$row" takes one input at a time; set '
                    'batch: 1, or write "$batch"'
                )
            return template
        binary = self.format == "v2-binary"
        return V2(input=self.input, output=self.output, datatype=self.datatype, binary=binary)


class HttpModel:
    """A model that answers at a URL with scores (B, K) or labels (B,); safe to use from threads.

    url: the server's root for v2 and MLflow, or the whole address; it may hold $NAME too. access:
    what the reply holds; probabilities count as scores. `sent` is the number of rows that left.
    Each failure is a ModelError of one line, and a BudgetError where the cap on queries would be
    exceeded. Needs aiohttp and orjson, which the extra `serve` installs.
    """

    def __init__(
        self,
        url: str,
        settings: HttpSettings | None = None,
        *,
        access: Literal["scores", "labels"] = "scores",
        domain: Sequence[float] | Box = (0.0, 1.0),
    ) -> None:
        self.settings = settings or HttpSettings()
        self.access: Access = access
        self.domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])
        self.url = _address(url, self.settings)
        self._client = Client(self.url, self.settings, access)
        weakref.finalize(self, self._client.leave)

    def __repr__(self) -> str:
        return f"HttpModel({shown(self.url)!r}, format={self.settings.format!r})"

    @property
    def sent(self) -> int:
        """Rows that were sent so far, retries and failed requests included."""
        return self._client.sent

    @property
    def at_once(self) -> int:
        """Rows that are in flight at once, if one call has as many."""
        return self.settings.batch * self.settings.connections

    def count_in(self, path: Path | None) -> None:
        """Count on in a file what counts towards the cap on queries; no longer for None."""
        limit = self.settings.queries
        if limit is not None:
            result_of(self._client.keep(None if path is None else Tally(path, limit)))

    def facts(self) -> dict[str, Any]:
        """Address, format and tensor names for reports: stable, without secrets."""
        told: dict[str, Any] = {"url": shown(self.url), "format": self.settings.format}
        own = {"v2": ("input", "output", "datatype"), "template": ("request", "reply")}
        for key in own.get(self.settings.format.removesuffix("-binary"), ()):
            told[key] = getattr(self.settings, key)
        if "request" in told:
            # Its text may hold what is not for reports.
            told["request"] = sha256(repr(told["request"]).encode()).hexdigest()[:16]
        return told

    def close(self) -> None:
        """Close the connections; another query opens them again."""
        result_of(self._client.close())

    def _ask(self, x: Tensor) -> Any:
        return result_of(self._client.ask(x.detach().cpu().numpy()))

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 query for each row."""
        if self.access == "labels":
            raise ModelError("this model returns labels only; attack it with access: labels")
        return torch.as_tensor(self._ask(x), dtype=torch.float32, device=x.device)

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 query for each row."""
        if self.access == "scores":
            return largest(self.scores(x))
        return torch.as_tensor(self._ask(x), dtype=torch.long, device=x.device)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """There is none: raises ModelError."""
        raise ModelError("this model has no gradients; set access to scores or labels")

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """There is none: raises ModelError."""
        raise ModelError("this model has no gradients; set access to scores or labels")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing to hold: the server's state is out of reach."""
        yield


def _address(url: str, settings: HttpSettings) -> str:
    """The whole address that requests go to; raises ModelError for one that cannot be."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ModelError(
            f"model.url is {one_line(shown(url), 80)!r}; write http:// or https://, a host and "
            "perhaps a port, e.g. http://localhost:8000"
        )
    if "@" in parts.netloc:
        raise ModelError(
            "model.url holds a user or a password; take them out and write model.http.headers: "
            "{Authorization: $NAME}"
        )
    path = parts.path.rstrip("/")
    if settings.format == "mlflow" and not path.endswith("/invocations"):
        path += "/invocations"
    elif settings.format in ("v2", "v2-binary") and not path.endswith("/infer"):
        if settings.name is None:
            raise ModelError(
                f"model.http.name is missing; format {settings.format} needs the model's name, or "
                "a model.url that ends in /infer"
            )
        path += f"/v2/models/{quote(settings.name, safe='')}/infer"
    elif settings.format == "template":
        path = parts.path
    return parts._replace(path=path, fragment="").geturl()
