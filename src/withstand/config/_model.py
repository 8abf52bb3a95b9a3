"""The section that says how a model is opened: what is attacked, and the attacker's surrogates."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, StrictBool, model_validator

from ._section import Section, check_factory, wrong
from ._url import without_secrets
from ._values import Count, Domain, Index, Positive, Probability, Seconds, Tolerance

Access = Literal["gradients", "scores", "labels", "none"]
ModelKind = Literal["torch", "onnx", "sklearn", "http", "python"]

# Files of boosted trees that hold no pickle, and files that may hold a torch program.
_TREES = (".json", ".ubj", ".txt", ".cbm")
_PROGRAMS = (".pt2", ".pt", ".pth", ".ts", ".torchscript")


class HttpConfig(Section):
    """How a model of kind http is asked, and how much of it may be asked."""

    format: Literal["v2", "v2-binary", "mlflow", "template"] = Field(
        default="v2",
        description="Open Inference Protocol v2 in JSON or binary, MLflow's /invocations, or "
        "a request of your own",
    )
    name: str | None = Field(default=None, description="v2: the model's name on the server")
    input: str = Field(default="input-0", description="v2: name of the input tensor")
    output: str | None = Field(
        default=None, description="v2: name of the output tensor; the only one if absent"
    )
    datatype: Literal["FP32", "FP64"] = Field(
        default="FP32", description="v2: type of the input tensor"
    )
    request: Any = Field(
        default=None,
        description='template: the request, with "$batch" for the inputs, or "$row" for the one '
        "input that the server takes at a time",
        examples=['{"inputs": "$batch"}'],
    )
    reply: str = Field(
        default="",
        description="template: dotted path to the scores in the reply, with * for each element "
        "of a list; empty for the whole reply",
        examples=["predictions.*.scores"],
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="sent along; $NAME stands for an environment variable, and secrets must be one",
        examples=["{Authorization: Bearer $TOKEN}"],
    )
    batch: Count = Field(default=32, description="inputs in one request")
    connections: Count = Field(default=8, description="requests in flight at once")
    timeout: Seconds = Field(default=30.0, description="seconds that one request may take")
    retries: Index = Field(
        default=3,
        description="times that a request is sent again after a refused or lost connection, a "
        "timeout, or status 429, 502, 503 or 504",
    )
    pause: Tolerance = Field(
        default=0.5, description="seconds before the first retry, doubled for each further one"
    )
    rate: Positive | None = Field(default=None, description="requests in a second at most")
    queries: Count | None = Field(
        default=None, description="inputs sent in all at most, retries included"
    )

    @model_validator(mode="before")
    @classmethod
    def _headers(cls, raw: Any) -> Any:
        # Before the types are checked, since their errors would tell the value.
        headers = raw.get("headers") if isinstance(raw, dict) else None
        if headers is not None and not (
            isinstance(headers, dict) and all(isinstance(v, str) for v in headers.values())
        ):
            raise wrong("headers", "are not a mapping of names to text; write {Name: $VARIABLE}")
        return raw

    @model_validator(mode="after")
    def _formats(self) -> HttpConfig:
        for key, formats in _HTTP_ONLY.items():
            if key in self.model_fields_set and self.format not in formats:
                only = " or ".join(formats)
                raise wrong(key, f"is only for format {only}, not {self.format}; take it out")
        if self.format == "template" and self.request is None:
            raise wrong(
                "request", 'is missing; format template needs it, e.g. request: {x: "$batch"}'
            )
        return self


_HTTP_ONLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("name", "input", "output", "datatype"), ("v2", "v2-binary")),
    **dict.fromkeys(("request", "reply"), ("template",)),
}


def _path(url: str) -> str | None:
    """The path of an address of HTTP, None for what is no such address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.path if parts.scheme in ("http", "https") else None


