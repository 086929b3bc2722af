"""Data for the lmms-eval tasks of this folder, from drawn text and demo/photos: python tests/lmms_tasks/make.py OUT"""

import sys
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw, ImageFont

PHOTOS = Path(__file__).resolve().parents[2] / "demo" / "photos"
LINES = ("Reading is quick", "Invoice 4711 of May 3", "Two lines here,\nand no more.", "Total: 18.50 EUR")
PHRASES = (("hopper", "hat", [125, 20, 192, 137]), ("eagle", "bird", [90, 57, 307, 241]))
"""Photograph, phrase, and its box [x, y, width, height] in pixels, as marked by hand."""
QUESTIONS = (
    ("hopper", "Is the woman wearing a hat?", "yes"),
    ("hopper", "How many people are there?", "1"),
    ("eagle", "What animal is this?", "bird"),
)


def drawn(text: str) -> Image.Image:
    image = Image.new("RGB", (420, 40 + 36 * len(text.splitlines())), "white")
    ImageDraw.Draw(image).text((20, 18), text, "black", font=ImageFont.load_default(size=24))
    return image


def photo(name: str) -> Image.Image:
    return Image.open(PHOTOS / f"{name}.jpg").convert("RGB")


def write(folder: Path) -> None:
    """``reading``: lines of text, in OCRBench's columns; ``questions``: in DocVQA's; ``grounding``: in RefCOCO's."""
    kind = "Regular Text Recognition"
    reading = [
        {"image": drawn(text), "question": "what is written in the image?", "answer": [" ".join(text.split())]}
        | {"question_type": kind, "dataset": "drawn"}
        for text in LINES
    ]
    questions = [
        {"image": photo(name), "question": question, "answers": [answer], "questionId": str(number)}
        for number, (name, question, answer) in enumerate(QUESTIONS)
    ]
    grounding = [
        {"image": photo(name), "answer": [phrase, f"the {phrase}"], "bbox": [float(side) for side in box]}
        | {"question_id": str(number)}
        for number, (name, phrase, box) in enumerate(PHRASES)
    ]
    texts, listed = Value("string"), List(Value("string"))
    columns = {
        "reading": {"question": texts, "answer": listed, "question_type": texts, "dataset": texts},
        "questions": {"question": texts, "answers": listed, "questionId": texts},
        "grounding": {"answer": listed, "bbox": List(Value("float64")), "question_id": texts},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for (name, rest), rows in zip(columns.items(), (reading, questions, grounding), strict=True):
        features = Features({"image": ImageFeature(), **rest})
        Dataset.from_list(rows, features=features).to_parquet(str(folder / f"{name}.parquet"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
