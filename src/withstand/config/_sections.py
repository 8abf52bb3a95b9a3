"""The sections of withstand.yaml."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from ._values import (
    Columns,
    Count,
    Domain,
    Index,
    Matrix,
    Names,
    Positive,
    Seconds,
    Share,
    Size,
    Tolerance,
)

Access = Literal["gradients", "scores", "labels", "none"]
ModelKind = Literal["torch", "onnx", "sklearn", "http", "python"]
DataKind = Literal["npz", "parquet", "csv", "images", "audio", "sklearn"]
Norm = Literal["linf", "l2", "l1", "l0"]


def wrong(key: str, text: str) -> PydanticCustomError:
    """The error of a rule that joins several keys; `key` is the one that mends it."""
    return PydanticCustomError("key", "{key} {text}", {"key": key, "text": text})


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, and a key without a value counts as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {k: v for k, v in raw.items() if v is not None or k not in cls.model_fields}


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
    access: Access | None = Field(
        default=None, description="the most that the model gives away; what its kind can if absent"
    )
    allow_pickle: StrictBool = Field(
        default=False,
        description="open pickles, TorchScript and .pt2, which can run any code they hold",
    )

    @model_validator(mode="after")
    def _kinds(self) -> ModelConfig:
        if self.kind == "http":
            if self.url is None:
                raise wrong(
                    "url", "is missing; kind http needs it, e.g. url: http://localhost:8000"
                )
            if not self.url.startswith(("http://", "https://")):
                raise wrong("url", f"is {self.url!r}; it starts with http:// or https://")
            for key in ("factory", "weights", "allow_pickle"):
                if key in self.model_fields_set:
                    raise wrong(key, "is not for kind http; take it out")
            settings, path = self.http or HttpConfig(), urlsplit(self.url).path
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
                f"is missing; add it, e.g. factory: model.py:build, or if {self.weights!r} is a "
                "TorchScript or torch.export archive, which can run any code it holds, set "
                "allow_pickle: true if you trust it",
            )
        if self.factory is None:
            if pickled or program or trees:
                return self
            raise wrong("factory", "is missing; add it, e.g. factory: model.py:build")
        place, _, name = self.factory.rpartition(":")
        if not place or not name.isidentifier():
            raise wrong(
                "factory",
                f"is {self.factory!r}; write file.py:callable or package.module:callable",
            )
        return self


_FILES = ("npz", "parquet", "csv", "images", "audio")
_ONLY: dict[str, tuple[str, ...]] = {
    "path": _FILES,
    "name": ("sklearn",),
    "x": ("npz", "audio"),
    "y": ("npz", "parquet", "csv", "audio"),
    "features": ("parquet", "csv"),
    "group": ("npz", "parquet", "csv"),
    "layout": ("npz", "sklearn"),
    "classes": _FILES,
    "source": _FILES,
    "licence": _FILES,
    "size": ("images",),
    "length": ("audio",),
}


class DataConfig(Section):
    """What the model is attacked on and how it is read."""

    kind: DataKind = Field(description="how the data is read", examples=["npz"])
    path: str | None = Field(
        default=None, description="file or folder, relative to the configuration's folder"
    )
    name: str | None = Field(
        default=None, description="digits, breast_cancer, wine or iris, for kind sklearn"
    )
    x: str = Field(default="x", description="key of the inputs")
    y: str = Field(default="y", description="key or column of the labels")
    features: Names | None = Field(
        default=None, description="feature columns; all but the label and the group if absent"
    )
    group: str | None = Field(default=None, description="key or column of each row's user group")
    scale: Positive = Field(default=1.0, description="raw values are divided by this")
    layout: Literal["auto", "none", "hwc", "chw"] = Field(
        default="auto", description="auto: square HxH gets a channel axis, HxWx3 becomes 3xHxW"
    )
    limit: Count | None = Field(default=None, description="only the first rows")
    classes: Names | None = Field(default=None, description="class names in the model's order")
    source: str | None = Field(default=None, description="where the data comes from, for reports")
    licence: str | None = Field(default=None, description="its licence, for reports")
    size: Size | None = Field(
        default=None, description="images are resized to this: pixels, or [height, width]"
    )
    length: Count | None = Field(
        default=None, description="waveforms are cut or zero-padded to this many samples"
    )

    @model_validator(mode="after")
    def _kinds(self) -> DataConfig:
        if self.kind == "sklearn" and self.name is None:
            raise wrong("name", "is missing; kind sklearn needs it, e.g. name: digits")
        if self.kind != "sklearn" and self.path is None:
            raise wrong("path", f"is missing; kind {self.kind} needs it, e.g. path: data.npz")
        for key, kinds in _ONLY.items():
            if key in self.model_fields_set and self.kind not in kinds:
                only = " or ".join(kinds)
                raise wrong(key, f"is only for kind {only}, not {self.kind}; take it out")
        if self.features is not None and self.y in self.features:
            raise wrong("features", f"names the label {self.y!r} itself; take it out")
        return self


class RegionConfig(Section):
    """What the attacker may change."""

    norm: Norm = Field(description="how a change is measured", examples=["linf"])
    eps: Positive = Field(
        description="radius in units of the raw input, or the number of features for l0",
        examples=["8/255"],
    )
    frozen: Columns | None = Field(
        default=None, description="indices of the features that the attacker cannot change"
    )

    @model_validator(mode="after")
    def _count(self) -> RegionConfig:
        if self.norm == "l0" and self.eps != int(self.eps):
            raise wrong("eps", f"is {self.eps:g}; norm l0 counts features, so give a whole number")
        return self


class ThreatConfig(Section):
    """Who attacks, what they want and what they may spend."""

    goal: Literal["untargeted", "targeted", "multilabel", "regression"] = Field(
        default="untargeted", description="what counts as success"
    )
    target: Index | None = Field(default=None, description="the class that goal targeted wants")
    tolerance: Tolerance | None = Field(
        default=None, description="the error that goal regression must exceed"
    )
    access: Access = Field(default="gradients", description="what the attacker sees of the model")
    region: RegionConfig = Field(
        description="what the attacker may change", examples=["{norm: linf, eps: 8/255}"]
    )
    queries: Count | None = Field(default=None, description="queries for each sample")

    @model_validator(mode="after")
    def _goals(self) -> ThreatConfig:
        for key, goal, example in (("target", "targeted", 0), ("tolerance", "regression", 0.5)):
            given = getattr(self, key) is not None
            if self.goal == goal and not given:
                raise wrong(key, f"is missing; goal {goal} needs it, e.g. {key}: {example}")
            if self.goal != goal and given:
                raise wrong(key, f"is only for goal {goal}, not {self.goal}; take it out")
        return self


class EvaluateConfig(Section):
    """How much an evaluation spends and where its report goes."""

    preset: Literal["smoke", "standard", "thorough"] = Field(
        default="standard", description="how much is spent"
    )
    seed: Index = Field(default=0, description="seed of all randomness")
    seconds: Seconds | None = Field(default=None, description="time limit in all, in seconds")
    batch_size: Count | None = Field(
        default=None, description="samples per forward; chosen by memory if absent"
    )
    checkpoint: str | None = Field(
        default=None, description="file to resume from after an interruption"
    )
    output: str = Field(default="withstand-report", description="folder of the report")
    severity: Matrix | None = Field(
        default=None, description="cost of each mistake, true class x predicted class"
    )


class Limit(Section):
    """Bounds on a share between 0 and 1."""

    min: Share | None = Field(default=None, description="the least that passes")
    max: Share | None = Field(default=None, description="the most that passes")

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.min is None and self.max is None:
            raise wrong("min", "and max are both missing; give one, e.g. {min: 0.85}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong("min", f"is {self.min:g}, above max {self.max:g}; swap them")
        return self


class TrustLimit(Section):
    """The least trust verdict that passes."""

    min: Literal["green", "amber", "red"] = Field(
        description="the least verdict that passes", examples=["amber"]
    )


class GateConfig(Section):
    """What a release must meet; a key that is absent is not asked for."""

    robust_accuracy: Limit | None = Field(
        default=None, description="share still classified correctly under attack"
    )
    clean_accuracy: Limit | None = Field(
        default=None, description="share classified correctly without attack"
    )
    fooling_rate: Limit | None = Field(
        default=None, description="share of correctly classified inputs that an attack fools"
    )
    trust: TrustLimit | None = Field(default=None, description="can the number be believed")


class Config(Section):
    """One withstand.yaml."""

    model: ModelConfig = Field(description="what is attacked")
    data: DataConfig = Field(description="what it is attacked on")
    threat: ThreatConfig = Field(description="who attacks and how far they may go")
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="how much an evaluation spends"
    )
    gate: GateConfig = Field(default_factory=GateConfig, description="what a release must meet")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        region, classes, target = self.threat.region, self.data.classes, self.threat.target
        span = _span(self.model.domain)
        # The other norms add up over features, so their radius may well exceed one feature's span.
        if region.norm == "linf" and region.eps > span:
            steps = region.eps if span == 1 and region.eps <= 255 else 8.0
            raise wrong(
                "threat.region.eps",
                f"is {region.eps:g}, more than model.domain spans ({span:g}); write eps: "
                f"{steps * span:g}/255 for 8-bit steps, or correct model.domain",
            )
        if classes is not None and target is not None and target >= len(classes):
            raise wrong(
                "threat.target",
                f"is {target}, but data.classes has {len(classes)}; give 0 to {len(classes) - 1}",
            )
        severity = self.evaluate.severity
        if severity is not None and classes is not None and len(severity) != len(classes):
            raise wrong(
                "evaluate.severity",
                f"has {len(severity)} rows, but data.classes has {len(classes)}; give one for each",
            )
        return self


def _span(domain: list[float | list[float]]) -> float:
    lower, upper = (bound if isinstance(bound, list) else [bound] for bound in domain)
    n = max(len(lower), len(upper))
    pairs = zip(lower * (n // len(lower)), upper * (n // len(upper)), strict=True)
    return max(high - low for low, high in pairs)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of withstand.yaml."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
