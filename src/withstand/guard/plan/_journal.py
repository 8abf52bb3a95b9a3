"""The journal, from the section evidence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..._errors import ConfigError, listed
from ...config import EvidenceConfig, LineConfig, load_table
from ...evidence.log import Log, Retention, Signer, Vault, anchor_at
from ..access import Secrets
from ..journal import EvidenceJournal, Redaction
from ..rules import ROWS

_DAY = 86_400.0


def check_redacted(told: EvidenceConfig, lines: Iterable[LineConfig], folder: Path) -> None:
    """Raise ConfigError where an input that is redacted is none that the lines have.

    Where the inputs of a line are not given, any name may come.
    """
    known: dict[str, None] = {}
    for line in lines:
        if not line.inputs:
            return
        for one in line.inputs:
            known[one.name] = None
            if one.table is not None:
                known |= dict.fromkeys(load_table(folder / one.table).features)
        if len(line.inputs) == 1 and line.inputs[0].datatype != "BYTES":
            known |= dict.fromkeys(ROWS)
    for number, redaction in enumerate(told.redact):
        name = redaction.field.removeprefix("inputs.")
        if name != redaction.field and name not in known:
            raise ConfigError(
                f"guard.evidence.redact[{number}].field is {redaction.field!r}; the guard's inputs "
                f"and the columns of their tables are {listed(known, 20)}"
            )


def journal_of(told: EvidenceConfig, folder: Path, secrets: Secrets) -> EvidenceJournal:
    """The journal in a folder; raises EvidenceError where it cannot be written."""
    place, signer = folder / told.folder, None
    if told.anchor is not None:
        anchor = anchor_at(told.anchor, folder)
        signer = Signer(secrets.folder / "signing.pem", anchors=(anchor,))
    redactions = [Redaction(field=one.field, how=one.how, keep=one.keep) for one in told.redact]
    days = {"inputs": told.inputs_days, "records": told.records_days}
    seconds = {key: _DAY * one for key, one in days.items() if one is not None}
    retention = Retention(**seconds) if seconds else None
    log = Log(place, committed=signer)
    try:
        inputs = place / "vault"
        # What was kept before must still be erased when its time is over.
        wanted = told.inputs != "none" or inputs.is_dir()
        vault = Vault(inputs, secrets.get("master")) if wanted else None
        return EvidenceJournal(
            log, vault, inputs=told.inputs, share=told.share, records=told.records,
            required=told.required, redactions=redactions,
            secret=secrets.get("fingerprint"), signer=signer, retention=retention,
        )  # fmt: skip
    except BaseException:
        log.close()
        raise
