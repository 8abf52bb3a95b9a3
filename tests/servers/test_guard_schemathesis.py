"""The guard on a socket against its published description, by a fuzzer that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import started
from serving import model_server
from test_guard_faults import addresses, guard_file
from test_guard_openapi import Strict

from withstand.evidence.log import verify

DESCRIPTION = Path(__file__).parents[2] / "docs" / "reference" / "guard.openapi.json"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection"
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fuzzer_finds_nothing_that_is_not_described(
    tmp_path: Path, environment: Callable[[str], Path]
) -> None:
    command = environment("schemathesis").parent / "schemathesis"

    async def main() -> tuple[int, str]:
        async with model_server(Strict()) as port:
            guard_file(tmp_path, port)
            with started("guard", "serve", folder=tmp_path) as (_, said):
                place, _ = await addresses(said)
                process = await asyncio.create_subprocess_exec(
                    command, "run", DESCRIPTION, "--url", f"http://127.0.0.1:{place}",
                    "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
                    "--max-examples", "60", "--seed", "1", "--no-color", "--warnings", "off",
                    "--suppress-health-check", "all", "--continue-on-failure",
                    cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                said_by_it, _ = await process.communicate()
                assert "Traceback" not in said()
                assert process.returncode is not None
                return process.returncode, said_by_it.decode(errors="replace")

    code, told = asyncio.run(main())
    assert code == 0, told[-6000:]
    # The guard was killed at the end, so that its log is not closed; what is in it is sound.
    assert verify(tmp_path / "evidence").faults == ()
