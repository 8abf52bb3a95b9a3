"""Evaluation: the cascade, its report, and whether the number can be trusted."""

from ._answers import Answers
from ._cascade import PRESETS, sweep, weakest
from ._chart import Chart, Curve, Line, Point, draw
from ._console import show
from ._evaluate import evaluate
from ._files import check_writable, write
from ._fix import Fixed, Remedy, fix
from ._html import page, render
from ._layer import Layer
from ._layers import Layers, evaluate_layers
from ._preflight import check_clean, check_domain
from ._replay import shown_first
from ._report import Cost, Finding, Report, TrainingCost, Trust
from ._sandwich import join, sandwich, save_joined
from ._saved import check_same, check_same_threat, load_report, load_trust, read_report
from ._schema import report_schema, schema_of
from ._setup import Setup, classes_of, from_config, in_order, setup_of, threat_from
from ._show_layers import show_layers
from ._show_trust import show_fixed, show_trust
from ._stages import Progress
from ._training import cost_beside, training_cost
from ._union import union
from ._words import cost_words, headline, printable
from .diagnosis import CHECKS, diagnose_attack

__all__ = [
    "CHECKS",
    "PRESETS",
    "Answers",
    "Chart",
    "Cost",
    "Curve",
    "Finding",
    "Fixed",
    "Layer",
    "Layers",
    "Line",
    "Point",
    "Progress",
    "Remedy",
    "Report",
    "Setup",
    "TrainingCost",
    "Trust",
    "check_clean",
    "check_domain",
    "check_same",
    "check_same_threat",
    "check_writable",
    "classes_of",
    "cost_beside",
    "cost_words",
    "diagnose_attack",
    "draw",
    "evaluate",
    "evaluate_layers",
    "fix",
    "from_config",
    "headline",
    "in_order",
    "join",
    "load_report",
    "load_trust",
    "page",
    "printable",
    "read_report",
    "render",
    "report_schema",
    "sandwich",
    "save_joined",
    "schema_of",
    "setup_of",
    "show",
    "show_fixed",
    "show_layers",
    "show_trust",
    "shown_first",
    "sweep",
    "threat_from",
    "training_cost",
    "union",
    "weakest",
    "write",
]
