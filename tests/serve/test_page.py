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
        shown = page.locator("#turns").inner_text()
        assert "✓ Answer: B, which is right" in shown and shown.count("Answer: B") == 1
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


def test_turns_are_readable_and_pictures_enlarge(served, browser):
    with tab(browser) as (page, faults):
        page.goto(served.url)
        page.get_by_role("button", name="Sample 1").click()
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        turn = page.locator(".turn").nth(1)
        assert turn.locator("p").all_inner_texts() == ["It goes right.", "Path Tracer"]
        assert turn.locator("li").inner_text() == "Line “way” on image 1: (14, 14) → (42, 14)"
        assert not turn.locator("pre").is_visible()
        turn.get_by_text("As written").click()
        assert '"start_point_2d": [14, 14]' in turn.locator("pre").inner_text()
        page.get_by_role("button", name="Enlarge: Image 2, drawn in turn 1").click()
        assert page.locator("dialog figcaption").inner_text() == "Image 2, drawn in turn 1 (2 of 3)"
        page.keyboard.press("ArrowRight")
        assert page.locator("dialog figcaption").inner_text().startswith("Image 3")
        page.get_by_role("button", name="Close").click()
        assert not faults


def test_several_images_are_sent_and_removed(served, browser):
    with tab(browser) as (page, faults):
        page.goto(served.url)
        page.get_by_text("Choose images, up to 4").wait_for()
        page.locator("#file").set_input_files([png(112, 84), png(56, 56)])
        page.locator("#file").set_input_files([png(84, 84)])
        page.locator("#chosen li").nth(2).wait_for()
        page.get_by_role("button", name="Remove mine.png").nth(1).click()
        page.get_by_label("Question", exact=True).fill("which?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        sent = served.engine.requests[-1].session().images[:2]
        assert [image.size for image in sent] == [(112, 84), (84, 84)]
        page.locator("#file").set_input_files([png()] * 3)
        page.get_by_role("alert").filter(has_text="At most 4 images").wait_for()
        assert not faults


def test_a_photo_of_48_megapixels_is_shrunk(served, browser, tmp_path):
    photo = Image.effect_noise((800, 600), 90).convert("RGB").resize((8000, 6000), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[274] = 6  # turned: 6000 wide, 8000 high
    photo.save(tmp_path / "photo.jpg", quality=80, exif=exif)
    with tab(browser) as (page, faults):
        page.set_default_timeout(60_000)
        page.goto(served.url)
        page.get_by_text("Choose images, up to 4").wait_for()
        page.locator("#file").set_input_files(tmp_path / "photo.jpg")
        page.get_by_label("Question", exact=True).fill("which?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        width, height = served.engine.requests[-1].session().images[0].size
        assert 0.7 < width / height < 0.8 and width * height > 50_000
        assert not faults


STOP_WHILE_RUNNING = """() => {
  window.seen = [];
  const look = () => document.body.classList.contains("running")
    && seen.push(document.getElementById("stop").getBoundingClientRect().bottom);
  new MutationObserver(look).observe(document.body, { attributes: true });
}"""


def test_a_phone_scrolls_with_the_conversation(served, browser):
    def last_is_in_view():
        box = page.locator("#turns > li").last.bounding_box()
        return 0 < box["y"] + box["height"] <= 844

    with tab(browser, width=390, height=844) as (page, faults):
        page.goto(served.url)
        page.get_by_role("button", name="Sample 1").click()
        page.evaluate(STOP_WHILE_RUNNING)
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Finished after 3 turns.").wait_for()
        assert last_is_in_view()
        assert all(700 < bottom <= 844 for bottom in page.evaluate("seen")) and page.evaluate("seen.length")
        page.get_by_role("button", name="Back to the question").click()
        page.wait_for_function("document.activeElement.id === 'question'")
        page.get_by_label("Question", exact=True).fill(f"{'x' * 3500}")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("alert").filter(has_text="more than the largest buckets").wait_for()
        alert, ask = (page.locator(name).bounding_box() for name in ("#fault", "#ask"))
        assert 0 <= alert["y"] <= 844 and abs(alert["y"] - ask["y"]) < 80
        assert all("400" in fault for fault in faults)
