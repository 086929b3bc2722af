"""``varytoy evaluate``: answers, scores, intervals, resuming, other readers."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from conftest import forked
from PIL import Image, ImageDraw, ImageFont
from test_serving import Running

from varytoy.cli import main
from varytoy.evaluation.case import Case
from varytoy.evaluation.metric import F1, Mean
from varytoy.evaluation.suite import SUITES, Suite
from varytoy.folder_lock import locked
from varytoy.inference.reader import Reader
from varytoy.tasks import metrics

LINES = ("Bright vixens jump", "Dozy fowl quack", "Waltz bad nymph")


class Drawn(Suite):
    """Pictures with the text that is their name."""

    name = "drawn"
    help = "drawn lines"
    layout = "PNG files"

    def cases(self, folder, options):
        files = sorted(folder.glob("*.png"))
        return [Case(file.stem, "ocr", file, references=(file.stem,), group=file.stem[0]) for file in files]

    def metrics(self, options):
        return [
            Mean("edit distance", lambda said, case: metrics.normalised_edit_distance(said.text, case.truth), True),
            F1("F1", lambda said, case: (len(said.boxes), len(said.boxes), 1)),
        ]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES, "drawn", Drawn())
    font = ImageFont.load_default(size=22)
    folder = tmp_path / "drawn"
    folder.mkdir()
    for line in LINES:
        image = Image.new("RGB", (280, 200), "white")  # RapidOCR enlarges the shorter side to 736 pixels
        ImageDraw.Draw(image).text((10, 80), line, font=font, fill="black")
        image.save(folder / f"{line}.png")
    return folder


@pytest.fixture(scope="module")
def nano():
    return Reader.from_pretrained("nano", "cpu")


@pytest.fixture(autouse=True)
def once(nano, monkeypatch):
    """Load nano once for all tests."""
    monkeypatch.setattr(Reader, "from_pretrained", lambda *words: nano)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]


def test_a_model_is_measured_and_a_stopped_run_goes_on(drawn, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["evaluate", "drawn", str(drawn), "--out", str(run)]) == 0
    table = json.loads((run / "table.json").read_text("utf-8"))
    whole, *groups = table["rows"]
    assert (whole["group"], whole["cases"], whole["failures"]) == ("all", 3, 0) and len(groups) == 3
    value = whole["values"]["edit distance"]
    assert value["low"] <= value["value"] <= value["high"] and value["is_error"] and value["value"] < 0.2
    assert groups[0]["values"]["edit distance"]["low"] is None  # of a single picture there is no interval
    assert "| edit distance ↓ |" in capsys.readouterr().out and (run / "table.md").is_file()
    assert Image.open(run / "worst.png").width > 1000
    before = rows(run)
    assert all(row["scores"]["edit distance"] == row["scores"]["edit distance"] for row in before)
    # Killed in the middle of the second line.
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    marked = json.dumps({**before[0], "prediction": "kept"}).encode() + b"\n"
    (run / "predictions.jsonl").write_bytes(marked + lines[1][:40])
    assert main(["evaluate", "drawn", str(drawn), "--out", str(run)]) == 0
    after = rows(run)
    assert after[0]["prediction"] == "kept" and [row["id"] for row in after] == sorted(LINES)
    assert [row["prediction"] for row in after[1:]] == [row["prediction"] for row in before[1:]]


def test_a_folder_of_other_settings_is_left_alone(drawn, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["evaluate", "drawn", str(drawn), "--out", str(run), "--limit", "1"]) == 0
    assert main(["evaluate", "drawn", str(drawn), "--out", str(run)]) == 2
    assert "was made with limit 1, not None; name a new folder" in capsys.readouterr().err
    assert main(["evaluate", "drawn", str(drawn), "--out", str(drawn)]) == 2
    assert "holds other files" in capsys.readouterr().err


def test_a_folder_that_another_process_writes_is_left_alone(drawn, tmp_path, capsys):
    run = tmp_path / "run"
    held, asked = multiprocessing.Event(), multiprocessing.Event()

    def hold() -> None:
        with locked(run, ""):
            held.set()
            asked.wait(60)

    other = forked(hold)
    try:
        assert held.wait(30)
        assert main(["evaluate", "drawn", str(drawn), "--out", str(run)]) == 2
        assert f"in use by process {other.pid} on" in capsys.readouterr().err
    finally:
        asked.set()
        other.join()
    assert not run.exists()


def test_a_picture_that_cannot_be_read_counts_as_an_empty_answer(drawn, tmp_path, capsys):
    (drawn / f"{LINES[0]}.png").write_bytes(b"no picture")
    run = tmp_path / "run"
    assert main(["evaluate", "drawn", str(drawn), "--engine", "tesseract", "--out", str(run)]) == 0
    assert "1 of 3 cases have no answer, first: " in capsys.readouterr().err
    failed = next(row for row in rows(run) if row["error"])
    assert failed["prediction"] == "" and failed["scores"]["edit distance"] == 1.0
    (whole, *_) = json.loads((run / "table.json").read_text("utf-8"))["rows"]
    assert whole["failures"] == 1 and whole["values"]["edit distance"]["value"] > 0.33


@pytest.mark.parametrize("engine", ["tesseract", "rapidocr", pytest.param("rapidocr-v4", marks=pytest.mark.slow)])
def test_other_readers_stand_beside_it(drawn, tmp_path, engine):
    run = tmp_path / "run"
    assert main(["evaluate", "drawn", str(drawn), "--engine", engine, "--out", str(run)]) == 0
    (whole, *_) = json.loads((run / "table.json").read_text("utf-8"))["rows"]
    assert whole["values"]["edit distance"]["value"] < 0.2 and whole["failures"] == 0
    assert json.loads((run / "run.json").read_text("utf-8"))["version"][0].isdigit()
    boxes = [box for row in rows(run) for box in row["boxes"]]
    assert len(boxes) >= 3 and all(box["label"] for box in boxes)


def test_a_server_is_asked_with_openais_api(drawn, tmp_path, nano, capsys):
    run, reader = tmp_path / "run", nano.shared()
    with Running(reader) as url:
        assert main(["evaluate", "drawn", str(drawn), "--engine", f"openai:{url}", "--out", str(run)]) == 0
    reader.close()
    (whole, *_) = json.loads((run / "table.json").read_text("utf-8"))["rows"]
    assert whole["values"]["edit distance"]["value"] < 0.2 and whole["failures"] == 0
    assert main(["evaluate", "drawn", str(drawn), "--engine", f"openai:{url}"]) == 2  # it is gone
    assert f"--engine openai:{url}: " in capsys.readouterr().err


def test_words_of_the_command_line(drawn, capsys):
    assert main(["evaluate", "drawn", str(drawn), "--engine", "magic"]) == 2
    assert "no engine 'magic'; there are varytoy, tesseract" in capsys.readouterr().err
    shutil.rmtree(drawn)
    drawn.mkdir()
    assert main(["evaluate", "drawn", str(drawn)]) == 2
    assert "no cases for drawn; it expects PNG files" in capsys.readouterr().err
