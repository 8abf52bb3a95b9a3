"""The one schema: withstand.yaml, read, checked and written."""

from ._canary import CanaryConfig, MarginConfig
from ._certify import CertifyConfig
from ._data import DataConfig
from ._defences import CompareConfig, DefenceConfig
from ._detect import DetectConfig, MethodConfig
from ._guard import EvidenceConfig, GuardConfig, LimitsConfig, host_and_port
from ._harden import HardenConfig
from ._line import LineConfig, RateConfig
from ._load import load_config, load_guard, load_operations, load_table, parse_config
from ._model import ModelConfig
from ._monitor import CampaignsConfig, MonitorConfig, ReceiverConfig, SloConfig
from ._named import model_named
from ._operations import Operations
from ._redteam import RedteamConfig
from ._respond import ReplayConfig, RespondConfig, RetrainConfig
from ._sections import (
    Config,
    EvaluateConfig,
    GateConfig,
    Limit,
    RegionConfig,
    ThreatConfig,
    TrustLimit,
    UnitLimit,
    json_schema,
)
from ._sensors import DetectorConfig, ExtractionConfig
from ._table import ChoiceConfig, FeatureConfig, TableConfig, table_schema
from ._template import model_lines, template
from ._tensor import TensorConfig
from ._ui import UiConfig
from ._yaml import read_yaml

__all__ = [
    "CampaignsConfig",
    "CanaryConfig",
    "CertifyConfig",
    "ChoiceConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DefenceConfig",
    "DetectConfig",
    "DetectorConfig",
    "EvaluateConfig",
    "EvidenceConfig",
    "ExtractionConfig",
    "FeatureConfig",
    "GateConfig",
    "GuardConfig",
    "HardenConfig",
    "Limit",
    "LimitsConfig",
    "LineConfig",
    "MarginConfig",
    "MethodConfig",
    "ModelConfig",
    "MonitorConfig",
    "Operations",
    "RateConfig",
    "ReceiverConfig",
    "RedteamConfig",
    "RegionConfig",
    "ReplayConfig",
    "RespondConfig",
    "RetrainConfig",
    "SloConfig",
    "TableConfig",
    "TensorConfig",
    "ThreatConfig",
    "TrustLimit",
    "UiConfig",
    "UnitLimit",
    "host_and_port",
    "json_schema",
    "load_config",
    "load_guard",
    "load_operations",
    "load_table",
    "model_lines",
    "model_named",
    "parse_config",
    "read_yaml",
    "table_schema",
    "template",
]
