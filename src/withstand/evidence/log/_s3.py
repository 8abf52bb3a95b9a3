"""Signed heads in a bucket with object lock, where nobody can change or remove them."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..._errors import EvidenceError, one_line
from ._checkpoint import Checkpoint

_DAYS = 400.0
_SUFFIX = ".json"


class S3Anchor:
    """An anchor at `s3://bucket/prefix`, for `Signer`; `?days=400` says how long it is locked.

    The bucket must have object lock. Each checkpoint is an object with a retention in mode
    COMPLIANCE, which not even the account's owner can shorten. A thread sends them, so that the log
    never waits for the network; while it cannot, the newest takes the place of those before it,
    which it vouches for too. failures: of sending. Credentials and endpoint are those of boto3.
    """

    def __init__(self, url: str, *, client: Any = None, retry: float = 5.0) -> None:
        self._bucket, self._prefix, self._days = _place(url)
        self._client = _client() if client is None else client
        self._retry = retry
        self._next: Checkpoint | None = None
        self._sending = self._closing = False
        self._signal = threading.Condition()
        self.failures = 0
        self.error = ""
        self._thread = threading.Thread(target=self._run, name="anchor", daemon=True)
        self._thread.start()

    def __call__(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint sent."""
        with self._signal:
            self._next = checkpoint
            self._signal.notify_all()

    def close(self, timeout: float = 10.0) -> None:
        """Send what waits, once, and end."""
        with self._signal:
            self._closing = True
            self._signal.notify_all()
        self._thread.join(timeout)

    def send(self, checkpoint: Checkpoint) -> None:
        """Send a checkpoint now; raises OSError where that fails."""
        until = datetime.now(UTC) + timedelta(days=self._days)
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + _name(checkpoint),
                Body=json.dumps(asdict(checkpoint)).encode(),
                ContentType="application/json",
                IfNoneMatch="*",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=until,
            )
        except _errors() as error:
            if _code(error) != "PreconditionFailed":
                raise OSError(one_line(error)) from None

    def _run(self) -> None:
        while True:
            with self._signal:
                self._signal.wait_for(lambda: self._next or self._closing)
                checkpoint, self._next = self._next, None
            if checkpoint is None:
                return
            try:
                self.send(checkpoint)
                self.error = ""
            except OSError as error:
                self.failures += 1
                self.error = str(error)
                with self._signal:
                    if self._closing:
                        return
                    self._next = self._next or checkpoint
                    self._signal.wait(self._retry)


def read_bucket(url: str, client: Any = None) -> list[Checkpoint]:
    """The checkpoints that were ever sent to a place, whatever was done there since.

    A removal in such a bucket only hides, and a change only adds a version: all versions are read,
    from their names, which hold the whole checkpoint. Their signatures are not checked. Raises
    EvidenceError.
    """
    bucket, prefix, _ = _place(url)
    client = _client() if client is None else client
    found, more = [], {"Bucket": bucket, "Prefix": prefix}
    try:
        while True:
            told = client.list_object_versions(**more)
            for version in told.get("Versions", ()):
                found.append(_parsed(version["Key"].removeprefix(prefix)))
            if not told.get("IsTruncated"):
                return found
            more |= {
                "KeyMarker": told["NextKeyMarker"], "VersionIdMarker": told["NextVersionIdMarker"],
            }  # fmt: skip
    except _errors() as error:
        raise EvidenceError(
            f"{url} cannot be read: {one_line(error)}; see to the bucket, and to the credentials"
        ) from None


def _name(checkpoint: Checkpoint) -> str:
    # All of it in the name: a year of checkpoints is listed in minutes, and fetched in a day.
    told = asdict(checkpoint)
    parts = (f"{told['seq']:020d}", told["hash"], repr(told["wall"]), told["key"])
    return "_".join((*parts, told["signature"])) + _SUFFIX


def _parsed(name: str) -> Checkpoint:
    try:
        seq, digest, wall, key, signature = name.removesuffix(_SUFFIX).split("_")
        return Checkpoint(seq=int(seq), hash=digest, wall=float(wall), key=key, signature=signature)
    except ValueError:
        raise EvidenceError(
            f"{name[:80]!r} in the bucket is no checkpoint; look who put it there"
        ) from None


def _place(url: str) -> tuple[str, str, float]:
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    try:
        days = float(parse_qs(parts.query).get("days", [str(_DAYS)])[0])
    except ValueError:
        days = 0.0
    if parts.scheme != "s3" or not parts.netloc or not days > 0:
        raise EvidenceError(f"{url!r} is no bucket; write s3://bucket/prefix or ...?days=400")
    return parts.netloc, f"{prefix}/" if prefix else "", days


def _client() -> Any:
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config").Config
    except ModuleNotFoundError:
        raise EvidenceError(
            "an anchor in a bucket needs boto3; pip install 'withstand[s3]'"
        ) from None
    limits = config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 2})
    try:
        return boto3.client("s3", config=limits)
    except _errors() as error:
        raise EvidenceError(
            f"no client for buckets can be made: {one_line(error)}; set e.g. AWS_DEFAULT_REGION"
        ) from None


def _errors() -> tuple[type[Exception], ...]:
    found = import_module("botocore.exceptions")
    return (found.BotoCoreError, found.ClientError, OSError)


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
