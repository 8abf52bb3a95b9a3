"""Proofs beside attacks: certified accuracy <= true robust accuracy <= attacked accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._errors import CertificateError, DataError, listed
from ..certify import Certificate, Certificates, SmoothedClassifier, proven_share
from ..certify.trees import digest_of, forest_of
from ..data import Dataset
from ..evidence import content_digest
from ..models import Model
from ..models._torch import device_of
from ._report import Finding, Report
from ._saved import load_report

Array = NDArray[Any]

_NOTE = "Certified accuracy"
_CHECK = "attack against proof"
_DRAWS = 10_000


def sandwich(report: Report, told: Certificates, model: Model | None = None) -> Report:
    """The report with the certified accuracy of its inputs, a lower bound of the truth.

    Certificates count for the inputs, the model and the norm that they are of, and for at most
    their radius. model: the attacked one; where the few votes of a `SmoothedClassifier` were fooled
    on a certified input, many fresh ones decide, and trees without a file are known by their own
    digest. Raises DataError for certificates of something else and for a model without a digest,
    and CertificateError where an attack fooled what was proven.
    """
    inputs = [content_digest(row) for row in report.x]
    _check(report, told, inputs, model)
    known = {c.input: c for c in told.certificates if c.answer == c.label}
    found = [known.get(name) for name in inputs]
    eps = np.broadcast_to(np.asarray(report.threat["eps"], float), len(found))
    radius = np.asarray([0.0 if c is None else c.radius for c in found])
    label = [None if c is None else c.label for c in found]
    proven = (radius >= eps) & (radius > 0) & (np.asarray(label, object) == report.samples.label)
    if told.method != "smoothing":
        fooled = proven & (np.asarray(report.samples.distance, float) <= radius)
        dismissed = 0
    else:
        suspect = proven & _fell(report)
        fooled = _confirmed(report, found, suspect, model)
        dismissed = int((suspect & ~fooled).sum())
    if fooled.any():
        raise _contradiction(report, found, fooled, told)
    share = proven_share(int(proven.sum()), len(proven), told.alpha)
    report = _bare(report)
    about = {"digest": told.digest, "method": told.method, **told.settings}
    provenance = {**report.provenance, "certificates": about}
    notes = (*report.notes, _note(told, [c for c in found if c is not None], dismissed))
    return replace(report, certified_accuracy=share, provenance=provenance, notes=notes)


def join(folder: str | Path, told: Certificates, model: Model, data: Dataset) -> Report:
    """Put certificates into the report in a folder and write it again; raises as `save_joined`."""
    report = load_report(folder)
    named = replace(report, class_names=data.classes, feature_names=data.features)
    return save_joined(named, folder, told, model)


def save_joined(report: Report, folder: str | Path, told: Certificates, model: Model) -> Report:
    """Put certificates into a report and write it to a folder; raises as `sandwich`.

    A report that contradicts them is written all the same, with that as a red finding.
    """
    try:
        joined = sandwich(report, told, model)
    except CertificateError as error:
        _contradicted(report, error).save(folder)
        raise
    joined.save(folder)
    return joined


def _bare(report: Report) -> Report:
    """The report without what was said of certificates before."""
    notes = tuple(note for note in report.notes if not note.startswith(_NOTE))
    findings = tuple(f for f in report.trust.findings if f.check != _CHECK)
    trust = replace(report.trust, findings=findings)
    known = {k: v for k, v in report.provenance.items() if k != "certificates"}
    return replace(report, certified_accuracy=None, notes=notes, trust=trust, provenance=known)


def _contradicted(report: Report, error: CertificateError) -> Report:
    """The report with what contradicts it as a finding."""
    report = _bare(report)
    meaning, _, advice = str(error).rpartition("; ")
    finding = Finding(
        check=_CHECK, value=1.0, threshold=0.0, verdict="red", meaning=meaning, fix=advice
    )
    return replace(report, trust=replace(report.trust, findings=(*report.trust.findings, finding)))


def _check(report: Report, told: Certificates, inputs: list[str], model: Model | None) -> None:
    """Raise DataError where certificates say nothing of what was attacked."""
    attacked, certified = report.provenance["model"], told.model
    while attacked.get("kind") == "Adapted":
        attacked = attacked["model"]
    if told.method == "smoothing":
        if attacked.get("kind") != "SmoothedClassifier":
            raise DataError(
                "certificates by smoothing are of the smoothed classifier, and the report is of "
                "the model itself; evaluate SmoothedClassifier(model, sigma="
                f"{told.settings['sigma']:g}) instead"
            )
        if attacked["sigma"] != told.settings["sigma"]:
            raise DataError(
                f"the certificates are for sigma {told.settings['sigma']:g}, the report for "
                f"{attacked['sigma']:g}; evaluate and certify with the same"
            )
        attacked = attacked["model"]
    if _plainly(attacked) != _plainly(certified):
        raise DataError("the certificates are of another model than the report; certify again")
    if not _has_digest(certified):
        _check_trees(report, told, model)
    if told.threat["goal"] != report.threat["goal"] or told.threat["norm"] != report.threat["norm"]:
        raise DataError(
            f"the certificates are for {told.threat['goal']} in {told.threat['norm']}, the report "
            f"for {report.threat['goal']} in {report.threat['norm']}; certify again"
        )
    limits, others = (_limits(t["region"]) for t in (told.threat, report.threat))
    if told.method != "smoothing" and limits and limits != others:
        raise DataError(
            f"the certificates hold only where {listed(limits)}, and the report's attacker is not "
            "limited so; certify again"
        )
    answers = {c.input: c.answer for c in told.certificates}
    if not any(name in answers for name in inputs):
        raise DataError("the certificates are of other inputs than the report; certify again")
    # The votes of a smoothed classifier differ by chance: an attack on its own decides there.
    clean = () if told.method == "smoothing" else report.samples.clean_answer
    for place, (name, answer) in enumerate(zip(inputs, clean, strict=False)):
        if answers.get(name, answer) != answer:
            raise DataError(
                f"the certificates are of another model than the report: it answers sample {place} "
                f"with {answer}, and {answers[name]} was certified; certify again"
            )


def _check_trees(report: Report, told: Certificates, model: Model | None) -> None:
    """Raise DataError where the model, which came from no file, is not known by its trees."""
    forest = told.engine.get("forest")
    if forest is None or model is None:
        raise DataError(
            f"the model, a {told.model['kind']}, has no digest to tell it from another, so that "
            "nothing is said of attacks and proofs together; give it as a file, of kind torch, "
            "onnx or sklearn"
        )
    if forest != digest_of(forest_of(model, report.x)):
        raise DataError("the certificates are of other trees than the model's; certify again")


def _has_digest(told: dict[str, Any]) -> bool:
    """Whether all that a described model is made of can be told from something else."""
    parts = [*told.get("models", ()), *([told["model"]] if "model" in told else [])]
    return all(_has_digest(part) for part in parts) if parts else bool(told.get("digest"))


def _limits(region: str) -> list[str]:
    """What a region asks for besides its first ball."""
    return region.split(" and ")[1:]


def _fell(report: Report) -> Array:
    status = np.asarray(report.samples.status)
    return np.asarray((status == "fooled") | (status == "already wrong"))


def _confirmed(
    report: Report, found: list[Certificate | None], suspect: Array, model: Model | None
) -> Array:
    """Which suspects the smoothed classifier surely answers otherwise than certified, (N,)."""
    if not suspect.any():
        return suspect
    if not isinstance(model, SmoothedClassifier):
        raise DataError(
            f"{int(suspect.sum())} certified inputs fooled the votes that were attacked; give the "
            "SmoothedClassifier, so that more votes can decide"
        )
    rows = np.flatnonzero(suspect)
    x_adv = torch.from_numpy(np.ascontiguousarray(report.x_adv[rows])).to(device_of(model))
    with model.held():
        answer = model.predict(x_adv, draws=_DRAWS).answer
    proven = np.asarray([c.answer for c in (found[i] for i in rows) if c is not None])
    confirmed = np.zeros_like(suspect)
    confirmed[rows] = (answer >= 0) & (answer != proven)
    return confirmed


def _contradiction(
    report: Report, found: list[Certificate | None], fooled: Array, told: Certificates
) -> CertificateError:
    first = int(np.flatnonzero(fooled)[0])
    certificate = found[first]
    assert certificate is not None
    by = report.samples.attack[first] or "no attack at all"
    others = f" and {int(fooled.sum()) - 1} more" if fooled.sum() > 1 else ""
    chance = f" (or by chance, at most {told.alpha:g} each)" if told.alpha else ""
    return CertificateError(
        f"sample {first}{others} was certified within {certificate.radius:.6g} by "
        f"{certificate.method} and fooled within it by {by}: one of both is wrong{chance}; verify "
        "the certificates with `withstand certify --verify`, and report it"
    )


def _note(told: Certificates, found: list[Certificate], dismissed: int) -> str:
    what = "the smoothed classifier" if told.method == "smoothing" else "the model"
    words = (
        f"{_NOTE} is proven of {what} for {len(found):,} inputs with certificates: the true robust "
        "accuracy lies between it and the attacked one, and no attack contradicts a proof."
    )
    if dismissed:
        words += (
            f" {dismissed} certified inputs fooled the few votes that were attacked, and not "
            f"{_DRAWS:,} fresh ones: robust accuracy is lower than the smoothed classifier's."
        )
    return words


def _plainly(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
