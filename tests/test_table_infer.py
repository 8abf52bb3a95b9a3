"""A table's file proposed from data: what holds in all rows, and nothing that says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import ran
from processes import withstand

from withstand import WithstandError
from withstand.config import load_config, load_table
from withstand.data import Columns, columns_of, table_of
from withstand.data.schema import Proposal, lint, propose, table_text
from withstand.data.schema._choices import _runs

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))


def planted(rows: int = 3000) -> pd.DataFrame:
    """Columns with rules that were put there, and columns with none."""
    draw = np.random.default_rng(1)
    paid = draw.integers(0, 100, (rows, 4))
    device = draw.integers(0, 3, rows)
    few = draw.integers(0, 50, rows)
    x, y = np.round(draw.uniform(10, 500, rows), 2), np.round(draw.uniform(0, 50, rows), 2)
    plan = draw.choice(["basic", "pro", "none"], rows)
    seconds = draw.integers(0, 86400 * 60, rows)
    age = draw.integers(0, 3000, rows)
    quantity, price = draw.integers(1, 20, rows), np.round(draw.lognormal(3, 1, rows), 2)
    flag = draw.random(rows) < 0.3
    weights = draw.dirichlet([1, 1, 1], rows).astype(np.float32)
    frame = {
        "tx_id": np.arange(rows) + 1000,
        "quantity": quantity, "price": price, "total": np.round(quantity * price, 2),
        **{f"paid_{n}": paid[:, n] for n in range(4)}, "billed": paid.sum(1) + 1 + few * 4,
        **{f"dev_{name}": (device == n) * 1 for n, name in enumerate(("ios", "web", "android"))},
        "few": few, "more": few + draw.integers(0, 50, rows),
        "x": x, "y": y, "x and y": np.round(x + y, 2), "share": x / np.maximum(y, 1),
        "cents": np.rint(x * 100).astype(int), "again": few,
        "plan": plan, "fee": np.where(plan == "none", 0, draw.integers(5, 50, rows)),
        "seconds": seconds, "day": seconds // 86400,
        "age": age, "opened": np.datetime64("2026-01-01") - age.astype("timedelta64[D]"),
        "flag": flag, "used": np.where(flag, draw.integers(0, 9, rows), 0),
        **{f"w_{n}": weights[:, n] for n in range(3)},
        "bought": draw.integers(0, 40, rows) * 25, "noise": draw.normal(0, 1, rows),
        "constant": np.full(rows, 3), "code": np.full(rows, "007", object),
        "gap": np.where(np.arange(rows) == 17, np.nan, 1.5),
        "endless": np.where(np.arange(rows) == 9, np.inf, 1.5),
        "note": [f"text {n}" for n in range(rows)],
        "seen": pd.to_datetime("2026-01-01") + pd.to_timedelta(seconds, unit="s"),
        "scenario": np.where(price > 50, draw.integers(1, 4, rows), 0),
        "fraud": (price > 50) * 1,
    }  # fmt: skip
    return pd.DataFrame(frame)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "tx.parquet"
    planted().to_parquet(path)
    return path


@pytest.fixture(scope="module")
def proposal(parquet: Path) -> Proposal:
    return propose(parquet, "fraud")


def told(proposal: Proposal) -> dict[str, dict[str, Any]]:
    return {one.name: one.told for one in proposal.columns}


def test_types_ranges_and_grids_are_those_of_the_data(proposal: Proposal) -> None:
    frame, found = planted(), told(proposal)
    ends = {"lower": float(frame.price.min()), "upper": float(frame.price.max())}
    assert found["price"] == {"step": 0.01, **ends}
    assert found["few"] == {"integer": True, "lower": 0, "upper": 49}
    assert found["bought"] == {"integer": True, "step": 25, "lower": 0, "upper": 975}
    assert found["plan"] == {"values": ["basic", "none", "pro"]}
    assert found["flag"] == {"integer": True, "lower": 0, "upper": 1}
    assert found["opened"]["date"] is True
    assert found["noise"].keys() == {"lower", "upper"}
    assert "fraud" not in found


def test_what_nobody_should_change_is_told_why(proposal: Proposal) -> None:
    why = {one.name: one.why for one in proposal.columns if one.told.get("change") == "none"}
    assert why == {
        "tx_id": ("all different, as an id is",),
        "constant": ("the same in all rows",),
        "code": ("the same in all rows",),
        "scenario": ("tells the label in all rows: should the model see it?",),
    }


def test_what_cannot_be_told_is_left_out_and_named(proposal: Proposal) -> None:
    out = {one.name: one.left_out for one in proposal.left_out}
    assert set(out) == {"gap", "endless", "note", "seen"}
    assert out["gap"] == "is missing in 1 rows, first in row 17; fill it in, then add it"
    assert out["endless"] == "is infinite in 1 rows, first in row 9; fill it in, then add it"
    assert out["note"].startswith("has 3,000 different texts")
    assert out["seen"].startswith("has times of day")
    assert not {"gap", "endless", "note", "seen"} & proposal.config.features.keys()


def test_what_was_planted_is_found_and_nothing_else(proposal: Proposal) -> None:
    assert proposal.choices == (("dev_ios", "dev_web", "dev_android"),)
    assert {one.gives: one.value for one in proposal.derived} == {
        "total": "quantity * price",
        "x and y": "x + y",
        "share": "x / max(y, 1)",
        "cents": "100 * x",
        "again": "few",
        "day": "floor(seconds / 86400)",
        "opened": "date('2026-01-01') - age",
    }
    assert {one.text for one in proposal.relations} == {
        "sum(paid_*) <= billed",
        "few <= more",
        "sum(w_*) == 1 ~ 1e-05",
        "plan == 'none' -> fee == 0",
        "used > 0 -> flag >= 1",
    }
    assert proposal.more == 0


def test_one_row_outside_the_sample_is_enough_against_a_rule(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    low, one, two = draw.integers(0, 60, (3, 9000))
    frame = pd.DataFrame({"low": low, "high": low + two, "one": one, "both": one + low})
    frame.to_parquet(tmp_path / "a.parquet")
    whole = propose(tmp_path / "a.parquet")
    assert [one.text for one in whole.relations] == ["low <= high"]
    assert [one.gives for one in whole.derived] == ["both"]
    sampled = np.linspace(0, 8999, 4000).astype(int)
    row = next(row for row in range(9000) if row not in sampled)
    frame.loc[row, ["low", "high", "both"]] = [59, 0, 300]
    frame.to_parquet(tmp_path / "a.parquet")
    found = propose(tmp_path / "a.parquet")
    assert found.derived == ()
    assert {one.text for one in found.relations} == {"low <= both", "one <= both"}


def test_what_follows_from_others_is_not_said_again(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    parts = draw.integers(0, 100, (3000, 3))
    few = draw.integers(0, 50, 3000)
    more = few + draw.integers(0, 50, 3000)
    frame = pd.DataFrame({f"p_{n}": parts[:, n] for n in range(3)})
    frame["all"] = parts.sum(1) + draw.integers(0, 5, 3000)
    frame["few"], frame["more"], frame["most"] = few, more, more + draw.integers(0, 50, 3000)
    frame.to_parquet(tmp_path / "a.parquet")
    said = {one.text for one in propose(tmp_path / "a.parquet").relations}
    assert said == {"sum(p_*) <= all", "few <= more", "more <= most"}


def test_a_few_rows_are_no_evidence(tmp_path: Path) -> None:
    for rows, found in ((15, 0), (60, 1)):
        draw = np.random.default_rng(0)
        one, two = draw.integers(1, 60, (2, rows))
        frame = pd.DataFrame({"one": one, "two": two, "both": one + two})
        frame.to_parquet(tmp_path / "a.parquet")
        assert len(propose(tmp_path / "a.parquet").derived) == found


def test_the_cap_is_kept_and_told(parquet: Path) -> None:
    found = propose(parquet, "fraud", most=2)
    assert len(found.relations) == 2
    assert found.more == 3
    assert "# 3 more that hold are left out" in table_text(found)


def test_the_file_says_what_was_found_the_same_every_time(
    proposal: Proposal, parquet: Path, tmp_path: Path
) -> None:
    text = table_text(proposal)
    path = tmp_path / "table.yaml"
    path.write_text(text)
    assert load_table(path) == proposal.config
    assert text == table_text(propose(parquet, "fraud"))
    assert max(map(len, text.splitlines())) < 160
    assert "  tx_id: {change: none, integer: true, lower: 1000, upper: 3999}  # all diffe" in text
    assert "  # gap:    # left out: it is missing in 1 rows, first in row 17" in text
    assert "  # fraud is the label, and no feature.\n" in text
    assert "787 rows have used > 0; 552 of 3,000 rows would break it by chance" in text


def test_a_proposal_is_sound_and_all_rows_keep_it(proposal: Proposal, parquet: Path) -> None:
    table = table_of(proposal.config)
    rows = table.encode(columns_of(parquet, table))
    assert table.capability.wrong(rows) == []
    notes = {(one.check, one.where) for one in lint(proposal.config, table, Columns(parquet))}
    assert notes == {("constant", "constant"), ("constant", "code")}


NAMES = [
    "a", "b", "class", "odd name", "x.y", "Größe", "q`t", "1", "yes", "null", "a: b", "#c", "'s",
    "sum", "w_1", "w_2", "w_3", "x*", '"d"', "k_id", "- z", "t,u", "[v]", "~", "line\nbreak",
]  # fmt: skip


def random_frame(seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    rows = int(draw.choice([1, 2, 5, 60, 300]))
    start = np.datetime64("2020-01-01")
    made: dict[str, Any] = {}
    for name in draw.choice(NAMES, int(draw.integers(2, 9)), replace=False):
        numbers = [one for one in made.values() if one.dtype.kind in "iuf"]
        days = draw.integers(-9000, 900, rows).astype("timedelta64[D]")
        kinds: list[Any] = [
            draw.integers(-5, 60, rows), np.round(draw.normal(0, 100, rows), 2),
            draw.normal(0, 1, rows).astype(np.float32), draw.lognormal(0, 3, rows),
            draw.choice(["DE", "007", "a,b", 'say "hi"', "NA", "true", "# y", "[1]", "it's", "`",
                         "1e3", " p ", "x\ny", "- a", "a: b", "%", "{", "2026-01-31"], rows),
            start + days, (start + days).astype(str), draw.random(rows) < 0.3,
            np.full(rows, float(draw.choice([3, 0.1, 1e-9, -7]))), draw.random(rows) * 1e-30,
            draw.integers(0, 10**15, rows), np.where(draw.random(rows) < 0.2, np.nan, 1.5),
            np.maximum(draw.integers(-30, 10, rows), 0),
            numbers[0] * 1.0 if numbers else draw.random(rows),
            np.round(numbers[0] * 1.0 + numbers[-1], 2) if numbers else draw.random(rows),
        ]  # fmt: skip
        one = kinds[int(draw.integers(len(kinds)))]
        made[str(name)] = one.astype(object) if one.dtype.kind == "U" else one
    return pd.DataFrame(made)


def check_random(seed: int, folder: Path) -> None:
    """A proposal of any data is a file that reads, and that all of its rows keep."""
    frame = random_frame(seed)
    for ending in ("parquet", "csv"):
        path, file = folder / f"data.{ending}", folder / "table.yaml"
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
        try:
            found = propose(path)
        except WithstandError:
            # Nothing but columns with gaps, beside what is taken for the label by its name.
            assert frame.drop(columns="class", errors="ignore").isna().any().all()
            continue
        file.write_text(table_text(found), "utf-8")
        config = load_table(file)
        assert config == found.config
        table = table_of(config)
        columns = columns_of(path, table)
        assert table.capability.wrong(table.encode(columns)) == []
        problems = {one.check for one in lint(config, table, columns) if one.level == "problem"}
        assert problems <= {"single-precision", "nothing-changes"}


def test_a_proposal_of_any_data_reads_and_holds(tmp_path: Path) -> None:
    for seed in range(12):
        check_random(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_proposal_of_any_data_reads_and_holds_in_a_thousand_cases(tmp_path: Path) -> None:
    for seed in range(1000):
        check_random(seed, tmp_path)


def test_init_writes_both_files_and_overwrites_none(tmp_path: Path) -> None:
    planted(300)[["tx_id", "x", "y", "gap", "plan", "fraud"]].to_csv(
        tmp_path / "tx.csv", index=False
    )
    done = withstand("init", "--from", "tx.csv", "--target", "fraud", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "column 'gap' is left out: it is missing in 1 rows, first in row 17" in done.stderr
    spec = load_config(tmp_path / "withstand.yaml").data
    assert (spec.kind, spec.path, spec.y, spec.table) == ("csv", "tx.csv", "fraud", "table.yaml")
    written = {one.name: one.read_bytes() for one in tmp_path.glob("*.yaml")}
    done = ran("table", "check", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    done = ran("init", "--from", "tx.csv", "--target", "x", folder=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: table.yaml is already there; use --force to overwrite it\n",
    )
    done = ran("init", "--from", "tx.csv", "--target", "fruad", "--force", folder=tmp_path)
    assert done.returncode == 2
    assert "--target is 'fruad', did you mean 'fraud'" in done.stderr
    assert {one.name: one.read_bytes() for one in tmp_path.glob("*.yaml")} == written
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "table.yaml",
        "tx.csv",
        "withstand.yaml",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "y"), "--target goes with --from"),
        (("--table", "t.yaml"), "--table goes with --from"),
        (("--from", "no.csv"), "no.csv not found"),
        (("--from", "a.csv", "--table", "withstand.yaml"), "are both withstand.yaml"),
        (("--from", "a.csv"), "a.csv has no column that can be told: a is missing in 2 rows"),
    ],
)
def test_init_says_what_it_cannot_do(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "a.csv").write_text("a,label\n,1\n,0\n")
    done = ran("init", *words, folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_of_several_labels_none_is_guessed(tmp_path: Path) -> None:
    rows = "".join(f"{n % 5},{n % 2},{n % 3 // 2}\n" for n in range(40))
    (tmp_path / "a.csv").write_text(f"n,Status,fraud\n{rows}")
    done = ran("init", "--from", "a.csv", folder=tmp_path)
    assert done.returncode == 2
    said = "'fraud', 'Status' are all named as labels are; say which, e.g. --target fraud"
    assert said in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*.yaml"))
    assert propose(tmp_path / "a.csv", "Status").target == "Status"
    (tmp_path / "a.csv").write_text(f"n,other,CLASS\n{rows}")
    done = ran("init", "--from", "a.csv", folder=tmp_path)
    assert "'CLASS' is taken for the labels; else give --target" in done.stderr


def test_leading_zeros_make_a_text_however_late_they_come(tmp_path: Path) -> None:
    rows = "".join(f"{n % 7},{n}\n" for n in range(200_000))
    (tmp_path / "a.csv").write_text("code,n\n" + rows + "07,1\n")
    found = told(propose(tmp_path / "a.csv"))
    assert found["code"] == {"values": ["0", "07", "1", "2", "3", "4", "5", "6"]}
    assert found["n"]["integer"] is True


def test_a_plus_sign_makes_a_text_of_its_column_and_of_no_other(tmp_path: Path) -> None:
    rows = "".join(f"{'+' * (n % 2)}{n % 4},{n / 2}\n" for n in range(60))
    (tmp_path / "a.csv").write_text("change,n\n" + rows)
    found = told(propose(tmp_path / "a.csv"))
    assert found["change"] == {"values": ["+1", "+3", "0", "2"]}
    assert found["n"] == {"step": 0.5, "lower": 0.0, "upper": 29.5}


def test_flags_that_are_rarely_set_are_no_sums(tmp_path: Path) -> None:
    """Nearly all of them are 0 in most rows, as any sum of them is."""
    flags = (np.random.default_rng(0).random((2000, 180)) < 0.002).astype(int)
    frame = pd.DataFrame(flags, columns=[f"flag {n} set" for n in range(180)])
    frame.to_parquet(tmp_path / "a.parquet")
    start = time.process_time()
    found = propose(tmp_path / "a.parquet")
    assert time.process_time() - start < 4
    assert not found.derived


def test_choices_side_by_side_are_found_however_wide_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    widths = (2, 40, 3, 35)
    parts = [np.eye(width, dtype=int)[draw.permutation(200) % width] for width in widths]
    names = [f"{chr(65 + n % 26)}{chr(101 + n // 26)}" for n in range(sum(widths))]
    frame = pd.DataFrame(np.concatenate(parts, 1), columns=names)
    frame.insert(2, "between", draw.integers(0, 2, 200))
    frame.to_parquet(tmp_path / "a.parquet")
    found = propose(tmp_path / "a.parquet").choices
    ends = np.cumsum(widths)
    assert [one[0] for one in found] == [names[0], *(names[end] for end in ends[:-1])]
    assert [len(one) for one in found] == list(widths)
    # Not every pair of ends is looked at.
    assert len(list(_runs(frame.to_numpy(np.float32), list(range(len(names) + 1))))) == 4


MILLION = """
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
draw, n = np.random.default_rng(0), 10**6
amount = np.round(draw.lognormal(3, 1, n).clip(1, 5000), 2)
usual = np.round(draw.lognormal(3, 0.5, n), 2)
count = draw.integers(0, 9, n)
columns = {
    "tx_id": np.arange(n),
    "country": pa.array(np.array(["DE", "FR", "PL", "AT"])[draw.integers(0, 4, n)]),
    "note": pa.array(np.char.add("customer ", draw.integers(0, 500_000, n).astype(str))),
    "amount": amount, "usual": usual, "ratio": amount / np.maximum(usual, 1),
    "count_1d": count, "count_7d": count + draw.integers(0, 30, n),
    **{f"v{k}": draw.normal(0, 1, n) for k in range(20)},
    "opened": np.datetime64("2026-01-01") - draw.integers(0, 3000, n).astype("timedelta64[D]"),
    "fraud": (amount > 60) * 1,
}
pq.write_table(pa.table(columns), "big.parquet")
"""
USE = """
import json, resource
import numpy as np, torch
from pathlib import Path
from withstand import attacks
from withstand.cli._init import init
from withstand.config import load_config
from withstand.data import load
from withstand.models import FunctionModel
from withstand.threat import Threat

