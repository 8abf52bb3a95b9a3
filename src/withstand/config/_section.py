"""What all sections of withstand.yaml have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def wrong(key: str, text: str) -> PydanticCustomError:
    """The error of a rule that joins several keys; `key` is the one that mends it."""
    return PydanticCustomError("key", "{key} {text}", {"key": key, "text": text})


def check_factory(named: str) -> None:
    """Raise the error of the key factory unless it names a callable."""
    place, _, name = named.rpartition(":")
    if not place or not name.isidentifier():
        raise wrong("factory", f"is {named!r}; write file.py:callable or package.module:callable")


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, and a key without a value counts as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {k: v for k, v in raw.items() if v is not None or k not in cls.model_fields}
