"""Jobs of incidents: one at a time, whoever looks at them meanwhile."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from pathlib import Path

from withstand.respond._files import put
from withstand.respond._job import Job, run


def waiting(folder: Path) -> Path:
    """A folder with a job that has nothing to do yet."""
    put(folder / "job.json", json.dumps({"commands": [], "root": str(folder), "began": 0.0}))
    return folder


def test_who_looks_at_a_job_does_not_keep_it_from_beginning(tmp_path: Path) -> None:
    folder = waiting(tmp_path / "job")
    with (folder / ".lock").open("a") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        began = threading.Thread(target=run, args=(str(folder),))
        began.start()
        time.sleep(0.05)
        assert not (folder / "pid").exists()
        fcntl.flock(looking, fcntl.LOCK_UN)
        began.join(5)
    assert (folder / "pid").exists()


def test_two_who_look_do_not_take_each_other_for_the_job(tmp_path: Path) -> None:
    folder = waiting(tmp_path / "job")
    with (folder / ".lock").open("a") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert Job(folder).progress.state == "ended"


def test_a_job_that_runs_is_not_run_beside(tmp_path: Path) -> None:
    folder = waiting(tmp_path / "job")
    with (folder / ".lock").open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert Job(folder).progress.state == "running"
        run(str(folder))
    assert not (folder / "pid").exists()
