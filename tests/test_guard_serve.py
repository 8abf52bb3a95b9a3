"""The guard as a process: its file, its two ports, a new configuration on the way, its end."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import yaml
from guarding import Model, v2_body
from pydantic import BaseModel
from serving import Running, X, model_server, read_reply, request, serving, until
from typer.testing import CliRunner

from withstand._errors import ConfigError, WithstandError
from withstand.cli._main import app
from withstand.config import (
    GuardConfig,
    LineConfig,
    TensorConfig,
    load_config,
    load_guard,
    template,
)
from withstand.evidence.log import Break, event_schema, read, verify
from withstand.guard import ACTIONS, Answer, Keys, Mode, Secrets, openapi
from withstand.guard.access._secrets import NAMES
from withstand.guard.plan._parts import Parts
from withstand.guard.serve import Server, _learning
from withstand.guard.wire import DATATYPES

ROOT = Path(__file__).parents[1]
UP = "http://127.0.0.1:8080"
CHANGING = (
    "/reload",
    "/kill",
    "/unkill",
    "/mitigate",
    "/lift",
    "/canary/start",
    "/canary/outcomes",
)


def written(folder: Path, **keys: Any) -> Path:
    path = folder / "withstand.yaml"
    path.write_text(yaml.safe_dump({"guard": {"upstream": UP, "open": True, **keys}}))
    return path


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no keys": ({"open": False}, "guard.keys is missing; give a file.* or say open: true"),
    "both": ({"keys": "k.json"}, "keys and open are both given"),
    "no upstream": ({"upstream": None}, "upstream is missing; add it"),
    "path in upstream": ({"upstream": UP + "/v2"}, "give only scheme, host and port"),
    "password": ({"upstream": "http://a:hidden@c"}, "give only scheme, host and port"),
    "link-local": ({"upstream": "http://169.254.169.254"}, "link-local addresses are a cloud's"),
    "link-local in hex": ({"upstream": "http://0xa9fea9fe:80"}, "give another, such as"),
    "link-local IPv6": ({"reroute": {"upstream": "http://[fe80::1]:80"}}, "link-local addresses"),
    "open to all": ({"listen": "0.0.0.0:80"}, "beyond this machine; give keys"),
    "admin to all": ({"admin": "0.0.0.0:81"}, "which others reach; give 127.0.0.1"),
    "one port": ({"admin": "127.0.0.1:8100"}, "give two ports"),
    "no port": ({"listen": "localhost"}, "give host:port"),
    "misspelt": ({"models": {"m": {"mod": "observe"}}}, "models.m.mod', did you mean 'mode'"),
    "mode": ({"mode": "enforc"}, "did you mean 'enforce'"),
    "input": ({"inputs": [{"name": "x", "shape": [1]}]}, "e.g. datatype: FP32"),
    "shape": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]}, "-1 for any"),
    "image": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "holds": "image"}]},
        "holds is for BYTES",
    ),
    "ladder": ({"ladder": {"actions": ["tag", "reroute"]}}, "reroute is missing"),
    "answered": (
        {"answers": {"most": 1, "action": "throttle"}},
        "it is one of tag, coarsen, quarantine, block",
    ),
    "each of one": ({"limits": {"requests_each": 1}}, "all clients are one; give keys"),
    "others": ({"other_models": True}, "other_models is for when there are models"),
    "not a mapping": ({"models": 3}, "models is 3; give a mapping by name"),
    "detectors": ({"detectors": [{"folder": "a/x"}, {"folder": "b/x"}]}, "are called x, x; give"),
    "redaction": ({"evidence": {"folder": "e", "redact": [{"field": "key"}]}}, "e.g. how: hash"),
    "redacted field": (
        {"evidence": {"folder": "e", "redact": [{"field": "tenent", "how": "drop"}]}},
        r"redact\[0\].field is 'tenent'; give inputs.NAME or one of tenant, key, model,",
    ),
    "what makes a record": (
        {"evidence": {"folder": "e", "redact": [{"field": "decision", "how": "drop"}]}},
        "is 'decision'; give inputs.NAME",
    ),
    "redacted nothing": (
        {"evidence": {"folder": "e", "redact": [{"field": "inputs.", "how": "drop"}]}},
        "is 'inputs.'; give inputs.NAME",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_one_line_with_its_fix(tmp_path: Path, name: str) -> None:
    keys, words = MISTAKES[name]
    with pytest.raises(ConfigError, match=words) as caught:
        load_guard(written(tmp_path, **keys))
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_input_that_is_redacted_must_be_one_where_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("features: {age: {integer: true, lower: 0, upper: 120}}")
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
    text = {"name": "t", "datatype": "BYTES", "shape": [-1]}

    def served(field: str, **keys: Any) -> None:
        redact = [{"field": "tenant", "how": "drop"}, {"field": field, "how": "drop"}]
        Server(written(tmp_path, evidence={"folder": "e", "redact": redact}, **keys))._release()

    # What a server tells of its inputs may change, and then any name may come.
    served("inputs.zzz")
    served("inputs.zzz", models={"a": {"inputs": [x]}, "b": {}})
    served("inputs.x", models={"a": {"inputs": [x]}, "b": {"inputs": [x, text]}})
    served("inputs.dataframe_split", inputs=[x])
    served("inputs.age", inputs=[{**x, "table": "table.yaml"}])
    for keys, words in (
        ({"inputs": [x, text]}, "are x, t$"), ({"inputs": [text]}, "are t$"),
        ({"inputs": [x]}, "are x, instances, inputs, dataframe_split$"),
        ({"inputs": [{**x, "table": "table.yaml"}]}, "are x, age, instances,"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"redact\[1\].field is 'inputs.zzz'; .*" + words):
            served("inputs.zzz", **keys)


def test_the_section_alone_is_read_and_a_misspelt_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "withstand.yaml"
    for text, words in {"gaurd: {}": "did you mean 'guard'", "model: {}": "'guard' is missing",
                        "[": "YAML error", "": "'guard' is missing"}.items():  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_guard(path)


def test_a_models_keys_come_before_those_for_all(tmp_path: Path) -> None:
    models = {"a": {"mode": "enforce", "digits": 0}, "b": {}}
    config = load_guard(written(tmp_path, delay=2, digits=3, models=models))
    assert (config.line("a").mode, config.line("a").digits, config.line("a").delay) == (
        "enforce", 0, 2,
    )  # fmt: skip
    assert (config.line("b").mode, config.line("b").digits) == ("shadow", 3)


def test_the_schema_speaks_of_what_the_guard_has() -> None:
    from withstand.config import _line, _sensors, _tensor

    assert get_args(_line.Mode) == get_args(Mode)
    assert get_args(_sensors.Action) == ACTIONS
    assert set(get_args(_tensor.Datatype)) == {*DATATYPES, "BYTES"}
    assert set(TensorConfig.model_fields) >= {"name", "datatype", "shape", "range"}
    assert set(LineConfig.model_fields) >= {"mode", "upstream", "inputs", "detectors"}


def test_every_field_of_a_record_can_be_redacted(tmp_path: Path) -> None:
    from withstand.config import _guard

    async def work(guard: Running) -> None:
        trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x_request_id": "r"}
        assert (await guard.infer(**trace)).status == 200
        assert (await guard.send(request(b"{}"))).status == 400
        told = {"specversion": "1.0", "source": "/logger", "id": "1"}
        for kind, data in (("request", {"instances": [[1]]}), ("response", {"predictions": [1]})):
            event = {**told, "type": f"org.kubeflow.serving.inference.{kind}", "data": data}
            found = await guard.admin(
                "/events", "POST", json.dumps(event).encode(),
                authorization=f"Bearer {guard.service.token}",
                content_type="application/cloudevents+json",
            )  # fmt: skip
            assert found.status == 202

    serving(tmp_path, work, evidence={"folder": "evidence", "inputs": "all"})
    found = [place.record for place in read(tmp_path / "evidence") if not isinstance(place, Break)]
    noted = [one.content for one in found if one.kind in ("decision", "imported")]
    assert len(noted) == 3
    decided = event_schema()["then"]["properties"]["data"]["properties"]["content"]["properties"]
    fixed = {"id", "decision", "input", "input_lost"}
    assert set(decided).union(*noted) - fixed <= set(_guard.FIELDS)
    for name in fixed:
        assert name not in _guard.FIELDS


def test_the_template_has_the_section(tmp_path: Path) -> None:
    lines = template().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("# guard:"))
    end = lines.index("", begin)
    lines[begin:end] = [line.removeprefix("# ") for line in lines[begin:end]]
    (tmp_path / "withstand.yaml").write_text("\n".join(lines))
    found = load_config(tmp_path / "withstand.yaml").guard
    assert found is not None
    assert found == load_guard(tmp_path / "withstand.yaml")
    assert found.evidence is not None


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = Secrets(folder, {}).get("pepper")
    assert made == Secrets(folder, {}).get("pepper") != Secrets(folder, {}).get("master")
    assert stat.S_IMODE((folder / "pepper").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Secrets(folder, {"WITHSTAND_PEPPER": "ab" * 32}).get("pepper") == b"\xab" * 32
    (folder / "token").write_text("abc")
    (folder / "token").chmod(0o600)
    with pytest.raises(ConfigError, match="is not 32 bytes in hex") as caught:
        Secrets(folder, {}).get("token")
    assert "abc" not in str(caught.value)
    (folder / "pepper").chmod(0o644)
    with pytest.raises(ConfigError, match="is open to everybody; run `chmod 600"):
        Secrets(folder, {}).get("pepper")


class Telling(Model):
    """A model server that tells of its model, and answers raw tensors too."""

    ready = loaded = True
    columns = 4

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        told: dict[str, Any] = {"extensions": ["binary_tensor_data"]}
        if method == "GET" and target == "/v2/models/m":
            told = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, self.columns]}]}
        if method == "GET":
            self.seen.append((method, target, headers, body))
            status = 200 if self.ready or "health" not in target else 503
            if not self.loaded and target.startswith("/v2/models"):
                status, told = 503, {"error": "the model is being loaded"}
            return Answer(status, [(b"content-type", b"application/json")], orjson.dumps(told))
        return await super().ask(method, target, headers, body)


def test_what_the_server_tells_of_its_model_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_learning, "_AGAIN", 0.05)
    model = Telling()

    async def work(guard: Running) -> None:
        await until(lambda: bool(guard.service.guard.lines["m"].rules))
        assert (await guard.infer()).status == 200
        assert b"inference-header-content-length" in dict(model.seen[-1][2])
        wrong = await guard.infer([[1.0, 2.0]])
        assert (wrong.status, "shape" in wrong.json["error"]) == (400, True)
        status = (await guard.admin("/status")).json
        assert status["models"]["m"] == {
            "mode": "enforce", "binary": True, "rules": ["schema"], "sensors": [],
        }  # fmt: skip
        # A model that is replaced is asked for anew.
        model.columns = 5
        before = guard.service.guard.lines["m"]
        await until(lambda: guard.service.guard.lines["m"] is not before)
        assert (await guard.infer()).status == 400
        assert (await guard.infer([[0.1] * 5])).status == 200
        async with model_server(Model()) as other:
            guard.rewrite(upstream=f"http://127.0.0.1:{other}")
            assert (await guard.change("/reload")).status == 200
            # What one server told is not believed of another.
            assert (await guard.infer()).status == 200

    serving(tmp_path, work, model=model, models={"m": {}})


def test_a_model_that_is_loaded_anew_is_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_learning, "_SOON", 0.01)
    monkeypatch.setattr(_learning, "_AGAIN", 0.01)
    model = Telling()
    model.loaded = False

    async def asked(times: int) -> None:
        have = len(model.seen)
        await until(lambda: len(model.seen) > have + 2 * times)

    async def work(guard: Running) -> None:
        await asked(2)
        told = [one.message for one in caplog.records if one.levelname == "WARNING"]
        assert told == [
            "model m: its inputs are not known, so no rule checks its requests; give "
            "guard.models.m.inputs"
        ]
        assert guard.counted("unchecked") == 1
        model.loaded = True
        await until(lambda: bool(guard.service.guard.lines["m"].rules))
        assert guard.counted("unchecked") == 0
        model.loaded = False
        await asked(2)
        assert (await guard.infer([[1.0, 2.0]])).status == 400

    serving(tmp_path, work, model=model, models={"m": {}})


@pytest.mark.parametrize(("mode", "count"), [("observe", 0), ("shadow", 1), ("enforce", 1)])
def test_without_names_of_models_it_warns_that_no_rule_checks_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, count: int
) -> None:
    async def work(guard: Running) -> None:
        await until(lambda: guard.service.guard.lines[""].raw)
        assert guard.counted("unchecked") == count

    serving(tmp_path, work, model=Telling(), mode=mode)
    told = [one for one in caplog.messages if "model *: its inputs are not known" in one]
    assert len(told) == count
    assert all(one.endswith("name each under guard.models") for one in told)


def test_the_files_inputs_come_before_the_servers(tmp_path: Path) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4], "range": [0, 1]}
    clipped = {**x, "outside": "clip"}

    async def work(guard: Running) -> None:
        await until(lambda: guard.service.guard.lines["m"].raw)
        assert (await guard.infer()).status == 200
        assert (await guard.infer([[0.1, 0.2, 0.3, 1.1]])).status == 400
        other = await guard.send(request(v2_body(X), "/v2/models/other/infer"))
        assert other.status == 404
        guard.rewrite(models={"m": {"inputs": [clipped], "batch": 2}})
        assert (await guard.change("/reload")).status == 200
        assert (await guard.infer([[0.1, 0.2, 0.3, 1.1]])).status == 200
        assert (await guard.infer([[0.1] * 4] * 3)).status == 413

    serving(tmp_path, work, model=Telling(), models={"m": {"inputs": [x]}})


def test_it_serves_before_the_model_server_does_and_is_ready_after(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        ready = await guard.admin("/health/ready")
        assert (ready.status, ready.json["why"]) == (503, ["a model server does not answer"])
        assert (await guard.admin("/health/live")).status == 200
        assert (await guard.infer()).status == 502
        model = Telling()
        async with model_server(model, gone):
            async with asyncio.timeout(60):
                while (await guard.admin("/health/ready")).status != 200:
                    await asyncio.sleep(0.05)
            await until(lambda: guard.service.guard.lines["m"].raw)
            assert (await guard.infer()).status == 200
            model.ready = False
            async with asyncio.timeout(60):
                while (await guard.admin("/health/ready")).status != 503:
                    await asyncio.sleep(0.05)
        assert guard.refused("upstream_down") == 1

    async def free() -> int:
        async with model_server(Model()) as port:
            return port

    gone = asyncio.run(free())
    serving(tmp_path, work, upstream=f"http://127.0.0.1:{gone}", models={"m": {}})


def test_the_admin_port_is_for_this_machine_and_changes_need_the_token(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost:80x", "10.0.0.1"):
            assert (await guard.admin("/status", host=host)).status == 421
        for host in ("localhost", "127.0.0.1:8101", "[::1]:8101", "LOCALHOST"):
            assert (await guard.admin("/status", host=host)).status == 200
        for path in CHANGING:
            for bearer in ("", "Bearer ", "Bearer " + "0" * 64, guard.service.token):
                assert (await guard.admin(path, "POST", authorization=bearer)).status == 401
            assert (await guard.admin(path)).status == 405
        assert (await guard.admin("/metrics", "POST")).status == 405
        assert (await guard.admin("/v2")).status == 404
        bearer = f"Bearer {guard.service.token}"
        for body in (b"[]", b"{", b'{"why": 3}', b"x" * 70_000):
            answer = await guard.admin("/kill", "POST", body, authorization=bearer)
            assert answer.status == 400
        for body in (b"{}", b'{"why": " "}'):
            answer = await guard.admin("/kill", "POST", body, authorization=bearer)
            assert (answer.status, "why is missing" in answer.json["error"]) == (400, True)
        for path in CHANGING:
            answer = await guard.change(path, whi="typo")
            assert (answer.status, "'whi' is unknown" in answer.json["error"]) == (400, True)
        assert not guard.service.guard.killed
        # What operators may ask, clients may not.
        for path in ("/status", "/metrics", "/reload", "/health/live", "/openapi.json"):
            assert (await guard.send(request(path=path, method="GET"))).status == 404
        assert guard.service.token not in json.dumps((await guard.admin("/status")).json)

    serving(tmp_path, work)


def test_metrics_come_in_both_forms(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        assert (await guard.infer()).status == 200
        plain = await guard.admin("/metrics")
        assert plain.headers["content-type"].startswith("text/plain; version=")
        line = b'withstand_decisions_total{action="none",decision="pass",model="m"} 1.0\n'
        assert line in plain.body
        assert b"withstand_evidence_written_total" in plain.body
        accept = "application/openmetrics-text; version=1.0.0"
        told = await guard.admin("/metrics", accept=accept)
        assert told.headers["content-type"].startswith("application/openmetrics-text")
        assert told.body.endswith(b"# EOF\n")
        assert (await guard.admin("/openapi.json")).json == openapi()

    serving(tmp_path, work, models={"m": {}}, evidence={"folder": "evidence"})


def test_what_a_cluster_sends_is_counted_and_written_at_the_end(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        token = f"Bearer {guard.service.token}"
        told = {"specversion": "1.0", "source": "/logger", "data": {}}
        for identity, kind in (("1", "request"), ("1", "response"), ("2", "request")):
            kind = f"org.kubeflow.serving.inference.{kind}"
            body = json.dumps({**told, "id": identity, "type": kind}).encode()
            media = "application/cloudevents+json"
            found = await guard.admin(
                "/events", "POST", body, authorization=token, content_type=media
            )
            assert found.status == 202
        figures = ("pairs_total", "alone_total", "repeated_total", "lost_total", "waiting")
        counts = [guard.counted(f"evidence_imported_{name}") for name in figures]
        # Without evidence there is nowhere to write it, and that is told.
        assert counts == ([1, 0, 0, 0, 1] if "evidence" in guard.config else [0, 0, 0, 1, 1])

    serving(tmp_path, work)
    serving(tmp_path, work, evidence={"folder": "evidence"})
    found = [place.record for place in read(tmp_path / "evidence") if not isinstance(place, Break)]
    assert [one.content["id"] for one in found if one.kind == "imported"] == ["1", "2"]


def test_reloading_under_load_drops_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    answers: list[int] = []

    async def client(guard: Running, stop: asyncio.Event) -> None:
        reader, writer = await guard.open()
        while not stop.is_set():
            writer.write(request(v2_body(X)))
            answers.append((await read_reply(reader)).status)

    async def work(guard: Running) -> None:
        stop = asyncio.Event()
        clients = [asyncio.ensure_future(client(guard, stop)) for _ in range(4)]
        await until(lambda: len(answers) > 20)
        first = guard.service.guard
        first.lines[""].standing.flagged("somebody")
        for digits in range(3):
            guard.rewrite(digits=digits)
            assert (await guard.change("/reload")).status == 200
            have = len(answers)
            await until(lambda have=have: len(answers) > have + 10)  # type: ignore[misc]
        guard.rewrite(digits="many")
        refused = await guard.change("/reload")
        assert (refused.status, "guard.digits is 'many'" in refused.json["error"]) == (409, True)
        guard.rewrite(digits=1, admin="127.0.0.1:1")
        assert "restart it" in (await guard.change("/reload")).json["error"]
        guard.rewrite(digits=1, admin="127.0.0.1:0", evidence={"folder": "other", "inputs": "all"})
        assert (await guard.change("/reload")).status == 200
        guard.rewrite(evidence={"folder": "other", "inputs": "none"})
        assert "its folder is in use" in (await guard.change("/reload")).json["error"]
        last = guard.service.guard
        assert last is not first
        assert last.lines[""].digits == 1
        # What the guard remembers and holds open outlives it, where its settings did not change.
        assert last.lines[""].standing._flags == first.lines[""].standing._flags != {}
        assert last.lines[""].upstream is first.lines[""].upstream
        assert last.access.quota is first.access.quota is not None
        have = len(answers)
        await until(lambda: len(answers) > have + 10)
        stop.set()
        await asyncio.gather(*clients)
        assert guard.counted("reloads_total", result="taken") == 4
        assert guard.counted("reloads_total", result="refused") == 3

    quota = {"requests": 100_000, "seconds": 1}
    serving(tmp_path, work, quota=quota, evidence={"folder": "evidence"})
    assert set(answers) == {200}
    for folder in ("evidence", "other"):
        found = verify(tmp_path / folder)
        assert (found.faults, found.unclean, found.lost) == ((), 0, 0)
    kinds = [place.record.kind for place in read(tmp_path / "evidence")
             if not isinstance(place, Break)]  # fmt: skip
    assert kinds.count("reload") == 5
    decided = sum(
        place.record.kind == "decision"
        for folder in ("evidence", "other")
        for place in read(tmp_path / folder)
        if not isinstance(place, Break)
    )
    assert decided == len(answers)


def test_the_end_answers_what_is_under_way_and_takes_no_more(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        idle, _ = await guard.open()
        asked = asyncio.ensure_future(guard.infer())
        await until(lambda: guard.counted("in_flight") == 1)
        guard.server.end()
        assert (await guard.admin("/health/ready")).json["why"][0] == "it is ending"
        await until(lambda: not guard.server._clients.serving)
        with pytest.raises(OSError, match=r"."):
            await guard.open()
        assert (await asked).status == 200
        assert await idle.read() == b""

    serving(tmp_path, work, model=Model(pause=0.6), evidence={"folder": "evidence"})
    found = verify(tmp_path / "evidence")
    assert (found.faults, found.unclean, found.head.seq) == ((), 0, 3)


@pytest.mark.parametrize("twice", [False, True])
def test_the_end_does_not_wait_forever(tmp_path: Path, twice: bool) -> None:
    async def work(guard: Running) -> None:
        asked = asyncio.ensure_future(guard.infer())
        await until(lambda: guard.counted("in_flight") == 1)
        guard.server.end()
        if twice:
            guard.server.end()
        reply = await asked
        assert (reply.status, reply.json) == (503, {"error": "try again later"})
        assert guard.refused("ended") == 1

    limits = {"drain_seconds": 60 if twice else 1}
    serving(tmp_path, work, model=Model(pause=40), limits=limits)


def test_keys_are_taken_and_revoked_while_it_serves(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        told = CliRunner().invoke(
            app, ["guard", "key", *words, "--config", str(tmp_path / "withstand.yaml")]
        )
        assert told.exit_code == 0, told.output
        return told.stdout.strip()

    async def work(guard: Running) -> None:
        assert (await guard.infer()).status == 401
        secret = run("add", "acme")
        guard.service.look_after()
        answer = await guard.infer(x_api_key=secret)
        assert (answer.status, answer.headers["ratelimit"][:14]) == (200, '"default";r=1;')
        (kept,) = json.loads(run("list", "--json"))
        assert kept["tenant"] == "acme"
        assert secret not in run("list")
        assert run("list").startswith(kept["id"] + "  ")
        other = run("add", "other", "--benign-optimiser")
        guard.service.look_after()
        # What is known of a key outlives the file that was read anew.
        assert (await guard.infer(x_api_key=secret)).status == 200
        assert (await guard.infer(x_api_key=secret)).status == 429
        run("revoke", kept["id"][:12])
        guard.service.look_after()
        assert (await guard.infer(x_api_key=secret)).status == 401
        assert (await guard.infer(x_api_key=other)).status == 200
        (tmp_path / "keys.json").write_text("nonsense")
        guard.service.look_after()
        assert (await guard.infer(x_api_key=other)).status == 200
        assert guard.counted("reloads_total", result="keys refused") == 1

    quota = {"requests": 2, "seconds": 600}
    serving(tmp_path, work, open=False, keys="keys.json", quota=quota)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"ws_" not in kept


def test_the_kill_switch_passes_everything_on_and_is_written_down(tmp_path: Path) -> None:
    model = Model()
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4], "range": [0, 1]}

    async def work(guard: Running) -> None:
        assert (await guard.infer([[9.0] * 4])).status == 400
        answer = await guard.change("/kill", who="somebody", why="it refuses everybody")
        assert answer.json == {"killed": True, "recorded": True}
        assert (await guard.infer([[9.0] * 4])).status == 200
        guard.rewrite(digits=2)
        assert (await guard.change("/reload")).status == 200
        assert (await guard.infer([[9.0] * 4])).status == 200
        assert guard.counted("killed") == 1
        assert (await guard.change("/unkill", who="somebody", why="mended")).status == 200
        assert (await guard.infer([[9.0] * 4])).status == 400

    async def killed(guard: Running) -> None:
        assert (await guard.change("/kill", who="somebody", why="again")).json["recorded"]

    async def restarted(guard: Running) -> None:
        assert (await guard.admin("/status")).json["killed"] is True
        assert (await guard.infer([[9.0] * 4])).status == 200
        # It is done, even where it cannot be kept.
        (tmp_path / "withstand-guard" / "switch.json").unlink()
        (tmp_path / "withstand-guard").rmdir()
        (tmp_path / "withstand-guard").write_text("")
        answer = await guard.change("/unkill", who="somebody", why="mended too")
        assert answer.json == {"killed": False, "recorded": False}
        assert (await guard.infer([[9.0] * 4])).status == 400

    for one in (work, killed, restarted):
        serving(tmp_path, one, model=model, models={"m": {"inputs": [x]}},
                evidence={"folder": "evidence"})  # fmt: skip
    told = [place.record.content for place in read(tmp_path / "evidence")
            if not isinstance(place, Break) and place.record.kind == "switch"]  # fmt: skip
    assert told == [
        {"killed": True, "who": "somebody", "why": "it refuses everybody"},
        {"killed": False, "who": "somebody", "why": "mended"},
        {"killed": True, "who": "somebody", "why": "again"},
        {"killed": False, "who": "somebody", "why": "mended too"},
    ]


def test_a_switch_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "withstand-guard").mkdir()
    (tmp_path / "withstand-guard" / "switch.json").write_text("[]")
    with pytest.raises(ConfigError, match="restore the file, or remove it"):
        Server(written(tmp_path, listen="127.0.0.1:0", admin="127.0.0.1:0"))


def test_without_its_keys_it_is_not_ready_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(guard: Running) -> None:
        for _ in range(2):
            guard.service.look_after()
        (told,) = (await guard.admin("/health/ready")).json["why"]
        assert told.startswith(f"keys {tmp_path / 'keys.json'} is not there")
        assert caplog.messages.count(told) == 1
        secret = Keys(tmp_path / "keys.json", guard.service.secrets.get("pepper")).make("acme")
        guard.service.look_after()
        assert (await guard.admin("/health/ready")).status == 200
        assert (await guard.infer(x_api_key=secret)).status == 200

    serving(tmp_path, work, open=False, keys="keys.json")


class Part:
    """Something to let go of."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_comes_to_nothing_is_let_go_and_what_was_there_is_not() -> None:
    first = Parts()
    old, other = first.get("a", 1, Part), first.get("b", 1, Part)
    second = Parts(first)
    assert second.get("a", 1, Part) is old
    new = second.get("b", 2, Part)
    second.discard()
    assert (new.closed, old.closed, other.closed) == (True, False, False)
    third = Parts(first)
    assert third.get("a", 1, Part) is old
    gone = third.settle()
    assert not other.closed
    gone.close()
    assert (other.closed, old.closed) == (True, False)
    third.close()
    assert old.closed


