"""Anchors in a bucket: what a client of S3 is asked, and what is believed of what it says."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from withstand._errors import EvidenceError
from withstand.cli._main import app
from withstand.evidence.log import (
    Checkpoint,
    Head,
    Log,
    S3Anchor,
    Signer,
    Vault,
    _s3,
    anchor_at,
    checkpoints_at,
    read_bucket,
    verify,
)
from withstand.guard import EvidenceJournal

boto3 = pytest.importorskip("boto3")
stub = pytest.importorskip("botocore.stub")

URL = "s3://bucket/evidence?days=30"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("key") / "key.pem", anchors=())


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = boto3.client(
        "s3", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    monkeypatch.setattr(_s3, "_client", lambda: made)
    yield made
    made.close()


@pytest.fixture
def stubbed(client: Any) -> Iterator[Any]:
    with stub.Stubber(client) as made:
        yield made
        made.assert_no_pending_responses()


def key(checkpoint: Checkpoint) -> str:
    return f"evidence/{_s3._name(checkpoint)}"


def listed(*keys: str, **more: Any) -> dict[str, Any]:
    return {"Versions": [{"Key": one, "VersionId": "v"} for one in keys], **more}


class Bucket:
    """A client that keeps what it is given, and fails when it is told to."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.down = threading.Event()
        self.tried = 0

    def put_object(self, **told: Any) -> None:
        self.tried += 1
        if self.down.is_set():
            raise OSError("no route")
        self.keys.append(told["Key"])


def until(condition: Any, most: float = 20.0) -> None:
    end = time.monotonic() + most
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_checkpoint_is_locked_and_never_replaces_another(stubbed: Any, signer: Signer) -> None:
    checkpoint = signer.sign(Head(7, "a" * 64))

    class Month:
        def __eq__(self, other: object) -> bool:
            assert isinstance(other, datetime)
            wanted = datetime.now(UTC) + timedelta(days=30)
            return abs((other - wanted).total_seconds()) < 60

    stubbed.add_response("put_object", {}, {
        "Bucket": "bucket", "Key": key(checkpoint), "Body": stub.ANY, "IfNoneMatch": "*",
        "ContentType": "application/json", "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": Month(),
    })  # fmt: skip
    anchor = S3Anchor(URL)
    anchor.send(checkpoint)
    # The same one is there already: that is as good.
    stubbed.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    anchor.send(checkpoint)
    stubbed.add_client_error("put_object", "AccessDenied", "no", 403)
    with pytest.raises(OSError, match="AccessDenied"):
        anchor.send(checkpoint)
    anchor.close()


def test_all_versions_are_read_page_by_page(stubbed: Any, signer: Signer) -> None:
    given = [signer.sign(Head(seq, f"{seq:064x}")) for seq in (1, 5, 9)]
    first = listed(
        *map(key, given[:2]), IsTruncated=True, NextKeyMarker="k", NextVersionIdMarker="v",
        DeleteMarkers=[{"Key": key(given[0]), "VersionId": "d"}],
    )  # fmt: skip
    stubbed.add_response("list_object_versions", first, {"Bucket": "bucket", "Prefix": "evidence/"})
    stubbed.add_response("list_object_versions", listed(key(given[2]), IsTruncated=False), {
        "Bucket": "bucket", "Prefix": "evidence/", "KeyMarker": "k", "VersionIdMarker": "v",
    })  # fmt: skip
    assert checkpoints_at(URL, signer.public) == given


def test_what_nobody_signed_is_named(stubbed: Any, signer: Signer) -> None:
    checkpoint = signer.sign(Head(1, "a" * 64))
    forged = key(checkpoint).replace("a" * 64, "b" * 64)
    for name, words in ((forged, "record 1 is not signed with the key"), ("evidence/x", "'x' in")):
        stubbed.add_response("list_object_versions", listed(key(checkpoint), name))
        with pytest.raises(EvidenceError, match=words):
            checkpoints_at(URL, signer.public)
    stubbed.add_client_error("list_object_versions", "NoSuchBucket", "gone", 404)
    with pytest.raises(EvidenceError, match=r"cannot be read: .*NoSuchBucket"):
        read_bucket(URL)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://b?days=-1", "s3://b/x?days=soon"])
def test_a_place_must_be_one(url: str) -> None:
    with pytest.raises(EvidenceError, match="write s3://bucket/prefix"):
        anchor_at(url)


def test_the_log_never_waits_for_the_network(signer: Signer) -> None:
    bucket = Bucket()
    bucket.down.set()
    anchor = S3Anchor(URL, client=bucket, retry=0.01)
    begun = time.monotonic()
    for seq in range(1, 2000):
        anchor(Checkpoint(seq=seq, hash="a" * 64, wall=1.5, key="k", signature="s"))
    assert time.monotonic() - begun < 5
    until(lambda: anchor.failures >= 2)
    assert anchor.error == "no route"
    bucket.down.clear()
    until(lambda: bucket.keys)
    anchor.close()
    # The newest vouches for those before it, which nobody waits to send.
    assert bucket.keys[-1].startswith(f"evidence/{1999:020d}_")
    assert len(bucket.keys) <= 2


def test_an_anchor_that_is_down_lets_a_journal_end(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.down.set()
    anchor = S3Anchor(URL, client=bucket, retry=60)
    signer = Signer(tmp_path / "key.pem", anchors=(anchor,), every=1)
    log = Log(tmp_path / "log", committed=signer)
    journal = EvidenceJournal(log, inputs="none", signer=signer)
    journal.note({}, flagged=False, asked=None)
    until(lambda: journal.counts.anchors_failed)
    journal.close()
    assert not anchor._thread.is_alive()


def test_the_last_record_is_anchored_too(tmp_path: Path) -> None:
    bucket = Bucket()
    signer = Signer(tmp_path / "key.pem", anchors=(S3Anchor(URL, client=bucket),), every=10**6)
    vault = Vault(tmp_path / "log" / "vault", bytes(32))
    log = Log(tmp_path / "log", committed=signer)
    journal = EvidenceJournal(log, vault, signer=signer)
    journal.note({}, flagged=False, asked=None)
    journal.close()
    assert bucket.keys[-1].startswith(f"evidence/{3:020d}_{log.head.hash}_")


def test_a_log_that_was_written_anew_is_caught_even_with_the_key(
    tmp_path: Path, stubbed: Any
) -> None:
    signer = Signer(tmp_path / "key.pem", anchors=())

    def written(n: int) -> list[Checkpoint]:
        shutil.rmtree(tmp_path / "log", ignore_errors=True)
        found: list[Checkpoint] = []
        keep = lambda head: found.append(signer.sign(head))  # noqa: E731
        with Log(tmp_path / "log", committed=keep) as log:
            for number in range(n):
                log.append({"number": number})
                log.flush()
        return found

    first = written(5)
    # Whoever has the machine has the key, and can send more, but take nothing back.
    second = written(9)
    keys = [key(one) for one in (*first, *second)]
    stubbed.add_response("list_object_versions", listed(*sorted(keys)))
    told = CliRunner().invoke(
        app,
        ["evidence", "verify", str(tmp_path / "log"), "--anchor", URL, "--key", signer.public],
    )
    assert told.exit_code == 1
    assert "not the one that the anchor vouches for" in told.output
    assert verify(tmp_path / "log", [one.head for one in second]).faults == ()
