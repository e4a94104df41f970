"""Writes the small folders next to this file: every published layout, with questions and pictures of our own.

python tests/tasks/published/make_published.py
"""

import json
import shutil
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
DATA, EVAL = HERE / "ViLaSR-data", HERE / "ViLaSR-eval"
SYSTEM = "Draw to answer. Tools: Object Mapper, Path Tracer. The image is 84 x 56."
GO_ON = "The index of the given image is 2 (width: 84, height: 56). Continue your reasoning."


def picture(path: Path, size=(84, 56), box=None, line=None) -> None:
    """A grey picture with a red box or a blue line."""
    image = Image.new("RGB", size, (200, 200, 190))
    draw = ImageDraw.Draw(image)
    draw.rectangle((8, 8, 20, 20), fill=(20, 140, 60))
    if box:
        draw.rectangle(box, outline=(220, 30, 30), width=2)
    if line:
        draw.line(line, fill=(30, 60, 220), width=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def trace(question: str, calls: list[tuple[str, dict]], answer: str, images: list[str]) -> dict:
    """One recorded conversation in the sharegpt layout."""
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"<image>\n### Question:\n{question}"},
    ]
    for tool, item in calls:
        said = f"<think> I look. </think> Action: {tool}\n```json\n[{json.dumps(item)}]\n```"
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": f"<image>{GO_ON}"}]
    said = f"<think> I see. </think> Action: Answer\n<answer> {answer} </answer>"
    return {"conversations": [*messages, {"role": "assistant", "content": said}], "images": images}


