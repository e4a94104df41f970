"""A headless Chromium for the tests of pages; those tests are skipped where none is installed."""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextlib.contextmanager
def chromium(profile, width: int = 1400, height: int = 900, dark: bool = False):
    """Yields (page, faults): a tab, and what its console complained about. `profile` is a new folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as api:
        context = api.chromium.launch_persistent_context(
            str(profile),
            executable_path=path,
            args=FLAGS,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        page, faults = context.pages[0], []
        page.set_default_timeout(20_000)
        page.on("console", lambda line: line.type in ("error", "warning") and faults.append(line.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page, faults
        context.close()
