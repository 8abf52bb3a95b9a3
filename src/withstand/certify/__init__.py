"""Proofs: randomised smoothing, bounds of the scores, trees, and certificates as files."""

from ._certificate import Certificate, Certificates, load_certificates, proven_share
from ._certify import Bounds, certify
from ._classifier import Prediction, SmoothedClassifier
from ._from_config import from_config
from ._rows import Trees
from ._schema import certificates_schema
from ._show import show
from ._smoothing import Smoothing
from ._verify import verify

__all__ = [
    "Bounds",
    "Certificate",
    "Certificates",
    "Prediction",
    "SmoothedClassifier",
    "Smoothing",
    "Trees",
    "certificates_schema",
    "certify",
    "from_config",
    "load_certificates",
    "proven_share",
    "show",
    "verify",
]
