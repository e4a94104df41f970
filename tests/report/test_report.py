import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from vilasr_jax.errors import DataError
from vilasr_jax.evaluation.benchmarks import benchmark_table
from vilasr_jax.report import page, print_summary, render_report
from vilasr_jax.report.images import ImageShelf
from vilasr_jax.report.workdir import read_curves, read_run

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Checker(HTMLParser):
    """Collects tags, addresses and the JSON blocks; fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids, self.scripts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[k] for k in ("src", "href") if attributes.get(k)]
        self.ids += [attributes["id"]] if attributes.get("id") else []
        if tag == "script":
            self.scripts.append([attributes, ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data


def check(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == [] and len(checker.ids) == len(set(checker.ids))
    assert all(address.startswith(("#", "data:")) for address in checker.addresses)  # it loads nothing
    assert not re.search(r"<!--[A-Z]+-->|/\*[A-Z]+\*/", html)
    blocks = {
        attributes["id"]: json.loads(text) for attributes, text in checker.scripts if "id" in attributes
    }
    return blocks["data"], blocks["images"]


def test_full_run(workdir):
    out = render_report(workdir)
    assert out == workdir / "report.html" and not list(workdir.glob("*.part"))
    html = out.read_text()
    data, images = check(html)
    assert "85.9 % of 512 held-out questions answered right" in html
    assert "82.7 to 88.7" in html and "Control: picture blanked" in html and "22 % of the step before" in html
    assert list(data["stages"]) == ["untrained", "cold_start", "reflect", "rl", "blank_image", "ood"]
    assert len(data["conversations"]) == 6 * 6
    with_pictures = [conv for conv in data["conversations"] if conv["images"]]
    assert len(with_pictures) == 6 * 3
    used = {
        k for c in with_pictures for k in c["images"] + [k for turn in c["turns"] for k in turn["images"]]
    }
    assert used == set(images)
    assert len(images) < sum(1 for _ in workdir.glob("eval/*/images/*"))  # the same maze is embedded once
    assert all(len(points) <= 240 for names in data["curves"].values() for points in names.values())


def test_nothing_has_run_yet(tmp_path):
    html = render_report(tmp_path).read_text()
    assert check(html) == ({"stages": {}, "curves": {}, "conversations": []}, {})
    assert "Nothing has been evaluated yet" in html
    with pytest.raises(DataError, match="no such folder"):
        render_report(tmp_path / "none")


@pytest.mark.parametrize(
    "lost", ["summary.json", "config.json", "reflect", "rl", "eval", "eval/cold_start/images"]
)
def test_missing_pieces_are_left_out(workdir, lost):
    shutil.rmtree(workdir / lost) if (workdir / lost).is_dir() else (workdir / lost).unlink()
    check(render_report(workdir).read_text())


def test_half_written_and_odd_files_are_left_out(workdir):
    (workdir / "summary.json").write_text('{"stages": {"rl": {"accuracy": 0.5')
    results = workdir / "eval" / "rl" / "results.jsonl"
    results.write_text(
        results.read_text() + '[1]\n{"id": 7}\n{"id": "x", "turns": [3, {"calls": "no"}]}\n{"id": "cut'
    )
    (workdir / "rl" / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"loss": 1}\n{"step": 2, "loss": 3}\n{"ste'
    )
    html = render_report(workdir).read_text()
    data, _ = check(html)
    assert "summary.json could not be read" in html and "2 unreadable lines" in html
    assert data["curves"]["rl"] == {"loss": [[2, 3.0]]}
    odd = next(conv for conv in data["conversations"] if conv["id"] == "x")
    assert (
        odd["turns"] == [{"text": "", "calls": [], "error": None, "images": []}] and odd["prediction"] is None
    )


def test_text_of_a_model_is_never_markup(workdir):
    bad = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> "
    bad += "\u2028 \ud800 & /*DATA*/ <!--IMAGES-->"
    results = workdir / "eval" / "rl" / "results.jsonl"
    row = json.loads(results.read_text().splitlines()[0])
    row |= {
        "question": bad,
        "prediction": bad,
        "id": bad,
        "stage": bad,
        "turns": [{"text": bad, "error": bad}],
    }
    results.write_text(json.dumps(row) + "\n")
    (workdir / "config.json").write_text(json.dumps({"name": bad}))
    html = render_report(workdir).read_text()
    assert html.count("<script") == 3 and "<img src=x" not in html
    data_block = re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1)
    conversations = json.loads(data_block)["conversations"]
    assert any(conv["turns"][0]["text"] == bad for conv in conversations)


def test_published_benchmarks_and_families_have_tables(workdir):
    rows = [("object_counting", 0.75), ("route_planning", 0.25), ("camera", 0.5)]
    scored = {**benchmark_table("vsi_bench", rows).to_dict(), "unanswered": 2}
    summary = json.loads((workdir / "summary.json").read_text())
    summary["benchmarks"] = {"rl": {"vsi_bench": scored, "odd": [1]}, "odd": 3}
    summary["stages"]["rl"]["families"] = {"video": {"accuracy": 0.625, "n": 256, "ci95": [0.55, 0.7]}}
    (workdir / "summary.json").write_text(json.dumps(summary))
    html = render_report(workdir).read_text()
    check(html)
    assert "Published benchmarks" in html and "vsi_bench: Reinforcement learning" in html
    assert re.search(r"route_planning</th><td[^>]*>25.0<", html)
    assert re.search(r"Overall</th><td[^>]*>50.0<", html)
    assert "2 without an answer score 0" in html and re.search(r"video</th><td[^>]*>62.5 %<", html)


def test_options_are_shown_with_the_question(workdir):
    results = workdir / "eval" / "rl" / "results.jsonl"
    row = json.loads(results.read_text().splitlines()[0]) | {
        "question": "Where?",
        "options": ["A. here", "B. there"],
    }
    results.write_text(json.dumps(row) + "\n")
    data, _ = check(render_report(workdir).read_text())
    assert (
        next(c for c in data["conversations"] if c["stage"] == "rl")["question"]
        == "Where?\nA. here\nB. there"
    )


def test_pictures_outside_the_folder_are_not_read(tmp_path):
    folder = tmp_path / "eval"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(folder / "own.png")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    shelf = ImageShelf()
    assert (
        shelf.add(folder, "../secret.png") is None and shelf.add(folder, str(tmp_path / "secret.png")) is None
    )
    assert shelf.add(folder, "broken.png") is None and shelf.add(folder, "none.png") is None
    assert shelf.add(folder, "own.png") in shelf.uris


def test_page_stays_small(workdir, monkeypatch):
    monkeypatch.setattr(page, "ImageShelf", lambda: ImageShelf(budget=10_000))
    monkeypatch.setattr(page, "MAX_CONVERSATIONS", 20)
    html = render_report(workdir).read_text()
    data, images = check(html)
    assert len(data["conversations"]) == 20 and sum(map(len, images.values())) < 13_000
    assert "to limit the size of the page" in html and "conversations beyond 20" in html


def test_a_step_written_twice_counts_as_written_last(tmp_path):
    file = tmp_path / "metrics.jsonl"
    rows = [{"step": s, "time": 1.0, "loss": float(s)} for s in (1, 2, 3)] + [
        {"step": 2, "loss": 9.0, "on": True}
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curves(file, []) == {"loss": [[1, 1.0], [2, 9.0], [3, 3.0]]}
    assert read_curves(file, [], points=2) == {"loss": [[2, 5.0], [3, 3.0]]}


def test_summary_table(workdir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_summary(read_run(workdir).summary)
    printed = capsys.readouterr().out
    assert (
        "Reinforcement learning" in printed
        and "82.7 to 88.7" in printed
        and "peak memory: 3.1 GiB" in printed
    )
    print_summary({})
    print_summary({"stages": {"direct": {"accuracy": None}}})
    assert "No stage has been scored yet." in capsys.readouterr().out
