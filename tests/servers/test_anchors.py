"""A bucket with object lock on a real server: what is there, stays there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from withstand.evidence.log import Log, S3Anchor, Signer, checkpoints_at, verify

boto3 = pytest.importorskip("boto3")
ClientError = pytest.importorskip("botocore.exceptions").ClientError

pytestmark = pytest.mark.slow
URL = "s3://evidence/guard-1?days=30"


@pytest.fixture(scope="module")
def bucket(ministack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the server, where the bucket evidence is."""
    folder = tmp_path_factory.mktemp("ministack")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [ministack.parent / "ministack"],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)},
        )  # fmt: skip
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            client = boto3.client("s3")
            until = time.monotonic() + 60
            while True:
                try:
                    client.create_bucket(Bucket="evidence", ObjectLockEnabledForBucket=True)
                    break
                except Exception:
                    assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
                    time.sleep(0.2)
            yield client
            client.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_was_anchored_cannot_be_taken_back(bucket: Any, tmp_path: Path) -> None:
    anchor = S3Anchor(URL)
    signer = Signer(tmp_path / "key.pem", anchors=(anchor,), every=1)
    with Log(tmp_path / "log", committed=signer) as log:
        for number in range(6):
            log.append({"number": number})
            log.flush()
    signer.close(log.head)
    assert (anchor.failures, anchor.error) == (0, "")
    found = checkpoints_at(URL, signer.public)
    assert found[-1].head == log.head
    heads = [one.head for one in found]
    checked = verify(tmp_path / "log", heads)
    assert (checked.faults, checked.anchored) == ((), log.head.seq)

    (version, *_) = bucket.list_object_versions(Bucket="evidence", Prefix="guard-1/")["Versions"]
    name = {"Bucket": "evidence", "Key": version["Key"]}
    this = {**name, "VersionId": version["VersionId"]}
    for given in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(ClientError, match="AccessDenied"):
            bucket.delete_object(**this, **given)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    with pytest.raises(ClientError, match=r"AccessDenied|InvalidRequest"):
        bucket.put_object_retention(
            **this, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": soon}
        )
    with pytest.raises(ClientError, match="PreconditionFailed"):
        bucket.put_object(**name, Body=b"", IfNoneMatch="*")

    # Hidden and overwritten it is still there: both only add a version.
    bucket.delete_object(**name)
    bucket.put_object(**name, Body=b"nothing")
    assert {one.head for one in checkpoints_at(URL, signer.public)} == set(heads)

    # The whole log written anew after the checkpoints, and more of it.
    shutil.rmtree(tmp_path / "log")
    other = S3Anchor(URL)
    forger = Signer(tmp_path / "key.pem", anchors=(other,), every=1)
    with Log(tmp_path / "log", committed=forger) as log:
        for number in range(12):
            log.append({"number": -number})
            log.flush()
    forger.close(log.head)
    assert verify(tmp_path / "log").faults == ()
    heads = [one.head for one in checkpoints_at(URL, signer.public)]
    faults = verify(tmp_path / "log", heads).faults
    assert "not the one that the anchor vouches for" in faults[0]