class ModelConfig(Section):
    """What is attacked and the bounds of its raw input."""

    kind: ModelKind = Field(description="how the model is opened", examples=["torch"])
    factory: str | None = Field(
        default=None,
        description="file.py:callable or package.module:callable that returns the model",
        examples=["model.py:build"],
    )
    weights: str | None = Field(
        default=None,
        description="safetensors, or a state_dict read with weights_only; left out where the "
        "factory loads them. Without a factory: model.onnx; trees as .json, .ubj, .txt or .cbm; "
        "TorchScript or .pt2 with allow_pickle",
    )
    url: str | None = Field(default=None, description="where a model of kind http answers")
    http: HttpConfig | None = Field(default=None, description="how a model of kind http is asked")
    domain: Domain = Field(
        default=[0.0, 1.0],
        description="bounds of the raw input: [lower, upper], numbers or one list per bound",
    )
    layout: Literal["chw", "hwc"] = Field(
        default="chw",
        description="hwc: the model takes pictures with the channels last, as many networks that "
        "come from TensorFlow do; attacks and data have them first",
    )
    access: Access | None = Field(
        default=None, description="the most that the model gives away; what its kind can if absent"
    )
    threshold: Probability | None = Field(
        default=None,
        description="probability of class 1 from which on the answer is 1, where there are two "
        "classes; 0.5 if absent. Networks answer with logits",
    )
    allow_pickle: StrictBool = Field(
        default=False,
        description="open pickles, TorchScript and .pt2, which can run any code they hold",
    )

    @model_validator(mode="after")
    def _kinds(self) -> ModelConfig:
        if self.threshold is not None and self.kind not in ("sklearn", "torch"):
            raise wrong("threshold", f"is only for kind sklearn or torch, not {self.kind}")
        if self.layout == "hwc" and self.kind == "sklearn":
            raise wrong("layout", "is not for kind sklearn; take it out")
        if self.kind == "http":
            if self.url is None:
                raise wrong(
                    "url", "is missing; kind http needs it, e.g. url: http://localhost:8000"
                )
            path = _path(self.url)
            if path is None:
                raise wrong(
                    "url",
                    f"is {without_secrets(self.url)!r}; write http:// or https://, a host and "
                    "perhaps a port, e.g. http://localhost:8000",
                )
            for key in ("factory", "weights", "allow_pickle"):
                if key in self.model_fields_set:
                    raise wrong(key, "is not for kind http; take it out")
            settings = self.http or HttpConfig()
            by_name = settings.format in ("v2", "v2-binary") and not path.endswith("/infer")
            if by_name and settings.name is None:
                raise wrong(
                    "http",
                    f"has no name; format {settings.format} needs the model's name on the server, "
                    "e.g. http: {name: digits}, or a url that ends in /infer",
                )
            if self.access in ("gradients", "none"):
                raise wrong(
                    "access",
                    f"is {self.access}; a server gives scores or labels, so write one of them",
                )
            return self
        for key in ("url", "http"):
            if getattr(self, key) is not None:
                raise wrong(key, f"is only for kind http, not {self.kind}; take it out")
        if self.kind == "onnx":
            if self.weights is None:
                raise wrong("weights", "is missing; kind onnx needs it, e.g. weights: model.onnx")
            if self.factory is not None:
                raise wrong("factory", "is not for kind onnx; take it out")
            return self
        suffix = PurePath(self.weights or "").suffix.lower()
        trees = self.kind == "sklearn" and suffix in _TREES
        pickled = self.kind == "sklearn" and self.weights is not None and not trees
        program = self.kind == "torch" and self.factory is None and suffix in _PROGRAMS
        if pickled and not self.allow_pickle:
            raise wrong(
                "weights",
                f"is {self.weights!r}, which is opened as a pickle and can run any code it holds; "
                "set allow_pickle: true if you trust it, or load it in the factory",
            )
        if program and not self.allow_pickle:
            raise wrong(
                "factory",
                f"is missing; add it, e.g. factory: model.py:build, or if {self.weights!r} holds "
                "the whole network (torch.save, TorchScript, torch.export), which can run any "
                "code, set allow_pickle: true if you trust it",
            )
        if self.factory is None:
            if pickled or program or trees:
                return self
            raise wrong("factory", "is missing; add it, e.g. factory: model.py:build")
        check_factory(self.factory)
        return self
