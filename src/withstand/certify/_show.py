"""Certificates as text for a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from .._errors import listed
from ._certificate import Certificates


def show(told: Certificates, console: Console) -> None:
    """Print what is proven, of what, and what it took."""
    share, threat = told.certified_accuracy, told.threat
    console.print(f"certified accuracy, at least: {share}", style="bold", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("proven", f"the answer is right, and stays so within {threat['region']}")
    table.add_row("of", _of(told))
    table.add_row("inputs", ", ".join(f"{n:,} {word}" for word, n in _outcomes(told)))
    if told.method == "smoothing":
        draws = [c.draws or 0 for c in told.certificates]
        mean = sum(draws) / max(len(draws), 1)
        table.add_row(
            "draws",
            f"{mean:,.0f} an input on average, {max(draws, default=0):,} at most, besides the "
            f"{told.settings['select']:,} that choose its answer: {told.forwards:,} forwards",
        )
        table.add_row(
            "sure", f"each certificate is wrong with a probability of at most {told.alpha:g}"
        )
    else:
        if told.method == "trees":
            table.add_row("decided", _decided(told))
        methods = Counter(c.method for c in told.certificates if c.outcome == "certified")
        table.add_row("proven by", ", ".join(f"{n:,} {m}" for m, n in methods.items()) or "nothing")
        table.add_row("sure", f"a proof: no chance in it, {_rounding(methods['programme'])}")
    if told.left_out:
        table.add_row("left out", _left_out(told))
    for radius in told.settings.get("radii", ()):
        table.add_row(f"at {radius:g}", str(told.at_least(radius)))
    console.print(table, highlight=False)


def _of(told: Certificates) -> str:
    if told.method != "smoothing":
        return "the model itself"
    sigma = told.settings["sigma"]
    return (
        f"its smoothed classifier (Gaussian noise, sigma {sigma:g}, most frequent answer), not the "
        "model itself"
    )


def _rounding(solved: int) -> str:
    words = "and floating-point rounding is taken off"
    return f"{words}; {solved:,} by programme rest on the solver's word" if solved else words


def _decided(told: Certificates) -> str:
    each = Counter(c.outcome for c in told.certificates)
    return (
        f"{each['certified']:,} by a proof, {each['not certified']:,} by a row that fools the "
        f"model, {each['abstained']:,} not within {told.settings['seconds']:g} s"
    )


def _left_out(told: Certificates) -> str:
    return (
        f"{listed(told.left_out, 3)}: not linear, so that a proof does without and holds all the "
        "same; a row may stay undecided"
    )


def _outcomes(told: Certificates) -> list[tuple[str, int]]:
    return Counter(str(c.outcome) for c in told.certificates).most_common()
