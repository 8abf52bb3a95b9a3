"""Flagged inputs that wait for somebody's verdict."""

from __future__ import annotations

from ..._errors import OperationError
from ...respond import Verdict
from ...respond import review as judged
from .._picture import looks_like_picture
from .._site import Site
from .._web import Ask, Done, Page, Route
from ._rows import Row, attempt, search
from ._samples import one_of

_SHOWN = 24
_VERDICTS: dict[str, Verdict] = {"release": "benign", "confirm": "adversarial"}


def queue(site: Site, ask: Ask) -> Page:
    """Inputs that were flagged and that nobody has looked at, each once, newest first."""
    known = {one.fingerprint: one for one in site.reviews.all()}

    def waits(one: Row) -> bool:
        return bool(one.fingerprint) and one.fingerprint not in known and not one.experiment

    def enough(rows: list[Row]) -> bool:
        return len({one.fingerprint for one in rows}) >= _SHOWN

    (rows, more), broken = attempt(
        lambda: search(site, waits, enough, decision="flag"), ([], False)
    )
    waiting: dict[str, list[Row]] = {}
    for one in rows:
        waiting.setdefault(one.fingerprint, []).append(one)
    shown = list(waiting.values())[:_SHOWN]
    values = {
        "here": "review",
        "waiting": [(mine[0], len(mine), _seen(site, mine[0])) for mine in shown],
        "left": len(waiting),
        "more": more,
        "reviews": list(reversed(known.values()))[:50],
        "benign": sum(one.verdict == "benign" for one in known.values()),
        "adversarial": sum(one.verdict == "adversarial" for one in known.values()),
        "broken": broken,
    }
    return Page("review.html.j2", "Quarantine review", values)


def review(site: Site, ask: Ask) -> Done:
    """Release an input as benign, or confirm that it is adversarial."""
    fingerprint, verdict = ask.form.get("fingerprint", ""), ask.form.get("verdict", "")
    if verdict not in _VERDICTS:
        raise OperationError(f"verdict is {verdict[:32]!r}; give release or confirm")
    label = ask.form.get("label", "").strip()
    if label and not (label.isascii() and label.isdecimal() and len(label) < 7):
        raise OperationError(f"the true class is {label[:32]!r}; give its number, or nothing")
    judged(
        site.desk, fingerprint, _VERDICTS[verdict], who=ask.account.name, role=ask.account.role,
        why=ask.form.get("why", "").strip()[:1000], label=int(label) if label else None,
    )  # fmt: skip
    text = "released as benign" if verdict == "release" else "confirmed as adversarial"
    back = ask.form.get("back", "")
    return Done(
        f"input {fingerprint[:10]} is {text}", back if back.startswith("/samples/") else "/review"
    )


def _seen(site: Site, row: Row) -> bool:
    """Whether there is a picture of it."""
    if site.inputs is None:
        return False
    values = one_of(site.inputs.of(row.record).tensors, {"tensor": 0, "row": 0})
    return values is not None and looks_like_picture(values)


ROUTES = (
    Route(path="/review", answer=queue),
    Route(path="/review", answer=review, role="responder", action="review",
          about="input:{fingerprint}"),
)  # fmt: skip
