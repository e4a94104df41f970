"""A small invented workdir with every piece that the report reads."""

import json
import math
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from vilasr_jax.evaluation.intervals import wilson_interval

ACCURACY = {
    "untrained": 0.25,
    "cold_start": 0.71,
    "reflect": 0.78,
    "rl": 0.86,
    "blank_image": 0.27,
    "ood": 0.52,
}
CELL, GRID = 28, 5


def maze_picture(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (CELL * GRID, CELL * GRID), "white")
    draw = ImageDraw.Draw(image)
    for k in range(GRID + 1):
        draw.line([(k * CELL, 0), (k * CELL, CELL * GRID)], fill=(225, 225, 225))
        draw.line([(0, k * CELL), (CELL * GRID, k * CELL)], fill=(225, 225, 225))
    for _ in range(9):
        x, y = rng.randrange(1, GRID) * CELL, rng.randrange(GRID) * CELL
        end = (x, y + CELL) if rng.random() < 0.5 else (x + CELL, y)
        draw.line([(x, y), end], fill=(40, 40, 40), width=3)
    for letter, (column, row) in zip("ABCD", [(0, 0), (4, 1), (1, 4), (3, 3)], strict=True):
        draw.text((column * CELL + 10, row * CELL + 8), letter, fill=(20, 90, 160))
    draw.ellipse([2 * CELL + 8, 2 * CELL + 8, 2 * CELL + 20, 2 * CELL + 20], fill=(200, 40, 40))
    return image


def write_conversation(folder: Path, stage: str, number: int, pictures: bool) -> dict:
    rng = random.Random(number)
    right_answer = rng.choice("ABCD")
    image = maze_picture(rng)
    chance = random.Random(f"{stage}{number}")
    correct, slip = chance.random() < ACCURACY[stage], chance.random() < 0.3
    prediction = right_answer if correct else chance.choice([x for x in "ABCD" if x != right_answer])
    names, turns, at = [], [], (2 * CELL + 14, 2 * CELL + 14)

    def save(picture: Image.Image) -> list[str]:
        if not pictures:
            return []
        names.append(f"images/{number}_{len(names) + 1}.png")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        picture.save(folder / names[-1])
        return names[-1:]

    base = save(image)
    for k in range(chance.randint(2, 5)):
        end = (
            (at[0] + CELL * chance.choice([-1, 1]), at[1])
            if k % 2
            else (at[0], at[1] + CELL * chance.choice([-1, 1]))
        )
        image = image.copy()
        ImageDraw.Draw(image).line([at, end], fill=(214, 39, 40), width=3)
        error = "item 1: index 9 names no image; there are 1 to 2" if slip and k == 1 else None
        call = {
            "tool": "path_tracer",
            "index": k + 1,
            "label": f"step {k + 1}",
            "x1": at[0],
            "y1": at[1],
            "x2": end[0],
            "y2": end[1],
        }
        block = json.dumps(
            [{"index": k + 1, "start_point_2d": at, "end_point_2d": end, "label": f"step {k + 1}"}]
        )
        text = (
            f"<think>Move {k + 1} goes on from the red end; the wall on the left does not block it.</think> "
        )
        turns.append(
            {
                "text": f"{text}Action: Path Tracer\n```json\n{block}\n```",
                "calls": [] if error else [call],
                "error": error,
                "images": [] if error else save(image),
            }
        )
        at = end
    turns.append(
        {
            "text": f"<think>It ends at {prediction}.</think> Action: Answer\n<answer>{prediction}</answer>",
            "calls": [],
            "error": None,
            "images": [],
        }
    )
    return {
        "id": f"maze-{number:04d}",
        "stage": stage,
        "prediction": prediction,
        "answer": right_answer,
        "correct": correct,
        "question": "Start at the red dot and go up, left, down, left. A move into a wall is skipped. "
        "Which letter do you reach?\nA. top left\nB. right\nC. bottom left\nD. lower right",
        "reward": {"accuracy": float(correct), "format": 1.0, "total": float(correct)},
        "stop_reason": "answer",
        "turns": turns,
        "images": base,
        "drawings": len(turns) - 1,
        "corrected": int(slip),
        "meta": {},
    }


def write_workdir(path: Path, rows: int = 6, with_pictures: int = 3) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(
        json.dumps({"name": "maze_tiny", "seed": 0, "model": {"preset": "tiny"}})
    )
    rng, stages = random.Random(0), {}
    for name, accuracy in ACCURACY.items():
        right = round(accuracy * 512)
        stages[name] = {
            "accuracy": right / 512,
            "ci95": wilson_interval(right, 512),
            "n": 512,
            "drawings": 0.4 if name == "untrained" else 3.2,
            "corrected": 0.0 if name == "untrained" else 0.21,
        }
    (path / "summary.json").write_text(
        json.dumps({"stages": stages, "seconds": 1310, "peak_rss_bytes": 3.1 * 2**30, "chance": 0.25})
    )
    for stage, steps in [("cold_start", 1500), ("reflect", 400), ("rl", 120)]:
        (path / stage).mkdir()
        with (path / stage / "metrics.jsonl").open("w") as lines:
            for step in range(0, steps, 2):
                row = {
                    "step": step,
                    "time": 0.4 * step,
                    "loss": 2.5 * math.exp(-step / 300) + rng.random() * 0.1,
                    "learning_rate": 4e-3 * (1 - step / steps),
                    "grad_norm": 0.5 + rng.random(),
                }
                if stage == "rl":
                    row |= {
                        "reward": 0.7 + 0.2 * step / steps + rng.random() * 0.1,
                        "drawings": 3 + rng.random(),
                        "tokens": 140 - step / 4,
                        "drew": 0.99,
                    }
                if step % 100 == 0:
                    row["val_accuracy"] = 0.85 - 0.6 * math.exp(-step / 300)
                lines.write(json.dumps(row) + "\n")
    (path / "reflect" / "funnel.json").write_text(
        json.dumps({"sampled": 4096, "parsed": 4010, "right": 2905, "reflective": 640, "kept": 612})
    )
    for stage in ACCURACY:
        folder = path / "eval" / stage
        folder.mkdir(parents=True)
        with (folder / "results.jsonl").open("w") as lines:
            for number in range(rows):
                lines.write(
                    json.dumps(write_conversation(folder, stage, number, number < with_pictures)) + "\n"
                )
    return path


@pytest.fixture
def workdir(tmp_path):
    return write_workdir(tmp_path / "run")