init(config=Path("withstand.yaml"), force=False, source=Path("big.parquet"), target="fraud",
     table=None)
data = load(load_config("withstand.yaml").data)
place = data.table.capability.index["amount"]

def scores(x):
    margin = x[:, place].astype(float) / 60 - 1
    return np.stack([-margin, margin], 1)

model = FunctionModel(scores, domain=data.table.domain)
x = torch.from_numpy(data.x[:1000])
y = model.labels(x)
search = attacks.TableSearch(generations=10, children=12)
threat = Threat(region=data.table.capability, access="scores")
result = attacks.run(search, model, x, y, threat)
assert data.table.capability.contains(x, result.x_adv.numpy()).all()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"peak_gib": peak, "rows": len(data), "fooled": int(result.success.sum()),
                  "derived": [one.text for one in data.table.capability.derived],
                  "relations": [one.text for one in data.table.capability.relations]}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_rows_fit_into_4_gib(tmp_path: Path) -> None:
    for program in (MILLION, USE):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 10**6
    assert found["fooled"] > 900
    assert found["derived"] == ["amount / usual"]
    assert found["relations"] == ["count_1d <= count_7d"]
    assert found["peak_gib"] < 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "rules"),
    [
        ("phishing_url", "label", {"longest_word_path <= longest_words_raw",
                                   "length_hostname <= length_url"}),
        ("fraud_handbook_2018-07-11_08-14", "TX_FRAUD", {
            "CUSTOMER_ID_NB_TX_7DAY_WINDOW <= CUSTOMER_ID_NB_TX_30DAY_WINDOW",
            "TERMINAL_ID_RISK_1DAY_WINDOW > 0 -> TERMINAL_ID_RISK_7DAY_WINDOW > 0"}),
        ("adult", "income", {"education == 'HS-grad' -> education_num == 9"}),
        ("nsl_kdd_train20", "attack", {"flag == 'S0' -> src_bytes == 0"}),
    ],
)  # fmt: skip
def test_real_tables_are_proposed(tmp_path: Path, name: str, target: str, rules: set[str]) -> None:
    path = DATA / "tabular" / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"no tabular/{name}.parquet in {DATA}; set WITHSTAND_DATA")
    found = propose(path, target)
    assert rules <= {one.text for one in found.relations}
    (tmp_path / "table.yaml").write_text(table_text(found))
    assert yaml.safe_load((tmp_path / "table.yaml").read_text())
    table = table_of(load_table(tmp_path / "table.yaml"))
    assert table.capability.contains(*(table.encode(columns_of(path, table)),) * 2).all()


def test_texts_of_any_script_are_written_as_they_are_and_read_back(tmp_path: Path) -> None:
    texts = ["Österreich", "日本", "😀 x", "a\x85b", "a\u2028b", 'q"uo\\te', "yes", "\x7f"]
    frame = pd.DataFrame({"naïve 😀": texts * 10, "amount": range(80), "fraud": [0, 1] * 40})
    frame.to_parquet(tmp_path / "t.parquet")
    written = table_text(propose(tmp_path / "t.parquet", "fraud"))
    (tmp_path / "table.yaml").write_text(written, encoding="utf-8")
    read = table_of(load_table(tmp_path / "table.yaml"))
    (feature,) = (one for one in read.capability.features if one.name == "naïve 😀")
    assert set(feature.labels or ()) == set(texts)
    assert "Österreich" in written
