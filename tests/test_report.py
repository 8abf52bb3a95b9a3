"""What a report says, in JSON, on the page and on the console."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from withstand import WithstandError
from withstand.data import from_arrays
from withstand.evaluate import (
    Report,
    check_writable,
    evaluate,
    headline,
    page,
    report_schema,
    show,
)
from withstand.evaluate._chart import chart
from withstand.stats import wilson
from withstand.threat import L0, Frozen, Linf, Threat

HOSTILE = "<script>alert(1)</script>"


def _around(value: float) -> list[float]:
    """A value and its two neighbours."""
    return [float(np.nextafter(value, 0)), value, float(np.nextafter(value, np.inf))]


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


def test_settings_of_other_attacks_do_not_lose_the_report(report: Report) -> None:
    odd = {"radius": np.float32(0.5), "steps": np.int64(3), "file": Path("a"), "far": np.inf}
    stages = (dataclasses.replace(report.attacks[0], settings=odd), *report.attacks[1:])
    content = json.loads(dataclasses.replace(report, attacks=stages).to_json())
    jsonschema.validate(content, report_schema())
    told = content["attacks"][0]["settings"]
    assert told == {"radius": 0.5, "steps": 3, "file": "a", "far": None}


def test_the_page_is_self_contained_and_escapes_what_users_name(report: Report) -> None:
    html = page({"": report})
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", html)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    assert html.count("data:image/png;base64,") >= 9
    assert "fools at least" in html
    assert "at most" in html
    assert f"{100 * report.robust_accuracy.value:.1f}&nbsp;%" in html
    assert "withstand evaluate --preset smoke --seed 0" in html


class _Outline(HTMLParser):
    """What a reader of the page depends on: nesting, names of pictures, heads of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found[tag] += 1
        if tag not in ("meta", "img", "br", "line", "polyline", "polygon"):
            self.open.append(tag)
        if tag == "img":
            assert named["alt"]
        if tag == "svg":
            assert named.get("aria-labelledby") or named.get("aria-hidden")
        if tag == "th":
            assert named["scope"] in ("col", "row")
        if named.get("class") == "scroll" or tag == "pre":
            assert named["tabindex"] == "0"
            assert named["aria-label"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("names", [("",), ("standard", "hardened")])
def test_the_page_can_be_read_without_eyes_and_mouse(
    names: tuple[str, ...], report: Report
) -> None:
    outline = _Outline()
    outline.feed(page(dict.fromkeys(names, report)))
    assert not outline.open
    assert outline.found["h1"] == outline.found["main"] == 1
    assert outline.found["table"] == outline.found["thead"] == outline.found["tbody"]
    assert outline.found["section"] == len(names)


def _light(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_its_ground_by_day_and_by_night(report: Report) -> None:
    schemes = re.findall(r":root \{(.*?)\}", page({"": report}), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        assert len(colours) == 14
        for ground in ("page", "card"):
            for text in colours.keys() - {"page", "card", "line"}:
                pair = sorted((_light(colours[ground]), _light(colours[text])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)


def test_a_page_of_a_thousand_large_pictures_stays_small(report: Report) -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(1000) % 60
    x = np.zeros((1000, 3, 224, 224), np.float32)
    x[:60] = rng.random((60, 3, 224, 224))
    x_adv = np.zeros_like(x)
    x_adv[:60] = 1 - x[:60]
    samples = {
        f.name: np.asarray(getattr(report.samples, f.name))[rows]
        for f in dataclasses.fields(report.samples)
    }
    large = dataclasses.replace(
        report,
        x=x,
        x_adv=x_adv,
        samples=dataclasses.replace(report.samples, **samples),
        groups=report.groups * 500,
    )
    assert len(page({"": large})) < 1_500_000


@pytest.mark.parametrize("longest", [v for k in range(-6, 7) for v in _around(4 * 10.0**k)])
def test_every_radius_has_its_axis(longest: float, report: Report) -> None:
    curve = tuple(
        dataclasses.replace(point, eps=longest * i / (len(report.curve) - 1))
        for i, point in enumerate(report.curve)
    )
    drawn = chart({"": dataclasses.replace(report, curve=curve)})
    assert drawn is not None
    assert 4 <= len(drawn.across) <= 11
    assert all(drawn.left <= x <= drawn.right for x, _ in drawn.across)


def test_the_headline_says_what_was_found(report: Report) -> None:
    def said(fooled: int, n: int, **threat: Any) -> str:
        return headline(
            {
                "": dataclasses.replace(
                    report, fooling_rate=wilson(fooled, n), threat={**report.threat, **threat}
                )
            }
        )

    assert said(1, 2) == (
        "An attacker who knows the model and its gradients and may change every pixel by up to 0.1 "
        "fools at least 50.0 % of the inputs that the model gets right."
    )
    assert "fooled none of the 7 inputs" in said(0, 7)
    assert "nothing to fool" in said(0, 0)
    assert "at least 99.9 % of" in said(9999, 10000)
    assert "at least 0.01 % of" in said(1, 10000)
    frozen = Threat(region=Linf(0.1) & Frozen((1, 2)), access="labels", queries=5000).describe()
    assert said(1, 2, **frozen).startswith(
        "An attacker who sees only the model's answers, may ask 5,000 times and may change every "
        "pixel by up to 0.1 (2 features are frozen) fools"
    )
    assert "change up to 3 pixels of an input" in said(1, 2, **Threat(region=L0(3)).describe())


def test_several_reports_share_one_page(report: Report) -> None:
    html = page({"standard": report, "hardened": report})
    assert html.count("<polyline") == 2
    assert html.count("<h1>") == 1
    assert "gets right and" in html


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


def test_a_page_that_cannot_be_made_leaves_the_files_as_they_were(
    report: Report, tmp_path: Path
) -> None:
    report.save(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        dataclasses.replace(report, domain=None).save(tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


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


@pytest.mark.parametrize("name", ["[/x]", "[red]a[/red]", ":smile:", "\x1b[31ma\x07", "a\u202eb"])
def test_names_neither_break_nor_steer_the_terminal(name: str, report: Report) -> None:
    named = [dataclasses.replace(c, name=name) for c in report.classes]
    file = io.StringIO()
    show(dataclasses.replace(report, classes=tuple(named)), Console(width=80, file=file))
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    assert re.search(rf"worst class +{re.escape(shown)}, ", file.getvalue())
    assert "\x1b" not in file.getvalue()


def test_a_terminal_without_unicode_gets_plain_bars(report: Report) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    named = [dataclasses.replace(c, name="a") for c in report.classes]
    show(dataclasses.replace(report, classes=tuple(named)), Console(width=80, file=file))
    file.flush()
    assert b"##########" in raw.getvalue()
