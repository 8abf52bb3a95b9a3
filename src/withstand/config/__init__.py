"""The one schema: withstand.yaml, read, checked and written."""

from ._load import load_config, parse_config
from ._model import ModelConfig
from ._sections import (
    Config,
    DataConfig,
    EvaluateConfig,
    GateConfig,
    Limit,
    RegionConfig,
    ThreatConfig,
    TrustLimit,
    json_schema,
)
from ._template import template

__all__ = [
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "GateConfig",
    "Limit",
    "ModelConfig",
    "RegionConfig",
    "ThreatConfig",
    "TrustLimit",
    "json_schema",
    "load_config",
    "parse_config",
    "template",
]
