"""What changes a corpus, and what goes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._corpus_folder import Config, Folder, opened
from ._evidence_folder import place_of

_By = Annotated[str | None, typer.Option("--by", help="Who says so; your user name if not given.")]
_Default = Path("withstand.yaml")


def add(
    evidence: Annotated[Path, typer.Option(help="The folder of a guard's evidence log.")],
    vault: Annotated[
        Path | None, typer.Option(help="Its inputs; the folder vault in it if not given.")
    ] = None,
    secrets: Annotated[
        Path, typer.Option(help="The guard's secrets; WITHSTAND_MASTER is taken before them.")
    ] = Path("withstand-secrets"),
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    config: Config = _Default,
    folder: Folder = None,
) -> None:
    """Add the inputs that a guard flagged or refused; each names the record it comes from."""
    from .._errors import EvidenceError
    from ..evidence import collect
    from ..evidence.log import Query, Vault, is_vault

    place = place_of(evidence, vault)
    if not any(evidence.glob("*.log")) or not is_vault(place):
        raise EvidenceError(f"{evidence} holds no evidence with inputs; give a guard's folder")
    here = opened(config, folder, new=True)
    inputs = Vault(place, _master(secrets))
    try:
        done = collect(here, evidence, inputs, Query(tenant=tenant))
    finally:
        inputs.close()
    _say(f"added: {done.new:,} new of {done.inputs:,} inputs in {done.requests:,} requests")
    if done.erased:
        _say(f"{done.erased:,} requests are left out: their inputs were erased")
    if done.unfit:
        _say(
            f"{done.unfit:,} requests are left out: they hold text or image files (BYTES) or "
            "several tensors, and a corpus keeps one tensor of numbers for each"
        )
    if done.stale:
        _say(
            f"{done.stale:,} entries in {here.path} hold inputs that were erased from the evidence "
            "since; versions never change, so make a new corpus without them"
        )


def label(
    entry: Annotated[str, typer.Argument(help="The first characters of the entry's digest.")],
    value: Annotated[
        str | None, typer.Option("--label", help="Its true label, as JSON, e.g. 3.")
    ] = None,
    verdict: Annotated[str, typer.Option(help="attack or benign.")] = "",
    by: _By = None,
    config: Config = _Default,
    folder: Folder = None,
) -> None:
    """Say what a flagged input really is; earlier versions stay as they were."""
    import json

    from .._errors import ConfigError, CorpusError
    from ..evidence import Remark

    if verdict not in ("", "attack", "benign") or not (verdict or value):
        raise ConfigError("give --label, --verdict attack or benign, or both")
    try:
        told = None if value is None else json.loads(value)
    except ValueError:
        raise ConfigError(f'--label is {value!r}; write JSON, e.g. 3 or "cat"') from None
    here = opened(config, folder)
    found = {
        one.digest
        for one in here.entries(kind="flagged", distrusted=True)
        if one.digest.startswith(entry)
    }
    if len(found) != 1 or not entry:
        raise CorpusError(
            f"{len(found)} flagged entries begin with {entry!r}; see `withstand corpus show`"
        )
    (digest,) = found
    remark: dict[str, Any] = {"label": told, "verdict": verdict}
    version = here.add([], [], [Remark(entry=digest, by=by or _user(), **remark)])
    _say(f"labelled: {digest[:12]} in version {version.number if version else 0}")


def export(
    output: Annotated[Path, typer.Argument(help="The folder to write, which is not there yet.")],
    key: Annotated[Path, typer.Option(help="The Ed25519 key that signs it; made if not there.")],
    form: Annotated[str, typer.Option("--format", help="safetensors or parquet.")] = "safetensors",
    kind: Annotated[str | None, typer.Option(help="Only adversarial, or only flagged.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only up to this version.")] = None,
    licence: Annotated[str, typer.Option(help="Under what others may use it.")] = "",
    sender: Annotated[str, typer.Option(help="Who you are, for those who get it.")] = "",
    config: Config = _Default,
    folder: Folder = None,
) -> None:
    """Write our own entries to a folder for other teams, with a data card, signed."""
    from .._errors import ConfigError
    from ..evidence import card, write_exchange

    if form not in ("safetensors", "parquet"):
        raise ConfigError(f"--format is {form!r}; it is safetensors or parquet")
    if kind not in (None, "adversarial", "flagged"):
        raise ConfigError(f"--kind is {kind!r}; it is adversarial or flagged")
    here = opened(config, folder)
    told = write_exchange(
        here, output, key, form=form, kind=kind, version=version, licence=licence,  # type: ignore[arg-type]
        sender=sender, card=card(here, licence=licence),
    )  # fmt: skip
    _say(f"written: {output} ({told.entries:,} entries); public key {told.key}")


def import_(
    exchange: Annotated[Path, typer.Argument(help="A folder that another team has exported.")],
    key: Annotated[str, typer.Option(help="Their public key (hex), told by another way.")],
    by: _By = None,
    config: Config = _Default,
    folder: Folder = None,
) -> None:
    """Add another team's entries; nothing uses them until `withstand corpus trust`."""
    from ..evidence import import_exchange

    here = opened(config, folder, new=True)
    told = import_exchange(here, exchange, key, by or _user())
    licence = told.licence or "no licence stated"
    _say(f"imported: {told.entries:,} entries, {licence}; not trusted yet")
    _say(f"to use them: withstand corpus trust {told.digest[:12]}")


def trust(
    exchange: Annotated[str, typer.Argument(help="The first characters of its digest.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust it no longer.")] = False,
    by: _By = None,
    config: Config = _Default,
    folder: Folder = None,
) -> None:
    """Let evaluations and retraining use what an import brought, or no longer."""
    from ..evidence import trust as said

    remark = said(opened(config, folder), exchange, by or _user(), trusted=not revoke)
    _say(f"{'no longer trusted' if revoke else 'trusted'}: {remark.imported[:12]}")


def _master(folder: Path) -> bytes:
    import os

    from .._errors import EvidenceError
    from ..guard import Secrets

    # A guard makes the secrets that it lacks; a new one would open nothing here.
    if "WITHSTAND_MASTER" not in os.environ and not (folder / "master").exists():
        raise EvidenceError(
            f"there is no master key in {folder}; give the guard's with --secrets, or set "
            "WITHSTAND_MASTER"
        )
    return Secrets(folder).get("master")


def _user() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (OSError, KeyError):
        return "somebody"


def _say(text: str) -> None:
    typer.echo(text, err=True)
