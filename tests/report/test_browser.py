"""The report page in a real browser: filters, keyboard, comparison, zoom, themes, a phone, many rows."""

import json
import re
import time
from importlib.resources import files

import pytest

from tests.browser import tab
from tests.report.conftest import write_workdir
from vilasr_jax.report import render_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return render_report(write_workdir(tmp_path_factory.mktemp("report") / "run")).as_uri()


def shown(page) -> str:
    return page.locator(".status [aria-live]").inner_text()


def test_a_reader_finds_a_conversation(report, browser):
    with tab(browser) as (page, faults):
        page.goto(report)
        assert shown(page) == "1 of 6 conversations"  # of the last stage
        page.get_by_label("Stage").select_option("")
        assert shown(page).endswith("of 36 conversations")  # the one that was shown stays
        page.get_by_label("Outcome").select_option("wrong")
        wrong = page.locator(".list li").count()
        assert 0 < wrong < 36 and all("✗" in text for text in page.locator(".list .name").all_inner_texts())
        page.get_by_label("Corrections").select_option("yes")
        assert page.locator(".list li").count() < wrong
        assert all("corrected" in text for text in page.locator(".list .sub").all_inner_texts())
        page.get_by_label("Outcome").select_option("")
        page.get_by_label("Turns").select_option("4")
        assert all(text.startswith("4 turns") for text in page.locator(".list .sub").all_inner_texts())
        page.get_by_label("Find").fill("nothing has these words")
        assert shown(page) == "No conversation fits these filters."
        assert page.locator(".conv article").count() == 0
        assert not faults


def test_keyboard_comparison_and_zoom(report, browser):
    with tab(browser) as (page, faults):
        page.goto(report)
        page.keyboard.press("ArrowRight")
        assert shown(page) == "2 of 6 conversations"
        assert page.locator('.list [aria-current="true"]').count() == 1
        page.keyboard.press("ArrowLeft")
        page.get_by_role("button", name="Compare 6 stages").press("Enter")
        stages = page.locator(".compare h3.stage").all_inner_texts()
        assert stages[:2] == ["Before training", "Cold start"] and len(stages) == 6
        assert page.get_by_role("button", name="Compare 6 stages").get_attribute("aria-pressed") == "true"
        page.keyboard.press("Enter")
        page.locator(".conv .pic").first.press("Enter")
        zoom = page.get_by_role("dialog", name="Enlarged picture")
        first = zoom.locator("figcaption").inner_text()
        page.keyboard.press("ArrowRight")
        assert zoom.locator("figcaption").inner_text() != first
        assert zoom.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 140
        page.keyboard.press("Escape")
        assert not zoom.is_visible()
        chart = page.locator("#curves svg").first
        chart.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#curves output").first.inner_text().startswith("step 6:")
        assert shown(page) == "1 of 6 conversations"  # only the chart handled the key
        assert not faults


def test_a_phone_in_the_dark(report, browser):
    with tab(browser, width=390, height=844, dark=True) as (page, faults):
        page.goto(report)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator("html").get_attribute("data-theme") == "dark"
        page.get_by_role("button", name="Theme").click()
        assert page.locator("html").get_attribute("data-theme") == "light"
        page.locator(".conv .pic img").first.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('.conv .pic img').naturalWidth === 140")
        assert not faults


def test_every_control_has_a_name_and_every_picture_words(report, browser):
    nameless = """() => [...document.querySelectorAll('button, select, input, [tabindex="0"]')].filter(node =>
        !(node.labels && node.labels.length) && !node.getAttribute('aria-label') && !node.textContent.trim()
    ).map(node => node.outerHTML)"""
    with tab(browser) as (page, faults):
        page.goto(report)
        assert page.evaluate(nameless) == []
        assert page.locator("img:not([alt])").count() == 0
        assert not faults


