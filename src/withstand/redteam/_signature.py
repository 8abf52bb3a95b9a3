"""Who has signed a scope: Ed25519 (RFC 8032) over the file's bytes, in a file beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from .._errors import OperationError
from .._whole import whole
from ._scope import Scope, parse_scope, read_bytes

SUFFIX = ".sig"
_WHAT = b"withstand scope 1\n"


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A scope whose signature holds: sha256 (hex) of its file, and the name of who has signed."""

    scope: Scope
    digest: str
    signer: str


def make_key(path: Path) -> str:
    """A new private key in a file that only its owner reads; the public one, hex.

    Raises OperationError where the file is there already or cannot be written.
    """
    new = _ed25519().Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(new.private_bytes_raw().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise OperationError(f"{path} is there already; give another file") from None
    except OSError as error:
        raise OperationError(
            f"{path} cannot be written ({error.strerror}); give another file"
        ) from None
    return str(new.public_key().public_bytes_raw().hex())


def sign(path: Path, key: Path) -> Scope:
    """Sign a scope, and write the signature beside it; raises OperationError for a broken one."""
    content = read_bytes(path)
    scope = parse_scope(content, str(path))
    if key.exists() and key.stat().st_mode & 0o007:
        raise OperationError(f"key {key} is open to everybody; run `chmod 600 {key}`")
    try:
        private = _ed25519().Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex(read_bytes(key).decode("ascii", "replace").strip())
        )
    except ValueError:
        raise OperationError(f"{key} is no key of `withstand redteam keygen`") from None
    public = private.public_key().public_bytes_raw().hex()
    told = {"key": public, "signature": private.sign(_WHAT + content).hex()}
    _write(path.with_name(path.name + SUFFIX), json.dumps(told) + "\n")
    return scope


def read_scope(path: Path, signers: Mapping[str, str]) -> Signed:
    """A scope that somebody among the signers (name: public key, hex) has signed as it stands.

    Raises OperationError for any other.
    """
    content = read_bytes(path)
    beside = path.with_name(path.name + SUFFIX)
    if not beside.exists():
        raise OperationError(f"{path} is not signed; run `withstand redteam sign {path}`")
    try:
        told: Any = json.loads(read_bytes(beside))
        public, signature = str(told["key"]), bytes.fromhex(told["signature"])
    except (ValueError, TypeError, KeyError):
        raise OperationError(f"{beside} is no signature; sign {path} again") from None
    signer = next((name for name, key in signers.items() if key.lower() == public), None)
    if signer is None:
        raise OperationError(
            f"{path} is signed with the key {public[:16]!r}…, which is not among redteam.signers; "
            "add it if you trust it"
        )
    key = _ed25519().Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    try:
        key.verify(signature, _WHAT + content)
    except import_module("cryptography.exceptions").InvalidSignature:
        raise OperationError(
            f"{path} is not what {signer} has signed; have it signed again as it is now"
        ) from None
    scope = parse_scope(content, str(path))
    return Signed(scope=scope, digest=sha256(content).hexdigest(), signer=signer)


def _ed25519() -> Any:
    try:
        return import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ModuleNotFoundError:
        raise OperationError(
            "signed scopes need cryptography; pip install 'withstand[serve]'"
        ) from None


def _write(path: Path, text: str) -> None:
    try:
        with whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise OperationError(
            f"{path} cannot be written ({error.strerror}); make room, or free the folder"
        ) from None
