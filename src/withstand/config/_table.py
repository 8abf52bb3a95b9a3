"""The file that says what the columns of a table are, and what an attacker can do to them."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, WithJsonSchema, model_validator

from ._section import Section, wrong
from ._values import Count, Names, Positive, Tolerance, _names, number


def _day(value: object) -> date | None:
    """A date, which YAML reads from bare text; None for anything else."""
    try:
        told = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return told if isinstance(told, date) else None


def _edge(value: object) -> float:
    """A number, or a date as days since 1970."""
    told = _day(value)
    if told is not None:
        return float((date(told.year, told.month, told.day) - date(1970, 1, 1)).days)
    try:
        return number(value)
    except ValueError:
        raise ValueError("give a finite number, or a date such as 2026-01-31") from None


def _others(value: object) -> list[str]:
    return [] if value == [] else _names(value)


Edge = Annotated[float, BeforeValidator(_edge), WithJsonSchema({"type": ["number", "string"]})]
Others = Annotated[
    list[str],
    BeforeValidator(_others),
    WithJsonSchema(
        {"type": "array", "items": {"type": ["string", "integer"]}, "uniqueItems": True}
    ),
]


class FeatureConfig(Section):
    """A column, in the units of the file, and what can be done to it."""

    change: Literal["both", "increase", "decrease", "none"] = Field(
        default="both", description="in which direction an attacker can change it, if at all"
    )
    lower: Edge | None = Field(default=None, description="its least value")
    upper: Edge | None = Field(default=None, description="its largest value")
    integer: StrictBool = Field(default=False, description="whole numbers only")
    step: Positive | None = Field(default=None, description="what its values are multiples of")
    date: StrictBool = Field(default=False, description="dates, written as 2026-01-31")
    values: Names | None = Field(default=None, description="the categories that there are")
    allow: dict[str, Others] | None = Field(
        default=None,
        description="what each category can become, for those that are named; [] for none",
        examples=["{DE: [FR]}"],
    )
    most: Positive | None = Field(default=None, description="the largest change")
    share: Positive | None = Field(
        default=None, description="the largest change as a share of the value before"
    )
    cost: Tolerance = Field(default=0.0, description="what one unit of change costs the attacker")
    fixed: Tolerance = Field(default=0.0, description="what any change of it costs besides")

    @model_validator(mode="before")
    @classmethod
    def _dates(cls, raw: Any) -> Any:
        """Days since 1970 are what nobody means who writes a date."""
        for key in ("lower", "upper") if isinstance(raw, dict) and not raw.get("date") else ():
            if _day(raw.get(key)) is not None:
                raise wrong("date", f"is missing, and {key} is a date; say date: true")
        return raw

    @model_validator(mode="after")
    def _kinds(self) -> FeatureConfig:
        if self.values is not None:
            for key in ("integer", "step", "date", "most", "share", "lower", "upper"):
                if key in self.model_fields_set and getattr(self, key) not in (False, None):
                    raise wrong(key, "is not for a column with values; take it out")
            if self.cost:
                raise wrong("cost", "is for each unit; for a change between values write fixed")
        if self.allow is not None and self.values is None:
            raise wrong("allow", "is for a column with values; give values")
        for before, after in (self.allow or {}).items():
            for one in (before, *after):
                if one not in (self.values or ()):
                    raise wrong("allow", f"names {one!r}, which is none of values; correct it")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise wrong("lower", f"is {self.lower:g}, above upper {self.upper:g}; swap them")
        return self


class ChoiceConfig(Section):
    """Columns of 0 and 1 of which exactly one is 1: one choice, and one change."""

    columns: Names = Field(description="its columns", examples=["[ios, android, web]"])
    cost: Tolerance = Field(default=0.0, description="what another choice costs the attacker")


class TableConfig(Section):
    """One table.yaml."""

    features: dict[str, FeatureConfig] = Field(
        description="the columns that the model sees, in its order, and what can be done to each",
        examples=["{amount: {lower: 0, upper: 5000}}"],
    )
    choices: list[ChoiceConfig] = Field(
        default_factory=list, description="groups of columns that are one choice"
    )
    derived: dict[str, StrictStr] = Field(
        default_factory=dict,
        description="columns that follow from others: computed anew, never changed by themselves",
        examples=['{ratio: "amount / max(usual, 1)"}'],
    )
    relations: list[StrictStr] = Field(
        default_factory=list,
        description="what holds in every row, also after an attack",
        examples=['["paid <= billed"]'],
    )
    most_changed: Count | None = Field(
        default=None, description="how many features an attacker can change in a row"
    )
    most_cost: Tolerance | None = Field(
        default=None, description="what an attacker can spend on a row, in the units of costs"
    )
    stake: StrictStr | None = Field(
        default=None, description="the money at stake in a row, an expression", examples=["amount"]
    )
    currency: str = Field(default="", description="in which stake and costs are told")

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, raw: Any) -> Any:
        """A feature without keys is one that can become anything."""
        if isinstance(raw, dict) and isinstance(raw.get("features"), dict):
            named = {name: {} if one is None else one for name, one in raw["features"].items()}
            return {**raw, "features": named}
        return raw

    @model_validator(mode="after")
    def _some(self) -> TableConfig:
        if not self.features:
            raise wrong("features", "is empty; name at least one column")
        return self


def table_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of table.yaml."""
    schema = TableConfig.model_json_schema()
    features = schema["properties"]["features"]
    # A column of which nothing is said.
    features["additionalProperties"] = {
        "anyOf": [features["additionalProperties"], {"type": "null"}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