def write_list(path: Path, items: list) -> None:
    """A JSON list, as people write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(items, indent=2) + "\n")


def write_lines(path: Path, items: list) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def make_data() -> None:
    """Cold start (pictures in a folder and in a zip file), reflection, and questions for RL."""
    box = {"index": 1, "bbox_2d": [8, 8, 20, 20], "label": "green square"}
    line = {"index": 1, "start_point_2d": [14, 14], "end_point_2d": [70, 14], "label": "step 1"}
    better = {"index": 2, "bbox_2d": [6, 6, 22, 22], "label": "green square"}
    vqa = [
        trace(
            "Is the square left of the middle?",
            [("Object Mapper", box)],
            "yes",
            ["cold_start/vqa/1.png", "cold_start/vqa/1_drawn.png"],
        ),
        trace(
            "How many squares are there?",
            [("Object Mapper", box)],
            "1",
            ["cold_start/vqa/1.png", "cold_start/vqa/1_drawn.png"],
        ),
    ]
    maze = [
        trace(
            "Where does 'right' lead?",
            [("Path Tracer", line)],
            "B",
            ["cold_start/maze/5.png", "cold_start/maze/5_drawn.png"],
        )
    ]
    write_list(DATA / "cold_start/vqa.json", vqa)
    write_list(DATA / "cold_start/maze.json", maze)
    picture(DATA / "cold_start/vqa/1.png")
    picture(DATA / "cold_start/vqa/1_drawn.png", box=(8, 8, 20, 20))
    picture(HERE / "5.png")
    picture(HERE / "5_drawn.png", line=(14, 14, 70, 14))
    with zipfile.ZipFile(DATA / "cold_start/maze.zip", "w") as archive:
        for name in ("5.png", "5_drawn.png"):
            archive.write(HERE / name, f"maze/{name}")
            (HERE / name).unlink()
    reflective = trace(
        "Where is the green square?",
        [("Object Mapper", box), ("Object Mapper", better)],
        "top left",
        [f"SR_91k/{n}.png" for n in (1, 2, 3)],
    )
    write_list(DATA / "reflective_rejection_sampling/SR_91k.json", [reflective])
    for number, corners in enumerate((None, (8, 8, 20, 20), (6, 6, 22, 22)), 1):
        picture(DATA / f"reflective_rejection_sampling/SR_91k/{number}.png", box=corners)
    write_lines(
        DATA / "rl/vilasr_rl_data.jsonl",
        [
            {
                "question": "Which way is the square from the middle?",
                "answer": "<answer>A</answer>",
                "image_path": ["rl/SR/1.png"],
                "question_type": "multiple choice",
                "options": ["A. left", "B. right"],
                "data_type": "spatial_r1",
                "grid_size": None,
            },
            {
                "question": "How far apart are the squares in metres?",
                "answer": "<answer>2.5</answer>",
                "image_path": ["rl/SR/1.png", "rl/SR/2.png"],
                "question_type": "regression",
                "data_type": "video",
                "grid_size": None,
            },
            {
                "question": "Where does the path end?",
                "answer": "C",
                "image_path": ["rl/SR/2.png"],
                "question_type": "multiple choice",
                "options": ["A", "B", "C", "D"],
                "data_type": "maze",
                "grid_size": 5,
            },
        ],
    )
    picture(DATA / "rl/SR/1.png", (56, 56))
    picture(DATA / "rl/SR/2.png", (56, 84))
    write_list(DATA / "dataset_info.json", [])


def make_eval() -> None:
    """The five benchmarks."""
    write_list(
        EVAL / "maze.json",
        [
            {
                "question": "Follow: right, down. Which letter?",
                "options": ["A. (0, 1)", "B. (1, 1)"],
                "problem_type": "multiple choice",
                "image_path": "maze/1.png",
                "answer": "B",
                "grid_size": 3,
            }
        ],
    )
    picture(EVAL / "maze/1.png", (84, 84))
    write_list(
        EVAL / "SpatialEval_spatialreal.json",
        [
            {
                "question": "What is left of the door?",
                "options": ["A. a plant", "B. a lamp"],
                "problem_type": "multiple choice",
                "image_path": "SpatialEval_spatialreal/1.png",
                "answer": "A",
            }
        ],
    )
    picture(EVAL / "SpatialEval_spatialreal/1.png", (112, 84))
    frames = [f"vsi_bench/scene0/{number}.png" for number in range(16)]
    write_list(
        EVAL / "vsi_bench.json",
        [
            {
                "question": "How many chairs are in this room?",
                "problem_type": "regression",
                "answer": "4",
                "image_path": frames,
                "original_question_type": "object_counting",
            },
            {
                "question": "Standing at the table, is the door to my left?",
                "options": ["A. yes", "B. no"],
                "problem_type": "multiple choice",
                "answer": "B",
                "image_path": frames,
                "original_question_type": "object_rel_direction_easy",
            },
        ],
    )
    for number, frame in enumerate(frames):
        picture(EVAL / frame, (28, 28), line=(0, number, 27, number))
    write_lines(
        EVAL / "spar_bench.jsonl",
        [
            {
                "question": "How far is the red point? Answer using a single number and nothing else.",
                "problem_type": "regression",
                "answer": "1.4",
                "image_path": ["spar_bench/1.png"],
                "original_question_type": "depth_prediction_oc",
                "data_type": "single_view",
            },
            {
                "question": "Which box in the second view is the same? "
                "Your answer can only include one of options A, B, C or D.",
                "options": ["A. [1, 2, 300, 400]", "B. [5, 6, 700, 800]"],
                "problem_type": "multiple choice",
                "answer": "A",
                "image_path": ["spar_bench/1.png", "spar_bench/2.png"],
                "original_question_type": "position_matching",
                "data_type": "multi_view",
            },
            {
                "question": "How did the camera move?",
                "problem_type": "vci",
                "options": None,
                "answer": "move_right:0.3,rotate_left:20",
                "image_path": ["spar_bench/1.png", "spar_bench/2.png"],
                "original_question_type": "view_change_infer",
                "data_type": "multi_view",
            },
        ],
    )
    picture(EVAL / "spar_bench/1.png", (56, 56))
    picture(EVAL / "spar_bench/2.png", (84, 56))
    write_list(
        EVAL / "mmsi_bench.json",
        [
            {
                "question": "In which direction did the camera turn?",
                "options": ["A. left", "B. right", "C. up"],
                "problem_type": "multiple choice",
                "answer": "C",
                "image_path": ["mmsi_bench/1.png"] * 2,
                "original_question_type": "Motion (Cam.)",
                "data_type": "multi_view",
            }
        ],
    )
    picture(EVAL / "mmsi_bench/1.png", (56, 56))


if __name__ == "__main__":
    for folder in (DATA, EVAL):
        shutil.rmtree(folder, ignore_errors=True)
    make_data()
    make_eval()
