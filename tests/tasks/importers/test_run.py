"""An import as one command: its folder, its shards, stops and kills."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tasks.importers.published import folder_of, question
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.tasks.importers import import_data, run
from vilasr_jax.tasks.stored import StoredRows, read_index


def test_nothing_to_import(torn, tmp_path):
    (tmp_path / "empty.json").write_text("\n")
    for source, part in [
        (tmp_path / "none", "no such"),
        (torn, r"holds no file of format rl .*rl/\*.json.*; give a file of another name itself"),
        (tmp_path / "empty.json", "empty.json: is empty"),
    ]:
        with pytest.raises(DataError, match=part):
            import_data("rl", source, tmp_path / "out")
    (torn / "a.json").write_text("plain words")
    with pytest.raises(DataError, match="neither a JSON list nor JSON lines"):
        import_data("rl", torn, tmp_path / "out")
    (torn / "a.json").write_text('[{"question": "?"}]')
    with pytest.raises(DataError, match=r"none of 1 rows.*a.json:1: answer is missing|image_path"):
        import_data("rl", torn, tmp_path / "out2")
    with pytest.raises(ConfigError, match="no format 'coco'"):
        import_data("coco", torn, tmp_path / "out")
    with pytest.raises(DataError, match="vilasr data import"):
        StoredRows([tmp_path / "out2"])


def test_a_destination_that_holds_something_else(tmp_path):
    import_data("maze", folder_of("maze"), tmp_path / "out")
    with pytest.raises(ConfigError, match="another import"):
        import_data("mmsi_bench", folder_of("maze"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        import_data("maze", folder_of("maze"), tmp_path / "mine")
    with pytest.raises(ConfigError, match="local"):
        import_data("maze", folder_of("maze"), "gs://bucket/out")


def test_other_images_are_another_import(noisy, tmp_path, monkeypatch):
    other = tmp_path / "deep" / "other"
    shutil.copytree(noisy / "shots", other / "shots")
    for number in range(1, 8):
        (noisy / "shots" / f"{number}.png").unlink()
    assert import_data("rl", noisy, tmp_path / "out")["broken"] == 7
    with pytest.raises(ConfigError, match="the folder of its images has changed"):
        import_data("rl", noisy, tmp_path / "out", images=other)
    assert import_data("rl", noisy, tmp_path / "more", images=other)["broken"] == 0
    noted = json.loads((tmp_path / "out" / "import.json").read_text())
    assert noted.pop("images_from") is None
    (tmp_path / "out" / "import.json").write_text(json.dumps(noted))  # as written before it was noted
    monkeypatch.chdir(noisy)
    assert import_data("rl", ".", tmp_path / "out")["rows"] == 1


def test_json_and_json_lines_are_both_read(torn, tmp_path):
    (torn / "rl").mkdir()
    (torn / "rl" / "vqa.json").write_text(json.dumps([question(0)]))
    (torn / "rl" / "maze.jsonl").write_text(json.dumps(question(1)))
    assert import_data("rl", torn, tmp_path / "out")["rows"] == 2
    assert [row.id for row in StoredRows([tmp_path / "out"])] == ["maze-0", "vqa-0"]
    (torn / "rl" / "vqa.jsonl").write_text(json.dumps(question(2)))
    with pytest.raises(DataError, match=r"vqa\.json and vqa\.jsonl"):
        import_data("rl", torn, tmp_path / "two")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_import_resumes(noisy, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SHARD", 3)
    import_data("rl", noisy, tmp_path / "full")
    assert read_index(tmp_path / "full")["shards"] == [f"rows-0000{n}.array_record" for n in range(3)]
    rng = random.Random(0)

    def stop(done, total, note):
        if rng.random() < 0.6:
            raise KeyboardInterrupt

    stops = 0
    while not (tmp_path / "broken" / "index.json").exists():
        try:
            import_data("rl", noisy, tmp_path / "broken", progress=stop)
        except KeyboardInterrupt:
            stops += 1
    assert stops and files(tmp_path / "broken") == files(tmp_path / "full")
    assert import_data("rl", noisy, tmp_path / "full")["rows"] == 8  # again: nothing to do


@pytest.mark.slow
def test_a_killed_import_ends_with_the_same_files(noisy, tmp_path):
    rng = random.Random(seed := random.randrange(1000))
    print(f"seed {seed}")
    answers = ["" if n % 97 == 0 else "A" for n in range(4000)]
    rows = [question(n, image_path=[f"shots/{n % 8}.png"], answer=a) for n, a in enumerate(answers)]
    (noisy / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_data("rl", noisy, tmp_path / "full")
    words = [sys.executable, "-m", "vilasr_jax.cli", "data", "import", "rl", noisy, tmp_path / "broken"]
    kills = 0
    for _ in range(6):
        job = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        before = len(list((tmp_path / "broken").glob("*.json")))
        while job.poll() is None and len(list((tmp_path / "broken").glob("*.json"))) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        kills += job.poll() is None
        job.kill()
        job.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert kills >= 2 and files(tmp_path / "broken") == files(tmp_path / "full")
