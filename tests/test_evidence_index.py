"""The index finds what reading the whole log would, and is never believed more than the log."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from withstand._errors import ConfigError
from withstand.cli._main import app
from withstand.evidence.log import Break, Index, Log, Query, Record, indexed, read, verify

TENANTS, DECISIONS = ("acme", "other", "acme' OR '1'='1"), ("pass", "flag", "refuse")


def written(folder: Path, n: int = 60, seed: int = 0, **options: Any) -> Path:
    rng = random.Random(seed)
    with Log(folder, group=4, segment_bytes=2000, **options) as log:
        for number in range(n):
            log.append({
                "tenant": rng.choice(TENANTS), "key": f"k{rng.randrange(5)}",
                "decision": rng.choice(DECISIONS), "fingerprint": f"f{rng.randrange(9)}",
                "number": number,
            })  # fmt: skip
            if number % 5 == 4:
                log.flush()
    return folder


def records(folder: Path) -> list[Record]:
    return [place.record for place in read(folder) if not isinstance(place, Break)]


def queries(folder: Path) -> list[Query]:
    walls = sorted(record.wall for record in records(folder))
    middle, late = walls[len(walls) // 3], walls[-5]
    found = [Query(), Query(kind="boot"), Query(kind="nothing"), Query(tenant="nobody")]
    found += [Query(tenant=one) for one in TENANTS]
    found += [Query(tenant="acme", decision=one, since=middle, until=late) for one in DECISIONS]
    found += [Query(key="k1", fingerprint="f2"), Query(since=late), Query(until=middle)]
    return found


def same(folder: Path) -> bool:
    index, everything = Index(folder), records(folder)
    assert index.update() is None
    for query in queries(folder):
        wanted = [record for record in everything if query.matches(record)]
        assert index.find(query) == wanted
        assert index.find(query, 3) == wanted[-3:]
    return True


def test_it_finds_what_reading_everything_finds(tmp_path: Path) -> None:
    assert indexed(tmp_path, Query()) is None
    folder = written(tmp_path)
    assert len(list(folder.glob("*.log"))) > 3
    assert same(folder)
    written(folder, 20, seed=1)
    assert same(folder)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    Index(folder).update()
    before = len(records(folder))
    written(folder, 10, seed=1)
    walked = []
    real = Index._updated.__globals__["walk"]

    def counting(*words: Any) -> Any:
        for place in real(*words):
            walked.append(place)
            yield place

    monkeypatch.setitem(Index._updated.__globals__, "walk", counting)
    Index(folder).update()
    assert len(walked) == len(records(folder)) - before


@pytest.mark.parametrize("damage", ["garbage", "shifted", "renumbered", "emptied", "other log"])
def test_an_index_that_does_not_fit_is_made_anew_or_not_used(tmp_path: Path, damage: str) -> None:
    folder = written(tmp_path / "log")
    index = Index(folder)
    index.update()
    if damage == "garbage":
        index.path.write_bytes(b"not a database" * 1000)
    elif damage == "other log":
        kept = index.path.read_bytes()
        shutil.rmtree(folder)
        written(folder, 70, seed=5)
        index.path.write_bytes(kept)
    else:
        change = {
            "shifted": "UPDATE records SET begin = begin + 1",
            "renumbered": "UPDATE records SET seq = seq + 1000",
            "emptied": "DELETE FROM records",
        }[damage]
        with sqlite3.connect(index.path) as connection:
            connection.execute(change)
        connection.close()
    assert same(folder)
    assert verify(folder).faults == ()


def test_a_log_that_a_crash_has_cut_back_is_indexed_anew(tmp_path: Path) -> None:
    folder = written(tmp_path)
    Index(folder).update()
    last = sorted(folder.glob("*.log"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    Log(folder).close()
    assert same(folder)


def test_an_index_never_shows_rows_of_other_tenants(tmp_path: Path) -> None:
    folder = written(tmp_path)
    Index(folder).update()
    with sqlite3.connect(Index(folder).path) as connection:
        connection.execute("UPDATE records SET tenant = 'acme'")
    connection.close()
    found = indexed(folder, Query(tenant="acme"))
    assert found is not None
    assert {record.content["tenant"] for record in found} == {"acme"}


def show(folder: Path, *words: str) -> list[dict[str, Any]]:
    told = CliRunner().invoke(
        app, ["evidence", "show", str(folder), "--json", "--last", "999", *words]
    )
    assert told.exit_code == 0, told.output
    found: list[dict[str, Any]] = json.loads(told.stdout)
    return found


def test_a_key_is_found_by_its_beginning_with_and_without_it(tmp_path: Path) -> None:
    keys = ["a1" * 32, "a1" * 4 + "b" * 56, "a1" * 3 + "c" * 58, "a1" * 3, None, 7]
    with Log(tmp_path) as log:
        for key in keys:
            log.append({"key": key})

    def found() -> list[list[Any]]:
        asked = ("a1" * 32, "a1" * 8, "a1" * 4, "a1" * 3, "a1" * 3 + "a", "b" * 8)
        return [[one["content"]["key"] for one in show(tmp_path, "--key", key)] for key in asked]

    # Less than 8 characters are a whole key, or none.
    wanted = [keys[:1], keys[:1], keys[:2], ["a1" * 3], [], []]
    assert found() == wanted
    assert CliRunner().invoke(app, ["evidence", "index", str(tmp_path)]).exit_code == 0
    assert found() == wanted


def test_a_decision_that_no_record_has_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    told = CliRunner().invoke(app, ["evidence", "show", str(folder), "--decision", "bogus"])
    assert isinstance(told.exception, ConfigError)
    assert str(told.exception) == "--decision is 'bogus'; it is pass, flag or refuse"


def test_the_command_line_shows_the_same_with_and_without_it(tmp_path: Path) -> None:
    folder = written(tmp_path)
    when = show(folder)[30]["wall"]
    moment = datetime.fromtimestamp(when).astimezone().isoformat()
    asked = [
        ("--tenant", "acme"), ("--tenant", "acme", "--where", "tenant=other"),
        ("--tenant", TENANTS[2], "--decision", "flag"), ("--key", "k1", "--last", "2"),
        ("--since", moment, "--key", "k2"), ("--until", moment, "--where", "key=k2"),
    ]  # fmt: skip
    without = [show(folder, *words) for words in asked]
    assert without[1] == []
    assert {record["content"]["tenant"] for record in without[2]} == {TENANTS[2]}
    told = CliRunner().invoke(app, ["evidence", "index", str(folder)])
    assert told.exit_code == 0
    written(folder, 0, seed=1)
    assert [show(folder, *words) for words in asked] == without
    # Changed since: what the index cannot vouch for is read, and said.
    first = min(folder.glob("*.log"))
    first.write_bytes(first.read_bytes().replace(b'"decision":"pass"', b'"decision":"flag"'))
    told = CliRunner().invoke(app, ["evidence", "show", str(folder), "--decision", "pass"])
    assert "was changed" in str(told.exception)