def test_text_has_contrast_in_both_themes():
    """Contrast as WCAG 2 reckons it: 4.5 at least for text."""
    css = files("vilasr_jax.report").joinpath("assets", "style.css").read_text()
    light, dark = re.findall(r"^:root[^{]*\{(.*?)^\}", css, re.DOTALL | re.MULTILINE)
    for block in (light, dark):
        color = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
        pairs = [(ink, paper) for ink in ("ink", "soft", "mark", "blue") for paper in ("paper", "card")]
        pairs += [("good", "good-soft"), ("mark", "mark-soft"), ("ink", "code"), ("soft", "code")]
        for ink, paper in pairs:
            low, high = sorted((luminance(color[ink]), luminance(color[paper])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.slow
def test_two_thousand_conversations(tmp_path, browser):
    out = render_report(write_workdir(tmp_path / "run", rows=334, with_pictures=334))
    assert out.stat().st_size < 30_000_000
    seconds = []
    for _ in range(3):  # the best of three: other work on the machine is no fault of the page
        with tab(browser) as (page, faults):
            began = time.monotonic()
            page.goto(out.as_uri())
            page.wait_for_selector(".conv article")
            seconds.append(time.monotonic() - began)
            page.get_by_label("Stage").select_option("")
            assert shown(page).endswith("of 2004 conversations") and not faults
    assert min(seconds) < 2, seconds


def test_an_address_leads_to_what_was_shown(report, browser):
    with tab(browser) as (page, faults):
        page.goto(report)
        page.get_by_label("Stage").select_option("")
        page.get_by_label("Outcome").select_option("wrong")
        page.keyboard.press("ArrowRight")
        page.locator(".conv").click()
        page.keyboard.press("ArrowRight")
        said, address = shown(page), page.url
        assert "outcome=wrong" in address and "conversation=maze-" in address
        page.goto("about:blank")
        page.goto(address)
        assert shown(page) == said and page.get_by_label("Outcome").input_value() == "wrong"
        page.goto(f"{report}#outcome=nonsense&conversation=%3Cb%3E")
        assert shown(page) == "1 of 6 conversations"
        assert not faults


def test_unknown_words_of_an_address_are_said(report, browser):
    with tab(browser) as (page, faults):
        page.goto(f"{report}#outcome=nonsense&conversation=%3Cb%3E&colour=red&corrections=yes")
        notice = page.locator(".notice")
        said = "The address names what is not in this list: colour=red, outcome=nonsense, conversation=<b>."
        assert notice.inner_text() == said
        assert page.url.endswith("#corrections=yes")  # which is what is shown
        page.get_by_label("Outcome").select_option("wrong")
        assert not notice.is_visible()
        page.goto("about:blank")
        page.goto(f"{report}#outcome=wrong")
        assert not notice.is_visible() and not faults


METRICS = """
accuracy clipped_high clipped_low corrected cut_off drawing/calls/path_tracer drawing/corrections
drawing/drawings drawing/invalid drawing/line_distance drawing/lines_drawn drawing/box_iou drawing/repeats
drawing/turns drawings drew dual_clipped entropy equal_groups errors format grad_norm importance kl
learning_rate loss ref_kl response_tokens reward rollout_kl sampled_tokens_per_second sampling_seconds skipped
tokens_per_second update_seconds useful_tokens mfu val_accuracy val_corrected val_drawings val_errors
my_reward
""".split()


def test_curves_have_plain_names(tmp_path, browser):
    workdir = write_workdir(tmp_path / "run")
    rows = [{"step": step} | {name: step / 7 for name in METRICS} for step in range(1, 4)]
    (workdir / "rl" / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with tab(browser) as (page, faults):
        page.goto(render_report(workdir).as_uri())
        stage = page.locator(".stagecurves").last
        stage.locator("summary").click()
        names = stage.locator("figcaption span").all_inner_texts()
        assert len(names) == len(set(names)) == len(METRICS) - 4  # validation is in the same figure
        assert {"Calls of Path Tracer per conversation", "Conversations with a drawing"} < {*names}
        assert {"Drawn images per conversation", "Learning rate", "Loss", "My reward"} < {*names}
        assert not [name for name in names if re.match("Drawing |Val |Drew|Kl|Mfu|Ref ", name) or "_" in name]
        assert "Solid: training. Dashed: validation." in stage.inner_text() and not faults


def test_what_a_stage_unlearned_is_found(report, browser):
    with tab(browser) as (page, faults):
        page.goto(report)
        page.get_by_label("Stage").select_option("")
        for outcome, sign in (("lost", "✗"), ("gained", "✓")):
            page.get_by_label("Outcome").select_option(outcome)
            names = page.locator(".list .name").all_inner_texts()
            assert all(name.startswith(sign) for name in names)
            if names:
                page.get_by_role("button", name=re.compile("Compare . stages")).click()
                signs = [text[0] for text in page.locator(".compare .verdict").all_inner_texts()[:4]]
                assert len(set(signs)) == 2
                page.get_by_role("button", name=re.compile("Compare . stages")).click()
        assert not faults


def test_the_filtered_list_is_exported(report, browser):
    with tab(browser) as (page, faults):
        page.goto(report)
        page.get_by_label("Stage").select_option("")
        page.get_by_label("Outcome").select_option("wrong")
        count = page.locator(".list .name").count()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Export list").click()
        lines = [json.loads(line) for line in open(waiting.value.path(), encoding="utf-8")]
        assert len(lines) == count and not any(line["correct"] for line in lines)
        assert lines[0]["turns"][-1]["text"].endswith("</answer>")
        assert not faults


def test_curves_have_a_log_scale_smoothing_and_another_run(tmp_path, browser):
    runs = [write_workdir(tmp_path / name) for name in ("second", "first")]
    with tab(browser) as (page, faults):
        page.goto(render_report(*runs).as_uri())
        curve = page.locator("#curves path.raw:not(.other)").first
        seen = [curve.get_attribute("d")]
        page.get_by_label("Log scale").check()
        seen.append(curve.get_attribute("d"))
        page.get_by_label("Smoothing").fill("0.9")
        seen.append(curve.get_attribute("d"))
        assert len(set(seen)) == 3 and "NaN" not in "".join(seen)
        assert page.locator("#curves path.other").count() > 0
        assert "Grey: maze_tiny (first)" in page.locator("#curves .legend").first.inner_text()
        assert not faults