def test_what_a_mode_that_observes_is_sent_goes_on_as_it_is(tmp_path: Path) -> None:
    model = Model()

    async def work(guard: Running) -> None:
        body = v2_body(X).replace(b"{", b"{  ", 1)
        assert (await guard.send(request(body))).status == 200
        assert model.seen[-1][3] == body
        # Limits are those of the guard, whoever else has some.
        asked = len(model.seen)
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (2000, b" " * 2000)
        head = request(transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
        assert (await guard.send(head + chunk)).status == 413
        assert len(model.seen) == asked

    serving(tmp_path, work, model=model, mode="observe", limits={"body": 1000})


def test_whatever_looks_at_requests_is_set_up_from_the_file(tmp_path: Path) -> None:
    import torch

    from withstand.detect import Confidence, fit
    from withstand.guard.queries import calibrate
    from withstand.models import TorchModel

    (tmp_path / "model.py").write_text(
        "import torch\n\ndef build():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 3)\n"
    )
    torch.manual_seed(0)
    model = TorchModel(torch.nn.Linear(4, 3), domain=(-4, 4))
    benign = torch.randn(4000, 4)
    detector = fit(Confidence(), model, benign[:500]).calibrate(benign[500:1000])
    detector.save(tmp_path / "spotter")
    calibrate(benign.numpy()[:1500], rate=0.01, seed=0).save(tmp_path / "queries")
    own = {"kind": "torch", "factory": "model.py:build", "domain": [-4, 4]}
    sensors = {
        "queries": {"calibration": "queries", "action": "throttle"},
        "detectors": [{"folder": "spotter", "model": own, "deadline": 5, "action": "block"}],
        "extraction": {}, "answers": {"most": 1000},
        "throttle": {"requests": 1000},
    }  # fmt: skip

    async def work(guard: Running) -> None:
        line = guard.service.guard.lines["m"]
        names = [sensor.name for sensor in line.sensors]
        assert names == ["queries", "search", "spotter", "extraction", "answers"]
        assert [sensor.action for sensor in line.sensors][:3] == ["throttle", "throttle", "block"]
        assert (await guard.infer(benign[:1].tolist())).status == 200
        guard.rewrite(delay=2.0)
        assert (await guard.change("/reload")).status == 200
        again = guard.service.guard.lines["m"]
        assert again is not line
        assert again.sensors == line.sensors
        # One that was fitted anew takes its place.
        detector.save(tmp_path / "spotter")
        assert (await guard.change("/reload")).status == 200
        other = guard.service.guard.lines["m"].sensors
        assert [one is two for one, two in zip(other, line.sensors, strict=True)] == [
            True, True, False, True, True,
        ]  # fmt: skip
        (tmp_path / "spotter" / "detector.json").write_text("nonsense")
        refused = await guard.change("/reload")
        assert (refused.status, "cannot be read" in refused.json["error"]) == (409, True)
        assert guard.service.guard.lines["m"].sensors == other
        assert (await guard.infer(benign[:1].tolist())).status in (200, 403)

    serving(tmp_path, work, models={"m": sensors}, evidence={"folder": "evidence"})
    signals = [place.record.content["signals"] for place in read(tmp_path / "evidence")
               if not isinstance(place, Break) and place.record.kind == "decision"]  # fmt: skip
    assert {one[0] for one in signals[0]} >= {"queries", "spotter", "search", "answers"}


def test_what_cannot_begin_says_why(tmp_path: Path) -> None:
    async def begun(**keys: Any) -> str:
        with pytest.raises(WithstandError) as caught:
            Server(written(tmp_path, **keys))
        return str(caught.value)

    async def main() -> None:
        async with model_server(Model()) as taken:
            told = await begun(listen=f"127.0.0.1:{taken}", admin="127.0.0.1:0")
            assert "guard.listen" in told
            assert "give another address" in told
        assert "raise `ulimit -n`" in await begun(limits={"connections": 10**8})
        (tmp_path / "file").write_text("")
        assert "evidence" in await begun(evidence={"folder": "file/x"})

    asyncio.run(main())


def test_the_command_line_speaks_to_a_guard_that_serves(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        told = CliRunner().invoke(
            app, ["guard", *words, "--config", str(tmp_path / "withstand.yaml")]
        )
        if told.exception is not None and not isinstance(told.exception, SystemExit):
            return 2, str(told.exception)
        return told.exit_code, told.stdout

    async def work(guard: Running) -> None:
        # The file names the port that the system chose.
        guard.rewrite(admin=f"127.0.0.1:{guard.admin_port}")
        code, told = await asyncio.to_thread(run, "status", "--json")
        assert (code, json.loads(told)["ready"], json.loads(told)["killed"]) == (0, True, False)
        assert (await asyncio.to_thread(run, "status", "--live"))[0] == 0
        assert (await asyncio.to_thread(run, "kill", "--why", "a try"))[0] == 0
        assert guard.service.guard.killed
        assert (await asyncio.to_thread(run, "unkill", "--why", "done"))[0] == 0
        code, told = await asyncio.to_thread(run, "kill", "--why", "")
        assert (code, "why is missing" in told, guard.service.guard.killed) == (2, True, False)
        order = ("mitigate", "coarsen", "--id", "ticket-7", "--why", "a [try]", "--seconds", "60")
        code, told = await asyncio.to_thread(run, *order)
        assert (code, "--key is missing; give --key ID" in told) == (2, True)
        code, told = await asyncio.to_thread(run, *order, "--key", "a", "--everybody")
        assert (code, "are both given" in told) == (2, True)
        assert (await asyncio.to_thread(run, *order, "--everybody"))[0] == 0
        assert [one.action for one in guard.service.mitigations()] == ["coarsen"]
        code, told = await asyncio.to_thread(run, "mitigations")
        assert told.startswith("ticket-7: coarsen everybody until 20")
        assert told.endswith(": a [try]\n")
        code, told = await asyncio.to_thread(run, "mitigations", "--json")
        assert [one["id"] for one in json.loads(told)] == ["ticket-7"]
        assert (await asyncio.to_thread(run, "lift", "ticket-7", "--why", "done"))[0] == 0
        assert guard.service.mitigations() == []
        code, told = await asyncio.to_thread(run, "lift", "ticket-7", "--why", "done")
        assert (code, "no action 'ticket-7' holds" in told) == (2, True)
        code, told = await asyncio.to_thread(run, "reload")
        assert (code, "restart it" in told) == (2, True)

    serving(tmp_path, work)
    assert "no guard answers at" in run("status")[1]
    assert "lets everybody in" in run("key", "list")[1]


def reference() -> str:
    """The keys and figures, as the reference page has them."""
    from withstand.config import _canary, _guard, _line, _sensors, _tensor
    from withstand.guard._metrics import _COUNTERS, _GAUGES, _TIMES
    from withstand.guard.serve import _canaries, _drifts, _figures

    own = {name: field for name, field in GuardConfig.model_fields.items()
           if name not in LineConfig.model_fields}  # fmt: skip
    sections: list[tuple[str, str, dict[str, Any]]] = [
        ("guard", "For the process.", own),
        ("guard, guard.models.NAME", "For all models, or for one.", LineConfig.model_fields),
    ]
    sections += [
        (name, section.__doc__ or "", section.model_fields)
        for name, section in {
            "inputs": _tensor.TensorConfig, "inputs.drift": _tensor.DriftConfig,
            "quota, throttle": _line.RateConfig,
            "limits": _guard.LimitsConfig, "evidence": _guard.EvidenceConfig,
            "evidence.redact": _guard.RedactionConfig, "queries": _sensors.QueriesConfig,
            "detectors": _sensors.DetectorConfig, "extraction": _sensors.ExtractionConfig,
            "answers": _sensors.AnswersConfig, "ladder": _line.LadderConfig,
            "reroute": _line.RerouteConfig, "canary": _canary.CanaryConfig,
            "canary.compare": _canary.MarginConfig,
        }.items()
    ]  # fmt: skip
    lines = []
    for name, told, fields in sections:
        lines += [f"## `{name}`", "", told, "", "| key | default | what it is |", "|---|---|---|"]
        for key, field in fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "needed" if field.is_required() else "" if default is None else _shown(default)
            lines.append(f"| `{key}` | {shown} | {field.description} |")
        lines.append("")
    lines += ["## Figures", "", "At `/metrics`, each begins with `withstand_`.", ""]
    lines += ["| name | labels | what it is |", "|---|---|---|"]
    for name, (told, labels) in _COUNTERS.items():
        lines.append(f"| `{name}_total` | {', '.join(labels)} | {told} |")
    lines += [f"| `{name}_seconds` | | {told} A histogram. |" for name, told in _TIMES.items()]
    lines += [f"| `{name}` | | {told} |" for name, told in _GAUGES.items()]
    figures = _figures._COUNTERS.items()
    lines += [f"| `evidence_{name}_total` | | {told} |" for name, told in figures]
    lines += [f"| `evidence_{name}` | | {told} |" for name, told in _figures._GAUGES.items()]
    for name, (told, labels) in (_canaries.FIGURES | _drifts.FIGURES).items():
        lines.append(f"| `{name}` | {', '.join(labels)} | {told} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if isinstance(default, BaseModel):
        return "see there"
    if default and isinstance(default, dict):
        return _shown(list(default))
    if isinstance(default, list | tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{json.dumps(default)}`"


def test_the_reference_page_has_every_key_and_figure() -> None:
    page = (ROOT / "docs" / "reference" / "guard.md").read_text()
    assert reference() in page
    guide = (ROOT / "docs" / "how-to" / "guard-a-model.md").read_text()
    for name in NAMES:
        assert f"(`{name}`)" in guide
