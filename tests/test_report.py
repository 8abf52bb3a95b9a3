"""What a report says, in JSON, on the page and on the console."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from withstand import WithstandError
from withstand.data import from_arrays
from withstand.evaluate import Report, check_writable, evaluate, page, report_schema, show
from withstand.threat import Linf, Threat

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def report(digits: Any) -> Report:
    data = digits.data
    named = from_arrays(
        data.x,
        data.y,
        source=HOSTILE,
        classes=[HOSTILE, *(f"digit {i}" for i in range(1, 10))],
        groups=np.where(np.arange(60) % 2, HOSTILE, "b"),
    )
    costs = np.ones((10, 10)) - np.eye(10)
    threat = Threat(region=Linf(0.1))
    return evaluate(digits.model, named, threat, preset="smoke", severity=costs.tolist())


def test_the_json_fits_its_published_schema(report: Report) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads(report.to_json())
    jsonschema.validate(content, schema)
    main = (
        *("clean_accuracy", "robust_accuracy", "fooling_rate", "certified_accuracy", "trust"),
        *("curve", "attacks", "cost", "threat", "provenance"),
    )
    for key in main:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in content.items() if k != key}, schema)
    published = Path(__file__).parents[1] / "docs" / "reference" / "report.schema.json"
    assert json.loads(published.read_text()) == schema


def test_infinite_distances_are_null(report: Report) -> None:
    distances = json.loads(report.to_json())["samples"]["distance"]
    withstood = [s == "withstood" for s in report.samples.status]
    assert any(withstood)
    far = [not np.isfinite(d) for d in report.samples.distance]
    assert [d is None for d in distances] == far


def test_the_page_is_self_contained_and_escapes_what_users_name(report: Report) -> None:
    html = page({"": report})
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", html)
    assert "default-src 'none'" in html
    assert html.count("data:image/png;base64,") >= 9
    assert "fools at least" in html
    assert "at most" in html
    assert f"{100 * report.robust_accuracy.value:.1f} %" in html
    assert len(html) < 500_000


def test_several_reports_share_one_page(report: Report) -> None:
    html = page({"standard": report, "hardened": report})
    assert html.count("<polyline") == 2
    assert html.count("<h1>") == 1


def test_rows_of_features_are_shown_as_tables(digits: Any, report: Report) -> None:
    flat = dataclasses.replace(
        report,
        x=report.x.reshape(60, -1),
        x_adv=report.x_adv.reshape(60, -1),
        feature_names=tuple(f"pixel {i}" for i in range(64)),
    )
    html = page({"": flat})
    assert "data:image" not in html
    assert "pixel " in html


def test_files_are_whole_or_absent(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = report.save(tmp_path / "out")
    assert sorted(f.name for f in files) == ["adversarial.npz", "report.html", "report.json"]
    with np.load(files[2]) as arrays:
        assert np.array_equal(arrays["x_adv"], report.x_adv)
        assert arrays["fooled"].sum() == sum(s == "fooled" for s in report.samples.status)
    before = files[0].read_text()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WithstandError, match="No space left on device; free space"):
        report.save(tmp_path / "out")
    assert files[0].read_text() == before
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(f.name for f in files)


def test_a_folder_that_is_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(WithstandError, match="cannot be written") as caught:
        check_writable(tmp_path / "taken")
    assert "\n" not in str(caught.value)


def test_the_console_tells_the_story_in_80_columns(report: Report) -> None:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    show(report, console)
    text = console.export_text()
    assert "fools at least" in text
    assert re.search(r"robust accuracy +[\d.]+ % \[[\d.]+, [\d.]+\] +at most", text)
    assert "worst class" in text
    assert "trust: amber" in text
    assert max(map(len, text.splitlines())) <= 80
