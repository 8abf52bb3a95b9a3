"""The section that says how the guard stands in front of models."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from ._line import LineConfig, RateConfig
from ._section import Section, wrong
from ._values import Count, Index, Positive, Share

# Of a record of a decision or of what another logger saw, less what makes it what it is.
FIELDS = (
    "tenant", "key", "model", "version", "weights", "policy", "mode", "status", "done", "would",
    "ms", "reason", "arm", "request_id", "traceparent", "experiment", "probe", "fingerprint",
    "tensors", "trace", "signals", "habit", "answered", "attributes", "request", "response",
    "unread", "labels",
)  # fmt: skip


def _address(value: object) -> str:
    host, _, port = str(value).rpartition(":")
    if not isinstance(value, str) or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("give host:port, such as 127.0.0.1:8100")
    return value


Address = Annotated[
    str, BeforeValidator(_address), WithJsonSchema({"type": "string", "pattern": r"^.+:\d+$"})
]


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of an address, an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    host, _ = host_and_port(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LimitsConfig(Section):
    """How large a request may be, how many there may be, and how long they may take."""

    body: Count = Field(default=16 * 2**20, description="bytes of a request's body")
    elements: Count = Field(default=4 * 2**20, description="numbers or texts in a request")
    inputs: Count = Field(default=16, description="tensors in a request")
    text: Count = Field(default=65_536, description="bytes of one element of type BYTES")
    answer: Count = Field(default=64 * 2**20, description="bytes of the model's answer")
    requests: Count = Field(default=256, description="requests at one time")
    requests_each: Count | None = Field(
        default=None,
        description="requests of one key at one time, where there are several keys; three quarters "
        "of `requests` if absent; not with `open`",
    )
    memory: Count = Field(
        default=512 * 2**20, description="bytes of the bodies of all requests at one time"
    )
    connections: Count = Field(default=1024, description="clients' connections at one time")
    upstream_connections: Count = Field(default=64, description="connections to the model server")
    headers: Count = Field(default=32_768, description="bytes of a request's headers")
    head_seconds: Positive = Field(default=10.0, description="seconds for headers to come")
    body_seconds: Positive = Field(default=10.0, description="seconds for a body to come")
    idle_seconds: Positive = Field(default=60.0, description="seconds without a request")
    read_seconds: Positive = Field(
        default=30.0, description="seconds for a client to read what it was answered"
    )
    connect_seconds: Positive = Field(
        default=1.0, description="seconds for a connection to the model server"
    )
    answer_seconds: Positive = Field(default=30.0, description="seconds for the model's answer")
    drain_seconds: Positive = Field(
        default=20.0, description="seconds for requests under way, when the guard is ended"
    )


def _field(value: object) -> str:
    if not isinstance(value, str) or not (value in FIELDS or re.fullmatch(r"inputs\..+", value)):
        raise ValueError(f"give inputs.NAME or one of {', '.join(FIELDS)}")
    return value


RecordField = Annotated[
    str,
    BeforeValidator(_field),
    WithJsonSchema({"type": "string", "pattern": rf"^({'|'.join(FIELDS)}|inputs\..+)$"}),
]


class RedactionConfig(Section):
    """What is taken out of one field of a record, or of one input, before it is kept."""

    field: RecordField = Field(
        description="field of a record, or inputs.NAME, an input or a column of a data frame; "
        "where the guard's `inputs` are given, one of them or a column of their tables",
        examples=["inputs.age"],
    )
    how: Literal["drop", "hash", "truncate"] = Field(
        description="left out, replaced by a keyed digest, or cut", examples=["hash"]
    )
    keep: Index = Field(default=8, description="truncate: what stays")


class EvidenceConfig(Section):
    """Where decisions are kept."""

    folder: str = Field(description="folder of the evidence log", examples=["evidence"])
    required: StrictBool = Field(
        default=False, description="refuse requests while no record can be kept"
    )
    inputs: Literal["none", "flagged", "all"] = Field(
        default="flagged", description="inputs that are kept, encrypted: none, flagged or all"
    )
    share: Share = Field(default=1.0, description="share of benign inputs that are kept, if all")
    records: Share = Field(
        default=1.0, description="share of decisions on benign requests that are kept"
    )
    redact: list[RedactionConfig] = Field(
        default_factory=list, description="what is taken out before it is kept"
    )
    inputs_days: Positive | None = Field(
        default=None, description="days that inputs are kept; for ever if absent"
    )
    records_days: Positive | None = Field(
        default=None, description="days that records are kept; for ever if absent"
    )
    anchor: str | None = Field(
        default=None, description="file or s3:// address, elsewhere, of signed checkpoints"
    )

    @model_validator(mode="after")
    def _fits(self) -> EvidenceConfig:
        if self.records_days is not None and (self.inputs_days or 0) > self.records_days:
            raise wrong("inputs_days", "is above records_days; records name inputs, so swap them")
        return self


class GuardConfig(LineConfig):
    """How the guard stands in front of models; its keys for a model count for all of them."""

    listen: Address = Field(default="127.0.0.1:8100", description="where clients ask")
    admin: Address = Field(
        default="127.0.0.1:8101",
        description="where operators ask: health, metrics, reload; this machine only",
    )
    analysis: Address | None = Field(
        default=None,
        description="where a cluster's controllers ask for a canary's verdict, with a token of "
        "their own; read-only",
        examples=["0.0.0.0:8102"],
    )
    models: dict[str, LineConfig] = Field(
        default_factory=dict,
        description="models by name, with keys of their own; every model of the server if absent, "
        "whose inputs are then not learned",
    )
    other_models: StrictBool = Field(
        default=False, description="let through models that are not named, too"
    )
    keys: str | None = Field(
        default=None,
        description="file of API keys, which `withstand guard key add` makes",
        examples=["keys.json"],
    )
    open: StrictBool = Field(default=False, description="let everybody in, without a key")
    expose: StrictBool = Field(
        default=False, description="allow open beyond this machine, for a network that is closed"
    )
    secrets: str = Field(
        default="withstand-secrets",
        description="folder of secrets, made at the first start; WITHSTAND_PEPPER and others win",
    )
    state: str = Field(
        default="withstand-guard",
        description="folder of what must outlive a restart: mitigations, the kill switch and the "
        "canary's weight",
    )
    quota: RateConfig | None = Field(default=None, description="requests that each key may make")
    limits: LimitsConfig = Field(
        default_factory=LimitsConfig, description="sizes, counts and seconds"
    )
    evidence: EvidenceConfig | None = Field(default=None, description="where decisions are kept")

    @model_validator(mode="after")
    def _fits(self) -> GuardConfig:
        if not is_loopback(self.admin):
            raise wrong(
                "admin", f"is {self.admin}, which others reach; give 127.0.0.1 or [::1] and a port"
            )
        if self.admin == self.listen and host_and_port(self.admin)[1]:
            raise wrong("admin", f"and listen are both {self.admin}; give two ports")
        if self.analysis in (self.admin, self.listen) and host_and_port(self.analysis)[1]:
            raise wrong("analysis", f"is {self.analysis}, which is taken; give another port")
        if self.open == (self.keys is not None):
            raise wrong(
                "keys",
                "and open are both given; take one out" if self.open else
                "is missing; give a file, e.g. keys: keys.json, or say open: true",
            )  # fmt: skip
        if self.open and not self.expose and not is_loopback(self.listen):
            raise wrong(
                "open",
                f"lets everybody in, and listen {self.listen} is beyond this machine; give keys, "
                "or say expose: true",
            )
        if self.open and self.limits.requests_each is not None:
            raise wrong(
                "limits.requests_each",
                f"is {self.limits.requests_each}, and without keys all clients are one; give keys, "
                "or take it out",
            )
        if self.other_models and not self.models:
            raise wrong("other_models", "is for when there are models; take it out")
        for name in list(self.models) or [""]:
            self._line(name)
        return self

    def _line(self, name: str) -> None:
        line, key = self.line(name), f"models.{name}." if name else ""
        if line.upstream is None:
            raise wrong(
                f"{key}upstream", "is missing; add it, e.g. upstream: http://127.0.0.1:8080"
            )
        if "reroute" in line.ladder.actions and line.reroute is None:
            raise wrong(f"{key}reroute", "is missing, and the ladder has it; give its upstream")
        if "throttle" in line.ladder.actions and line.throttle is None and (
            "ladder" in line.model_fields_set
        ):  # fmt: skip
            raise wrong(
                f"{key}throttle",
                "is missing, and the ladder has it; add it, e.g. throttle: {requests: 1}",
            )

    def line(self, name: str) -> LineConfig:
        """The keys of a model, those of its own before those for all."""
        shared: dict[str, Any] = {key: getattr(self, key) for key in LineConfig.model_fields}
        given = self.model_fields_set & set(LineConfig.model_fields)
        own = self.models.get(name)
        if own is not None:
            shared |= {key: getattr(own, key) for key in own.model_fields_set}
            given = given | own.model_fields_set
        return LineConfig.model_construct(_fields_set=set(given), **shared)
