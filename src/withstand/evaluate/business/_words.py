"""What happened to a table, in sentences for those whose money it is."""

from __future__ import annotations

from ..._errors import one_line
from ...stats import Interval
from ._business import Business, Money, Typical, Weakness

_NAMED = 3


def number(value: float) -> str:
    """A figure as people write it: whole thousands, cents below, a few digits where it is tiny."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.2f}".removesuffix(".00")


def amount(value: float, currency: str) -> str:
    """A sum with its currency, if it has one."""
    return f"{number(value)} {one_line(currency, 12)}".strip()


def limits(business: Business) -> str:
    """What an attacker may spend on a row, as the beginning of a sentence."""
    parts = []
    if business.most_cost is not None:
        parts.append(f"{'' if business.currency else 'a cost of '}{_limit(business)}")
    if business.most_changed is not None:
        parts.append(_count(business.most_changed, "changed feature"))
    return f"With up to {' and '.join(parts)} a row" if parts else "With no limit on a row's cost"


def attacker_can(business: Business) -> str:
    """What the attacker may do, after 'may'."""
    words = f"change {business.changeable:,} of {_count(business.features_total, 'feature')}"
    if business.most_changed is not None:
        words += f" and {business.most_changed:,} in a row"
    if business.most_cost is not None:
        words += f" for up to {_limit(business)} a row"
    if business.relations:
        holds = "hold" if business.relations > 1 else "holds"
        words += f" while {_count(business.relations, 'relation')} {holds}"
    return words


def paragraph(business: Business) -> str:
    """What got through, what it took, what gave way, and whether it pays."""
    if not business.caught:
        return "The model gets no row right, so there is nothing to get through."
    told = [_through(business)]
    if business.fooled:
        told += [_effort(business), _ways(business)]
        if business.money is not None:
            told += _worth(business, business.money)
        if business.classes > 1:
            told.append(
                f"These are rows of {business.classes:,} classes; to attack those of one alone, "
                "such as frauds, set data.only."
            )
        told.append("This is the least: a better search gets more through, or for less.")
    if business.money is not None and business.money.unknown:
        told.append(
            f"{_count(business.money.unknown, 'row')} with a stake that is no number of at least 0 "
            "are left out of all money."
        )
    return " ".join(told)


def effort(business: Business) -> list[tuple[str, str]]:
    """What the attack took of the attacker, as names and figures."""
    found = []
    if business.cost is not None:
        found.append(("cost to the attacker", spread(business.cost, business.currency)))
    if business.changed is not None:
        found.append(("features changed", spread(business.changed)))
    return found


def spread(found: Typical, unit: str = "") -> str:
    """A median and the largest value, in a unit."""
    return f"median {amount(found.median, unit)}, at most {amount(found.largest, unit)}"


def giving_way(business: Business, most: int = _NAMED) -> str:
    """The features that changed in most of the fooled rows; empty where there are none."""
    changed = [one for one in business.features if one.share.n and one.share.value > 0]
    named = [f"{one_line(one.feature, 40)} ({share(one.share)})" for one in changed[:most]]
    more = len(changed) - len(named)
    return ", ".join(named) + (f", and {more:,} more" if more > 0 else "")


def share(found: Interval) -> str:
    """A share as a percentage, which rounding never makes 0 or 100 when it is not."""
    text = f"{100 * found.value:.1f}".removesuffix(".0")
    if text == "0" and found.value > 0:
        text = f"{100 * found.value:.1g}"
    return f"{'99.9' if text == '100' and found.value < 1 else text} %"


def change(one: Weakness) -> str:
    """How a feature was changed, in its own terms."""
    if one.size is None:
        told = [f"{_cut(m.before)} to {_cut(m.after)} ({m.count:,})" for m in one.moves[:_NAMED]]
        rest = one.others + sum(move.count for move in one.moves[_NAMED:])
        return "; ".join([*told, *([f"others ({rest:,})"] if rest else [])])
    ways = [(one.raised, "raised"), (one.lowered, "lowered")]
    told = [f"{word} in {n:,}" for n, word in ways if n]
    return f"{' and '.join(told)}, {spread(one.size, one.unit)}"


def over(money: Money) -> str:
    """What the intervals of money take as drawn one by one."""
    if money.groups is None:
        return "rows taken as independent"
    return f"over {_count(money.groups, 'group')} of rows"


def _through(business: Business) -> str:
    money = business.money
    if not business.fooled:
        held = f", with {_sum(money.caught, business)} at stake" if money else ""
        return (
            f"{limits(business)}, the attacks tried here got none of the {business.caught:,} rows "
            f"through that the model gets right{held}."
        )
    words = (
        f"{limits(business)}, an attacker gets {business.fooled:,} of the "
        f"{_count(business.caught, 'row')} through that the model gets right without an attack"
    )
    if money is None or not money.rate.n:
        return f"{words}."
    return (
        f"{words}, and with them {_sum(money.passed, business)} of the "
        f"{_sum(money.caught, business)} at stake in those: {share(money.rate)} of the money "
        f"(95 % interval {100 * money.rate.low:.1f} to {100 * money.rate.high:.1f}, {over(money)})."
    )


def _effort(business: Business) -> str:
    assert business.changed is not None
    median = business.changed.median
    words = f"It takes {number(median)} changed feature{'' if median == 1 else 's'}"
    if business.cost is not None:
        words += f" and {_sum(business.cost.median, business)}"
    words += " in a typical row"
    if business.cost is not None:
        words += f", {_sum(business.cost.largest, business)} in the dearest"
    return f"{words}."


def _ways(business: Business) -> str:
    named = giving_way(business)
    return f"What gives way, by the share of these rows in which it changed: {named}."


def _worth(business: Business, money: Money) -> list[str]:
    told = []
    if money.passed_changed != money.passed:
        told.append(
            f"As they were handed in, after the changes, those rows are worth "
            f"{_sum(money.passed_changed, business)}."
        )
    if money.paying is not None and money.profit is not None and money.paying.n:
        paying = round(money.paying.value * money.paying.n)
        told.append(
            f"It pays for {paying:,} of them, which bring {_sum(money.profit, business)} more "
            "than they cost."
            if paying
            else "It pays for none of them: each costs at least what it brings."
        )
    return told


def _limit(business: Business) -> str:
    return _sum(business.most_cost or 0.0, business)


def _sum(value: float, business: Business) -> str:
    return amount(value, business.currency)


def _cut(text: str) -> str:
    return one_line(text, 30)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
