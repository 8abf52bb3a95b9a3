"""Card transactions with three kinds of fraud, made up: run it to write the files of this folder.

Customers live somewhere, pay at the terminals around them, and have habits of amount, number and
hour. Frauds are of three kinds: 1, a stolen number pays for one large purchase; 2, a terminal is
compromised for four weeks, and most of what is paid there is fraud; 3, a card has leaked, and for
two weeks a third of what it pays for costs FACTOR times as much. The first two are often at night.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

FACTOR = 5.0
# Days until a fraud is known, as a bank learns of it: what is told of terminals is so old.
DELAY = 7
FIRST = np.datetime64("2026-01-01")
# The windows are not full before, and between the parts each fraud has become known.
TRAIN, VALIDATION, TEST = (40, 75), (82, 92), (99, 120)

COLUMNS = (
    "amount", "hour", "night", "weekend", "count_1d", "mean_1d", "count_7d", "mean_7d", "count_30d",
    "mean_30d", "ratio", "terminal_1d", "terminal_2_7d", "terminal_8_30d", "terminal_7d",
    "terminal_30d", "frauds_1d", "frauds_7d", "frauds_30d", "risk_1d", "risk_7d", "risk_30d",
)  # fmt: skip


def simulate(customers: int = 1000, days: int = 120, seed: int = 0) -> pd.DataFrame:
    """Transactions in the order of time, with the columns of the table, `kind` and `fraud`."""
    draw = np.random.default_rng(seed)
    table = _paid(draw, customers, days)
    _frauds(draw, table, customers, days)
    table = table.sort_values("time", kind="stable").reset_index(drop=True)
    day = np.floor(table.time).astype(int)
    table["day"] = day
    table["hour"] = np.floor((table.time - day) * 24).clip(0, 23).astype(int)
    table["night"] = (table.hour < 6).astype(int)
    date = FIRST + day.to_numpy().astype("timedelta64[D]")
    table["weekend"] = (~np.is_busday(date)).astype(int)
    single = np.float32
    for window in (1, 7, 30):
        count, total = _before(table.customer, table.time, table.amount, 0, window)
        table[f"count_{window}d"] = count
        table[f"mean_{window}d"] = np.round(total / np.maximum(count, 1), 2)
        count, frauds = _before(table.terminal, table.time, table.fraud, DELAY, window)
        table[f"terminal_{window}d"], table[f"frauds_{window}d"] = count, frauds.astype(int)
        table[f"risk_{window}d"] = (frauds / np.maximum(count, 1)).astype(single)
    table["terminal_2_7d"] = table.terminal_7d - table.terminal_1d
    table["terminal_8_30d"] = table.terminal_30d - table.terminal_7d
    # Of the numbers as models get them, in single precision.
    amount, usual = (table[one].astype(single).astype(float) for one in ("amount", "mean_30d"))
    table["ratio"] = (amount / np.maximum(usual, 1)).astype(single)
    return table[["time", "day", "customer", "terminal", *COLUMNS, "kind", "fraud"]]


def _paid(draw: np.random.Generator, customers: int, days: int) -> pd.DataFrame:
    """What the customers themselves pay; there are as many terminals as customers."""
    home, place = draw.uniform(0, 100, (2, customers, 2))
    usual, rate = draw.uniform(5, 100, customers), draw.uniform(0, 4, customers)
    far = ((home[:, None] - place[None]) ** 2).sum(2)
    near = np.argsort(far, axis=1)[:, : max(3, customers // 100)]
    many = draw.poisson(rate[:, None], (customers, days))
    customer = np.repeat(np.arange(customers), many.sum(1))
    day = np.concatenate([np.repeat(np.arange(days), one) for one in many])
    amount = draw.normal(usual[customer], usual[customer] / 2)
    amount = np.where(amount < 1, draw.uniform(1, 2 * usual[customer]), amount)
    hour = draw.normal(13, 4.5, len(day)) % 24
    return pd.DataFrame(
        {
            "time": day + hour / 24,
            "customer": customer,
            "terminal": near[customer, draw.integers(0, near.shape[1], len(day))],
            "amount": np.round(amount, 2),
            "kind": 0,
            "fraud": 0,
        }
    )


def _frauds(draw: np.random.Generator, table: pd.DataFrame, customers: int, days: int) -> None:
    """The three kinds, the later over the earlier."""
    time, amount = table.time.to_numpy().copy(), table.amount.to_numpy().copy()
    terminal, customer = table.terminal.to_numpy(), table.customer.to_numpy()
    kind = np.zeros(len(table), int)
    large = draw.random(len(table)) < 0.001
    amount[large] = np.round(draw.uniform(150, 600, int(large.sum())), 2)
    kind[large] = 1
    for day in range(days):
        for place in draw.choice(customers, draw.poisson(customers / 3000), replace=False):
            hit = (terminal == place) & (time >= day) & (time < day + 28)
            kind[hit & (draw.random(len(table)) < 0.8)] = 2
        for card in draw.choice(customers, draw.poisson(customers / 1000), replace=False):
            hit = (customer == card) & (time >= day) & (time < day + 14) & (kind != 3)
            chosen = hit & (draw.random(len(table)) < 1 / 3)
            amount[chosen] = np.round(FACTOR * amount[chosen], 2)
            kind[chosen] = 3
    dark = np.isin(kind, (1, 2)) & (draw.random(len(table)) < 0.3)
    time[dark] = np.floor(time[dark]) + draw.uniform(0, 0.25, int(dark.sum()))
    table["time"], table["amount"] = time, amount
    table["kind"], table["fraud"] = kind, (kind > 0).astype(int)


def _before(
    who: pd.Series, time: pd.Series, what: pd.Series, delay: float, window: float
) -> tuple[np.ndarray, np.ndarray]:
    """How many of the same there were in a window that ended a delay ago, and the sum over them."""
    key = who.to_numpy() * 1e4 + time.to_numpy() + 1e3
    order = np.argsort(key, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(what.to_numpy()[order])])
    first, last = (np.searchsorted(key[order], key - back) for back in (delay + window, delay))
    return last - first, total[last] - total[first]


def parts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """train, validation and test; some: train with ten benign ones for each fraud; benign:
    validation without frauds; leaked: frauds of leaked cards, and own: what these paid otherwise.
    """
    spans = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    found = {name: table[table.day.between(a, b - 1)] for name, (a, b) in spans.items()}
    frauds = found["train"].fraud == 1
    benign = found["train"][~frauds].sample(10 * int(frauds.sum()), random_state=0)
    found["some"] = pd.concat([found["train"][frauds], benign]).sort_values("time")
    found["benign"] = found["validation"][found["validation"].fraud == 0]
    found["leaked"] = table[table.kind == 3]
    found["own"] = table[(table.kind == 0) & table.customer.isin(found["leaked"].customer)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the example's transactions.")
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    for name, part in parts(simulate(asked.customers, seed=asked.seed)).items():
        part.to_parquet(asked.folder / f"{name}.parquet", index=False)
        told = f"{name}.parquet: {len(part)} transactions, {int(part.fraud.sum())} of them frauds\n"
        sys.stdout.write(told)


if __name__ == "__main__":
    main()
