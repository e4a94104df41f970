"""A headless Chromium for the tests of pages; those tests are skipped where none is installed."""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def browser():
    """One Chromium for the tests of a file."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, of the extra [browser], is missing"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as api:
        chromium = api.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def tab(browser, width: int = 1400, height: int = 900, dark: bool = False):
    """Yields (page, faults): a tab with an empty profile, and the errors in its console."""
    size, scheme = {"width": width, "height": height}, "dark" if dark else "light"
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page, faults = context.new_page(), []
    page.set_default_timeout(20_000)
    page.on("console", lambda line: line.type in ("error", "warning") and faults.append(line.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page, faults
    context.close()
