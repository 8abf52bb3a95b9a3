"""The section that says where the pages are."""

from __future__ import annotations

import ipaddress
import re

from pydantic import Field, model_validator

from ._guard import Address, is_loopback
from ._section import Section, wrong
from ._values import Positive

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class TlsConfig(Section):
    """What the pages are encrypted with."""

    certificate: str = Field(description="PEM file of the certificate and those above it")
    key: str = Field(description="PEM file of its private key")


class UiConfig(Section):
    """Where the pages are, and who may see them."""

    listen: Address = Field(default="127.0.0.1:8103", description="where browsers ask")
    hosts: list[str] = Field(
        default_factory=list,
        description="names by which browsers know the pages, besides this machine's own",
        examples=[["operations.example.org"]],
    )
    tls: TlsConfig | None = Field(
        default=None, description="needed where browsers on other machines ask"
    )
    accounts: str = Field(
        default="withstand-accounts.json",
        description="file of accounts, which `withstand ui user add` makes",
    )
    session_hours: Positive = Field(default=12.0, description="hours until everybody logs in anew")
    idle_minutes: Positive = Field(
        default=30.0, description="minutes without a click until somebody logs in anew"
    )
    corpus: str | None = Field(
        default=None, description="folder of a corpus, to compare inputs with", examples=["corpus"]
    )

    @model_validator(mode="after")
    def _named(self) -> UiConfig:
        for host in self.hosts:
            if not _HOST.fullmatch(host) and not _is_address(host):
                raise wrong(
                    "hosts",
                    f"has {host[:64]!r}, which no browser calls a host; give a name or an address "
                    "without scheme and port, such as operations.example.org",
                )
        return self

    @model_validator(mode="after")
    def _private(self) -> UiConfig:
        if self.tls is None and not is_loopback(self.listen):
            raise wrong(
                "listen",
                f"is {self.listen}, which others reach; give 127.0.0.1 or [::1], or add tls with "
                "certificate and key",
            )
        return self


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
