"""Makes the pictures of the pages for the documentation: python tests/pictures.py docs/images"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path

from browser import browsing
from guarding import served
from pages import PASSWORD, opened, project
from PIL import Image

SHOWN = {
    "overview": ("/", 900, False),
    "on-call": ("/oncall", 900, False),
    "sample": ("/samples/" + "f10".ljust(64, "0"), 900, False),
    "incident": ("/incidents/3", 900, True),
    "models": ("/models", 820, False),
}


async def main(folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        project(Path(place)) as (path, _),
        opened(path) as app,
        served(app) as port,
    ):
        async with browsing() as browser:
            await browser.log_in(f"http://127.0.0.1:{port}", "adam", PASSWORD)
            for name, (where, height, dark) in SHOWN.items():
                await browser.go(f"http://127.0.0.1:{port}{where}")
                found = Image.open(io.BytesIO(await browser.picture(1280, height, dark=dark)))
                few = found.convert("RGB").quantize(128, dither=Image.Dither.NONE)
                few.save(folder / f"ui-{name}.png", optimize=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
