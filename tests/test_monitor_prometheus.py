"""With Prometheus and Alertmanager themselves: figures, rules, routes and messages fit together."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring import decision
from processes import started, withstand
from test_monitor_tell import Hook, hook

from withstand.evidence.log import Log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def program(*names: str) -> str:
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip(f"{names[0]} is not installed")


@contextmanager
def process(*words: str, folder: Path) -> Iterator[None]:
    with (folder / f"{Path(words[0]).name}.log").open("w") as told:
        running = subprocess.Popen(words, cwd=folder, stdout=told, stderr=told)
        try:
            yield
        finally:
            running.terminate()
            running.wait(30)


@contextmanager
def alertmanager(folder: Path, target: Hook) -> Iterator[str]:
    """An Alertmanager that tells one webhook; its address."""
    found, port = program("prometheus-alertmanager", "alertmanager"), free()
    config = {
        "route": {"receiver": "all", "group_by": ["..."], "group_wait": "0s",
                  "group_interval": "1s", "repeat_interval": "1h"},
        "receivers": [{"name": "all", "webhook_configs": [{"url": f"{target.url}/am"}]}],
    }  # fmt: skip
    (folder / "am.yml").write_text(yaml.safe_dump(config))
    with process(
        found, "--config.file=am.yml", f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=", "--storage.path=am", folder=folder,
    ):  # fmt: skip
        ready(f"http://127.0.0.1:{port}/-/ready")
        yield f"127.0.0.1:{port}"


def ready(url: str) -> None:
    until(lambda: get(url) is not None)


def get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def until(holds: Callable[[], bool], most: float = 120.0) -> None:
    end = time.monotonic() + most
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def configured(folder: Path, port: int, **more: Any) -> None:
    guard = {"upstream": "http://127.0.0.1:9", "open": True, "evidence": {"folder": "evidence"}}
    monitor = {
        "listen": f"127.0.0.1:{port}", "every": 0.2, "silent": 9999,
        "slos": {"queries": {"sli": "M7", "objective": 0.99, "model": "m"}}, **more,
    }  # fmt: skip
    (folder / "withstand.yaml").write_text(yaml.safe_dump({"guard": guard, "monitor": monitor}))


def told(taken: Hook, name: str, status: str) -> list[dict[str, Any]]:
    return [
        alert
        for body in taken.bodies()
        for alert in body["alerts"]
        if (alert["labels"]["alertname"], alert["status"]) == (name, status)
    ]


def test_the_monitor_tells_an_alertmanager_which_tells_a_webhook(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(hook())
        place = stack.enter_context(alertmanager(tmp_path, taken))
        listen = free()
        configured(
            tmp_path, listen, receivers={"am": {"alertmanager": f"http://{place}"}},
            campaigns={"quiet": 3},
        )  # fmt: skip
        log = stack.enter_context(Log(tmp_path / "evidence"))
        stack.enter_context(started("monitor", "run", folder=tmp_path))
        ready(f"http://127.0.0.1:{listen}/health")
        for n in range(40):
            log.append(decision(n, flagged=["queries"]))
        until(lambda: bool(told(taken, "WithstandCampaign", "firing")))
        until(lambda: len(told(taken, "WithstandBudgetBurn", "firing")) == 2)
        until(lambda: bool(told(taken, "WithstandCampaign", "resolved")))
        begun, over = (told(taken, "WithstandCampaign", one) for one in ("firing", "resolved"))
        assert len(begun) == len(over) == 1
        assert begun[0]["labels"] == over[0]["labels"]
        assert over[0]["endsAt"] > over[0]["startsAt"]


def test_prometheus_follows_the_monitor_and_fires_by_the_rules(tmp_path: Path) -> None:
    found, port, listen = program("prometheus"), free(), free()
    with ExitStack() as stack:
        taken = stack.enter_context(hook())
        place = stack.enter_context(alertmanager(tmp_path, taken))
        configured(tmp_path, listen)
        log = stack.enter_context(Log(tmp_path / "evidence"))
        log.append(decision(0))
        stack.enter_context(started("monitor", "run", folder=tmp_path))
        ready(f"http://127.0.0.1:{listen}/health")
        assert withstand("monitor", "rules", folder=tmp_path).returncode == 0
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["prometheus/withstand.rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [place]}]}]},
            "scrape_configs": [
                {"job_name": "w", "static_configs": [{"targets": [f"127.0.0.1:{listen}"]}]}
            ],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        stack.enter_context(
            process(
                found, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
                f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=2s",
                folder=tmp_path,
            )
        )  # fmt: skip
        ask = f"http://127.0.0.1:{port}/api/v1/query?query="

        def value(query: str) -> float | None:
            answer = get(ask + query)
            found = [] if answer is None else json.loads(answer)["data"]["result"]
            return float(found[0]["value"][1]) if found else None

        # It counts what grows, so that it must have seen the counter before.
        until(lambda: value("withstand_sli_events_total") == 1)
        for n in range(1, 60):
            log.append(decision(n, flagged=["queries"]))
        until(lambda: value("withstand_sli_bad_total") == 59)
        until(lambda: len(told(taken, "WithstandBudgetBurn", "firing")) == 2)
        # The labels of the rules are those of the monitor's own alerts.
        found_here = json.loads(withstand("monitor", "alerts", "--json", folder=tmp_path).stdout)
        own = [one["labels"] for one in found_here if "slo" in one["labels"]]
        there = [one["labels"] for one in told(taken, "WithstandBudgetBurn", "firing")]
        assert sorted(map(pairs, own)) == sorted(map(pairs, there))


def pairs(labels: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(labels.items())
