"""Signatures, and the one place where cryptography is imported, which is an extra."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ..._errors import EvidenceError


def cryptography(module: str) -> Any:
    """A module of the package cryptography; raises EvidenceError where it is not installed."""
    try:
        return import_module(f"cryptography.{module}")
    except ModuleNotFoundError:
        raise EvidenceError(
            "signed and encrypted evidence needs cryptography; pip install 'withstand[serve]'"
        ) from None


def private_key(path: Path) -> Any:
    """The Ed25519 key in a file, made where there is none; raises EvidenceError for another."""
    serialization = cryptography("hazmat.primitives.serialization")
    ed25519 = cryptography("hazmat.primitives.asymmetric.ed25519")
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, plain))
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise EvidenceError(f"signing key {path}: {error.strerror}; give another file") from None
    except (ValueError, TypeError):
        raise EvidenceError(
            f"signing key {path} is not a private key in PEM; give the file that was made first"
        ) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise EvidenceError(f"signing key {path} is not an Ed25519 key; let one be made")
    return key


def public_hex(key: Any) -> str:
    """The public half of a key."""
    serialization = cryptography("hazmat.primitives.serialization")
    encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return str(key.public_key().public_bytes(encoding, form).hex())


def is_signed(message: bytes, signature: str, public: str) -> bool:
    """Whether the owner of a public key has signed a message; both in hex."""
    key = cryptography("hazmat.primitives.asymmetric.ed25519").Ed25519PublicKey
    invalid = cryptography("exceptions").InvalidSignature
    try:
        key.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (ValueError, TypeError, invalid):
        return False
    return True
