"""The monitor's own burn rates and Prometheus's, on the same histories; and what is generated."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from withstand.monitor import RULES, Rule, Slo, Tally, burns
from withstand.monitor._alerting import BURN
from withstand.monitor.export import (
    alertmanager_config,
    dashboard,
    expressions,
    prometheus_rules,
    rules_text,
    sloth_slos,
    written,
)

MINUTE, HOUR = 60, 3600
SLOS = [
    Slo(name="strict", sli="M5", objective=0.999),
    Slo(name="usual", sli="M5", objective=0.99),
    Slo(name="loose", sli="M1", objective=0.95, least=20),
    Slo(name="few", sli="M1", budget=20),
    Slo(name="many", sli="M3", budget=2000, days=28),
]
ASKED = [30 * HOUR, 57 * HOUR, 84 * HOUR]
LENGTH = 84 * 60
"""A history is of 84 hours by the minute; the rules are asked at three times."""

Segments = list[tuple[int, int, int]]
"""Minutes, and events and bad ones in each."""


def history(slo: Slo, dice: random.Random) -> Segments:
    """Quiet traffic with attacks of every length and strength, some of which go on when asked."""
    base = dice.choice([1, 4, 30, 200])
    minutes: list[tuple[int, int]] = [(base, 0)] * LENGTH
    for _ in range(dice.randrange(12)):
        length = dice.choice([1, 1, 1, 5, 30, 120, 600, 2000])
        end = dice.choice(
            [dice.randrange(LENGTH), *(t // MINUTE - dice.randrange(8) for t in ASKED)]
        )
        if slo.budget is not None:
            worse = dice.choice([1, 1, 2, 10])
            every = dice.choice([1, 7, 60, 240])
        else:
            worse = max(1, round(base * dice.choice([0.01, 0.05, 0.2, 0.5, 1.0])))
            every = dice.choice([1, 1, 1, 5, 30])
        for at in range(max(0, end - length), max(0, end), every):
            events, bad = minutes[at]
            minutes[at] = (max(events, worse), min(max(events, worse), bad + worse))
    return [(len(list(run)), *rate) for rate, run in itertools.groupby(minutes)]


def buckets(segments: Segments) -> list[tuple[float, int, int]]:
    found: list[tuple[float, int, int]] = []
    for length, events, bad in segments:
        start = len(found)
        found += [(float(MINUTE * (start + n)), events, bad) for n in range(length)]
    return found


def samples(segments: Segments, which: int) -> str:
    """The counter as promtool reads it: its value each minute, beginning with 0."""
    told, total = ["0"], 0
    for segment in segments:
        length, rate = segment[0], segment[which]
        told.append(f"{total + rate}+{rate}x{length - 1}")
        total += length * rate
    return " ".join(told)


def sure(low: float, high: float, above: float) -> bool | None:
    """Whether a figure exceeds a limit, None where it may or may not."""
    return True if low > above else False if high <= above else None


def fires(slo: Slo, rule: Rule, tally: Tally, now: float) -> bool | None:
    """Whether a rule fires however Prometheus sees the counters, None within the margin.

    It sees one sample a minute. At each end of a window up to two of them may be out or in, and it
    then stretches what it sees to the window's length: by 2 minutes' share of it at most.
    """
    said: list[bool | None] = []
    for seconds in (rule.long, rule.short):
        seen = [
            tally.within(now - seconds + MINUTE * left, now - MINUTE * right)
            for left in (-1, 0, 1, 2)
            for right in (-1, 0, 1, 2)
        ]
        stretch = 1 + 2 * MINUTE / (seconds - 2 * MINUTE)
        rates = [slo.burn(bad, events, seconds) for events, bad in seen]
        low = min(0.0 if one is None else one for one in rates) / stretch
        high = max(0.0 if one is None else one for one in rates) * stretch
        said.append(sure(low, high, rule.above(slo)))
        if seconds == rule.long:
            many = [bad for _, bad in seen]
            said.append(sure(min(many) / stretch, max(many) * stretch, slo.least - 0.5))
    return False if False in said else None if None in said else True


def agreed(slo: Slo, tally: Tally) -> dict[tuple[int, str], bool] | None:
    """What fires when, None where that is within the margin at one of the times."""
    found = {}
    for now in ASKED:
        own = burns(slo, tally, now)
        for severity in ("page", "ticket"):
            said = [fires(slo, one, tally, now) for one in RULES if one.severity == severity]
            if True not in said and None in said:
                return None
            fire = any(one.fires for one in own if one.rule.severity == severity)
            assert fire == (True in said)
            found[now, severity] = fire
    return found


def compared(count: int, folder: Path, *, seed: int) -> tuple[int, int]:
    """Ask promtool about so many histories; how many more were within the margin, and alerts."""
    dice = random.Random(seed)
    series, expected, near = [], {now: [] for now in ASKED}, 0
    for n in itertools.count():
        slo = SLOS[n % len(SLOS)]
        segments = history(slo, dice)
        said = agreed(slo, Tally(buckets(segments)))
        if said is None:
            near += 1
            continue
        model = f"h{n}"
        for name, which in (("events", 1), ("bad", 2)):
            labels = f'slo="{slo.name}",sli="{slo.sli}",model="{model}"'
            told = f"withstand_sli_{name}_total{{{labels}}}"
            series.append({"series": told, "values": samples(segments, which)})
        for (now, severity), fire in said.items():
            if fire:
                labels_of = {"severity": severity, "slo": slo.name, "sli": slo.sli, "model": model}
                expected[now].append({"exp_labels": labels_of})
        if len(series) == 2 * count:
            break
    rules = prometheus_rules(SLOS)
    rules["groups"] = rules["groups"][: len(SLOS)]
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    asked = [
        {"eval_time": f"{now}s", "alertname": BURN, "exp_alerts": alerts}
        for now, alerts in expected.items()
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "3h",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": asked}],
    }
    (folder / "test.yml").write_text(json.dumps(test))
    done = promtool("test", "rules", str(folder / "test.yml"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return near, sum(map(len, expected.values()))


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return subprocess.run([found, *words], capture_output=True, text=True, check=False)


def test_prometheus_fires_as_the_monitor_does(tmp_path: Path) -> None:
    near, alerts = compared(5, tmp_path, seed=3)
    assert near <= 3
    assert alerts >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prometheus_fires_as_the_monitor_does_on_a_thousand_histories(tmp_path: Path) -> None:
    near, alerts = compared(1000, tmp_path, seed=7)
    assert near <= 100
    assert 1000 < alerts < 5000


def test_all_that_is_generated_is_sound(tmp_path: Path) -> None:
    paths = written(SLOS, tmp_path / "new")
    assert sorted(one.name for one in paths) == [
        "alertmanager.yml", "grafana.json", "sloth.yml", "withstand.rules.yml",
    ]  # fmt: skip
    assert not [one for one in (tmp_path / "new").iterdir() if one not in paths]
    shown = json.loads((tmp_path / "new" / "grafana.json").read_text())
    asked = list(expressions(shown))
    assert len(asked) > 30
    # What a dashboard asks is a rule's expression to promtool.
    # And so are the queries that Sloth asks in its windows.
    asked += [
        query.replace("{{.window}}", "5m")
        for slo in sloth_slos(SLOS)["slos"]
        for query in slo["sli"]["events"].values()
    ]
    rules = [{"record": f"dashboard:{n}", "expr": expr} for n, expr in enumerate(asked)]
    dashboards = tmp_path / "dashboard.yml"
    dashboards.write_text(yaml.safe_dump({"groups": [{"name": "d", "rules": rules}]}))
    for path in (tmp_path / "new" / "withstand.rules.yml", dashboards):
        done = promtool("check", "rules", str(path))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "duplicate" not in done.stdout + done.stderr
    names = {one["record"] for group in prometheus_rules(SLOS)["groups"] for one in group["rules"]
             if "record" in one}  # fmt: skip
    used = {expr.split("{")[0] for expr in asked if expr.startswith("withstand:")}
    assert used <= names


def form(needed: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": needed.split(),
        "additionalProperties": False,
    }  # fmt: skip


TEXT, TEXTS = (
    {"type": "string", "minLength": 1},
    {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
)
OWN = form("", disable={"type": "boolean"}, labels=TEXTS, annotations=TEXTS)
# The fields of prometheus/v1 that Sloth's documentation names, as far as they are written.
SLOTH = form(
    "version service slos", version={"const": "prometheus/v1"}, service=TEXT, labels=TEXTS,
    slos={"type": "array", "minItems": 1, "items": form(
        "name objective sli alerting", name={"type": "string", "pattern": r"^[A-Za-z0-9_.-]+$"},
        description=TEXT, labels=TEXTS,
        objective={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
        sli=form("events", events=form(
            "error_query total_query",
            error_query={"type": "string", "pattern": r"\[\{\{\.window\}\}\]"},
            total_query={"type": "string", "pattern": r"\[\{\{\.window\}\}\]"})),
        alerting=form("name", name=TEXT, labels=TEXTS, annotations=TEXTS, page_alert=OWN,
                      ticket_alert=OWN))},
)  # fmt: skip


def test_sloth_gets_the_same_promises_in_its_own_form(tmp_path: Path) -> None:
    written([*SLOS, Slo(name="one", sli="M5", objective=0.9995, model="digits")], tmp_path)
    text = (tmp_path / "sloth.yml").read_text()
    told = yaml.safe_load(text)
    jsonschema.validate(told, SLOTH)
    assert {one["name"]: one["objective"] for one in told["slos"]} == {
        "strict": 99.9, "usual": 99.0, "loose": 95.0, "one": 99.95,
    }  # fmt: skip
    # What it cannot say is said, and not left out in silence.
    assert "# few has a budget" in text
    assert "# many has a budget" in text
    (one,) = [slo for slo in told["slos"] if slo["name"] == "one"]
    assert one["alerting"]["labels"] == {"slo": "one", "sli": "M5", "model": "digits"}
    assert one["sli"]["events"]["error_query"] == (
        'sum(rate(withstand_sli_bad_total{slo="one"}[{{.window}}]))'
    )
    budgets = [slo for slo in SLOS if slo.budget is not None]
    assert "sloth.yml" not in {path.name for path in written(budgets, tmp_path / "none")}


def test_an_alertmanager_takes_the_routes(tmp_path: Path) -> None:
    found = shutil.which("amtool")
    if found is None:
        pytest.skip("amtool is not installed")
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager_config())
    assert subprocess.run([found, "check-config", str(path)], capture_output=True).returncode == 0
    for severity, receiver in (("page", "pages"), ("ticket", "tickets")):
        done = subprocess.run(
            [found, "config", "routes", "test", f"--config.file={path}", f"severity={severity}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == receiver


def test_panels_have_places_of_their_own() -> None:
    panels: list[dict[str, Any]] = dashboard(SLOS)["panels"]
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}
    assert len(places) == len(panels) == len({one["id"] for one in panels})


def test_the_rules_name_the_model_that_a_promise_is_about() -> None:
    told = rules_text([Slo(name="a", sli="M5", objective=0.99, model="digits")])
    assert yaml.safe_load(told)["groups"][0]["rules"][-1]["labels"] == {
        "severity": "ticket", "slo": "a", "sli": "M5", "model": "digits",
    }  # fmt: skip


def test_a_monitor_that_looks_seldom_is_not_silent() -> None:
    (rule,) = [
        one
        for one in prometheus_rules([])["groups"][-1]["rules"]
        if one["alert"] == "WithstandMonitorSilent"
    ]
    # How often it looks is the monitor's own word, so that no rule goes stale with it.
    assert "> 90 + 3 * withstand_monitor_every_seconds" in rule["expr"]


def test_sloth_is_told_that_a_promise_is_not_about_its_days(tmp_path: Path) -> None:
    week = Slo(name="week", sli="M5", objective=0.99, days=7)
    written([*SLOS, week], tmp_path)
    text = (tmp_path / "sloth.yml").read_text()
    assert [line for line in text.splitlines() if "--default-slo-period" in line] == [
        "# week is about 7 days; Sloth takes 30 unless its --default-slo-period says so."
    ]
