"""Small folders of stored rows."""

import io
from pathlib import Path

from PIL import Image

from vilasr_jax.files import write_json
from vilasr_jax.tasks.stored import IMAGE_MARK, INDEX, StoredRow, write_shard


def png(width: int = 56, height: int = 56) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(out, "png")
    return out.getvalue()


def stored_row(number: int, trace: bool = False) -> StoredRow:
    """A choice question about a white picture; `trace` gives it a recorded answer."""
    question = f"Question {number}?"
    messages = [
        {"role": "user", "content": f"{IMAGE_MARK}{question}"},
        {"role": "assistant", "content": "<think> . </think> Action: Answer\n<answer> A </answer>"},
    ]
    return StoredRow(
        id=f"row-{number}",
        question=question,
        answer="A",
        question_type="multiple choice",
        options=("A", "B"),
        images=(png(),),
        data_type="vqa",
        messages=tuple(messages) if trace else (),
    )


def recorded_conversation(messages: list[dict], name: str = "row", **fields) -> StoredRow:
    """The messages of a session as a stored row, its images as PNG."""
    parts = [part for message in messages for part in message["content"]]
    images = []
    for part in parts:
        if "image" in part:
            out = io.BytesIO()
            part["image"].save(out, "png")
            images.append(out.getvalue())
    said = [
        {"role": m["role"], "content": "".join(part.get("text", IMAGE_MARK) for part in m["content"])}
        for m in messages
    ]
    plain = {"question": "?", "answer": "", "question_type": "free-form", "options": (), "data_type": "vqa"}
    row = StoredRow(id=name, images=tuple(images), messages=tuple(said), **{**plain, **fields})
    return StoredRow.from_bytes(row.to_bytes())


def write_rows(folder: Path, count: int, trace: bool = False) -> Path:
    """A folder of `count` rows, as an import leaves it."""
    rows = [stored_row(number, trace).to_bytes() for number in range(count)]
    write_shard(folder / "rows-00000.array_record", rows, {})
    write_json(folder / INDEX, {"format": "made", "rows": count, "shards": ["rows-00000.array_record"]})
    return folder
