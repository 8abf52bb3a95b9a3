"""Proofs: randomised smoothing, bounds of the scores, and certificates as files."""

from ._certificate import Certificate, Certificates, load_certificates, proven_share
from ._certify import Bounds, certify
from ._classifier import Prediction, SmoothedClassifier
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
    "certificates_schema",
    "certify",
    "load_certificates",
    "proven_share",
    "show",
    "verify",
]
