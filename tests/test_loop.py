"""The whole loop with real processes, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import yaml
from processes import script, started, withstand

from withstand._errors import OperationError
from withstand.workflows.loop import DETECT, ROLL_BACK, run_loop
from withstand.workflows.loop._facts import canary_fell
from withstand.workflows.loop._processes import Processes, free_port, until


def record(wall: float, kind: str, **content: object) -> object:
    from withstand.evidence.log import Record

    return Record(
        seq=1, wall=wall, mono=wall, boot="b", kind=kind, content=content, prev="", hash=""
    )


def left_behind(folder: Path) -> list[str]:
    """Processes of this machine that name the folder, or stand in it."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = os.readlink(place / "cwd")
            except OSError:
                continue
            if str(folder) in words or environment.startswith(str(folder)):
                found.append(words)
    return found


def in_group(group: int) -> list[int]:
    """Processes of a group that are not over."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                _, _, told = (place / "stat").read_text().rpartition(") ")
            except OSError:
                continue
            state, _, of = told.split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(place.name))
    return found


def listening(folder: Path) -> list[int]:
    """Ports of the loop's configuration that somebody listens on."""
    text = (folder / "withstand.yaml").read_text()
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", text)}
    found = []
    for port in ports:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


def test_the_time_to_roll_back_is_from_the_decision_to_the_last_answer() -> None:
    log = [
        record(1.0, "canary", state="running"),
        record(2.0, "decision", arm="canary"),
        record(3.0, "canary", state="rolled_back"),
        record(3.4, "decision", arm="control"),
        record(3.3, "decision", arm="canary"),
        # The next version's rollout is another story.
        record(9.0, "canary", state="running"),
        record(9.5, "decision", arm="canary"),
    ]
    assert canary_fell(log) == pytest.approx(0.3)  # type: ignore[arg-type]
    assert canary_fell(log[:2]) is None  # type: ignore[arg-type]
    assert canary_fell(log[:4]) == 0.0  # type: ignore[arg-type]


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OperationError, match="is not empty"):
        run_loop(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_processes_end_with_all_that_they_have_started(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {})
    child = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('on', flush=True); "
    processes.program("parent", "-c", child + "time.sleep(60)")
    processes.program("stubborn", "-c", "import signal, time; "
                      "signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)")  # fmt: skip
    until(lambda: (tmp_path / "parent.log").read_text(), "its word", processes)
    pids = processes.pids()
    assert len(in_group(pids[0])) == 2
    begun = time.monotonic()
    processes.stop("parent")
    assert time.monotonic() - begun < 5
    # Whoever is killed is gone as soon as the system comes to it, and not before the call returns.
    while in_group(pids[0]):
        assert time.monotonic() - begun < 10
        time.sleep(0.05)
    assert processes.alive("stubborn")
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(OperationError, match="stubborn has ended"):
        until(lambda: False, "nothing", processes)
    processes.end()
    assert processes.pids() == []
    assert free_port() > 0


STARTER = """
import os, signal
from pathlib import Path
from withstand.workflows.loop._processes import Processes, until

processes = Processes(Path("logs"), {}, jobs=Path.cwd())
child = (
    "import subprocess, time; subprocess.Popen(['sleep', '60']); print('on', flush=True); "
    "time.sleep(60)"
)
for name in ("one", "two", "over"):
    processes.program(name, "-c", child)
for name in ("one", "two", "over"):
    until(Path("logs", f"{name}.log").read_text, "its word", processes)
processes.stop("over")
# A job is nobody's child that is still there.
processes.program("job", "-c", "import time; time.sleep(60)", str(Path.cwd()))
job = processes._running.pop("job").pid
processes._tell("-", job)
place = Path("incidents/1/job-1")
place.mkdir(parents=True)
Path(place, "pid").write_text(str(job))
print(*processes.pids(), job, processes._leash.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    done = script(STARTER, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *groups, leash = (int(one) for one in done.stdout.split())
    assert len(groups) == 3
    end = time.monotonic() + 20
    while any(in_group(one) for one in [*groups, leash]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(in_group(one) for one in [*groups, leash])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loop_is_closed_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    done = withstand("demo", "loop", "--output", str(folder), "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["detect"] <= DETECT
    assert 0 <= told["roll_back"] <= ROLL_BACK
    assert told["after"]["value"] < told["before"]["value"]
    names = [stage["name"] for stage in told["stages"]]
    assert names == [
        "train", "serve", "canary", "page", "respond", "roll back", "retrain", "promote",
        "postmortem", "verify",
    ]  # fmt: skip
    page = Path(told["files"]["postmortem"]).read_text()
    for heading in ("Impact", "Times", "Timeline", "Actions taken", "Evidence", "Replay"):
        body = page.partition(f"## {heading}")[2].partition("\n## ")[0].partition("\n")[2]
        assert body.strip(), heading
    assert "throttle" in page
    assert "retraining: done" in page
    found = withstand("evidence", "verify", told["files"]["evidence"], folder=tmp_path)
    assert found.returncode == 0, found.stdout
    config = yaml.safe_load((folder / "withstand.yaml").read_text())
    assert config["guard"]["models"]["digits"]["canary"]["version"] == "v3"
    assert not left_behind(folder)
    assert not listening(folder)
    # Private, and never in a log.
    secret = (folder / "attacker.key").read_text().strip()
    for log in (folder / "logs").iterdir():
        assert secret not in log.read_text("utf-8", "replace")


@pytest.mark.slow
def test_ctrl_c_in_the_middle_ends_every_process(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    with started("demo", "loop", "--output", str(folder), folder=tmp_path) as (pid, said):
        end = time.monotonic() + 120
        while "page" not in said() and time.monotonic() < end:
            time.sleep(0.2)
        assert left_behind(folder)
        os.kill(pid, signal.SIGINT)
        while left_behind(folder) and time.monotonic() < end:
            time.sleep(0.2)
    assert "its processes have ended" in said() or not left_behind(folder)
    assert not left_behind(folder)
    assert not listening(folder)


@pytest.mark.slow
def test_kill_9_in_the_middle_ends_every_process(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    with started("demo", "loop", "--output", str(folder), folder=tmp_path) as (pid, said):
        end = time.monotonic() + 120
        while "page" not in said() and time.monotonic() < end:
            time.sleep(0.2)
        assert left_behind(folder)
        os.kill(pid, signal.SIGKILL)
        while left_behind(folder) and time.monotonic() < end:
            time.sleep(0.2)
    assert not left_behind(folder)
    assert not listening(folder)
