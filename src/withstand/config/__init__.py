"""The one schema: withstand.yaml, read, checked and written."""

from ._certify import CertifyConfig
from ._data import DataConfig
from ._defences import CompareConfig, DefenceConfig
from ._detect import DetectConfig, MethodConfig
from ._load import load_config, parse_config
from ._model import ModelConfig
from ._sections import (
    Config,
    EvaluateConfig,
    GateConfig,
    HardenConfig,
    Limit,
    RegionConfig,
    ThreatConfig,
    TrustLimit,
    json_schema,
)
from ._template import template

__all__ = [
    "CertifyConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DefenceConfig",
    "DetectConfig",
    "EvaluateConfig",
    "GateConfig",
    "HardenConfig",
    "Limit",
    "MethodConfig",
    "ModelConfig",
    "RegionConfig",
    "ThreatConfig",
    "TrustLimit",
    "json_schema",
    "load_config",
    "parse_config",
    "template",
]
