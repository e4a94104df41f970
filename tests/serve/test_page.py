"""The page of the server in a real browser: samples, upload, streaming, stopping, errors, a phone."""

import io

from PIL import Image

from tests.browser import tab
from tests.serve.conftest import Served


def png(width=112, height=84):
    out = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(out, "PNG")
    return {"name": "mine.png", "mimeType": "image/png", "buffer": out.getvalue()}


def test_a_sample_is_answered_turn_by_turn(served, browser):
    with tab(browser) as (page, faults):
        page.goto(served.url)
        page.get_by_role("button", name="Sample 1").click()
        assert page.get_by_label("Question", exact=True).input_value() == "Where does it end?"
        page.get_by_label("Question", exact=True).press("Control+Enter")
        page.get_by_text("Finished after 3 turns.").wait_for()
        assert page.locator(".turn h3").all_inner_texts() == ["Question", "Turn 1", "Turn 2", "Turn 3"]
        assert page.locator(".turn .pics img").count() == 3  # the given one, and two drawn
        assert all(
            page.locator(".turn .pics img").evaluate_all("all => all.map(i => i.naturalWidth === 112)")
        )
        assert "✓ Answer: B, which is right" in page.locator("#turns").inner_text()
        assert not faults


def test_an_upload_streams_and_can_be_stopped(served, browser):
    before = served.engine.cancelled
    with tab(browser) as (page, faults):
        page.goto(served.url)
        page.locator("#file").set_input_files(png())
        page.get_by_label("Question", exact=True).fill("slow: where?")
        page.get_by_label("Choices").fill("A, B")
        page.get_by_role("button", name="Ask").click()
        page.locator(".writing", has_text="It goes").wait_for()
        assert page.get_by_role("button", name="Ask").is_disabled()
        page.keyboard.press("Escape")
        page.get_by_text("Stopped.").wait_for()
        assert page.get_by_role("button", name="Ask").is_enabled() and page.locator(".writing").count() == 0
        page.wait_for_timeout(300)
        assert served.engine.cancelled > before and list(
            served.engine.requests[-1].session().images[0].size
        ) == [112, 84]
        assert not faults


def test_errors_are_shown(served, browser):
    with tab(browser) as (page, faults):
        page.goto(served.url)
        page.get_by_role("button", name="Ask").click()
        assert page.get_by_role("alert").inner_text() == "Choose an image first."
        page.locator("#file").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no"})
        assert page.get_by_role("alert").inner_text() == "a.txt isn't an image."
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
        page.get_by_label("Question", exact=True).fill("where?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("alert").filter(has_text="no image that can be read").wait_for()
        assert page.get_by_text("The conversation broke off.").is_visible()
        # a browser itself reports the two things that failed: the picture, and the 400
        assert all("400" in fault or "image" in fault.lower() for fault in faults)


def test_a_phone_in_the_dark(served, browser):
    with tab(browser, width=390, height=844, dark=True) as (page, faults):
        page.goto(served.url)
        page.get_by_role("button", name="Sample 1").click()
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert not faults


def test_a_server_with_a_token(browser):
    served = Served(token="s3cret")
    try:
        with tab(browser) as (page, _):
            page.goto(served.url)
            page.get_by_role("alert").filter(has_text="token").wait_for()
            page.get_by_label("Token of this server").fill("s3cret")
            page.keyboard.press("Tab")
            page.get_by_role("button", name="Sample 1").click()
            page.get_by_role("button", name="Ask").click()
            page.get_by_text("Finished after 3 turns.").wait_for()
    finally:
        served.close()


def test_text_is_never_markup(served, browser):
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    with tab(browser) as (page, faults):
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto(served.url)
        page.get_by_role("button", name="Sample 1").click()
        page.get_by_label("Question", exact=True).fill(bad)
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        assert page.locator(".question").inner_text() == bad and not faults
