import re
from pathlib import Path

import markdown_it
import numpy as np
import pytest
from conftest import TEXT, text_source

from data_tools.__main__ import main
from data_tools.assets.packages import SourceError
from data_tools.assets.sources import paragraphs
from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.writer import write_samples
from varytoy.data.samples import read_samples

CLEAN = {"degrade": 0.0, "blank": 0.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return text_source(tmp_path_factory.mktemp("source"))


def rendered(source: Path, count: int = 40, seed: int = 1, **options) -> list:
    """(picture, row) of the first blocks of the training split."""
    renderer = BlockRenderer(source, seed, "train", BlockOptions(**options))
    return [(image, rows[0]) for image, rows in map(renderer, range(count))]


def answer(row: dict) -> str:
    return row["messages"][-1]["content"]


def test_a_block_depends_on_its_index_alone(source):
    first, second = (BlockRenderer(source, 3) for _ in range(2))
    for index in (4, 0, 2):
        image, rows = first(index)
        again, rows_again = second(index)
        assert image.tobytes() == again.tobytes() and rows == rows_again
    assert answer(BlockRenderer(source, 4)(0)[1][0]) != answer(first(0)[1][0])


def test_what_is_printed_stands_where_the_row_says(source):
    """Every letter of the answer in its order, and ink at nearly all of their places."""
    for image, row in rendered(source, formatted=False, **CLEAN):
        annotations = row["annotations"]
        assert annotations["letters"] == "".join(answer(row).split())
        pixels = np.asarray(image.convert("L"), np.float32)
        paper, reach = np.median(pixels), round(0.6 * row["metadata"]["x_height"])
        inked = []
        for x, y in zip(annotations["letter_positions"][0::2], annotations["letter_positions"][1::2], strict=True):
            around = pixels[max(y - reach, 0) : y + reach + 1, max(x - 2, 0) : x + 3]
            inked.append(np.abs(around - paper).max() > 40)
        assert np.mean(inked) > 0.97, row["id"]


def test_lines_and_columns_keep_to_their_limits(source):
    for _, row in rendered(source, lines=(2, 5), columns=(10, 30), formatted=False, **CLEAN):
        lines = answer(row).split("\n")
        assert 1 <= len(lines) <= 5 and max(map(len, lines)) <= 30


def test_lines_stand_close_and_wide(source):
    """Line spacing from tight setting to beyond double."""
    pitches = []
    for _, row in rendered(source, 120, lines=(4, 8), columns=(20, 40), formatted=False, **CLEAN):
        rows = sorted(set(row["annotations"]["letter_positions"][1::2]))
        pitches.append(min(b - a for a, b in zip(rows, rows[1:], strict=False)) / row["metadata"]["x_height"])
    assert min(pitches) < 2.4 and max(pitches) > 3.6


def test_markdown_is_what_is_printed_with_its_marks(source):
    found = [row for _, row in rendered(source, 120, lines=(4, 8), **CLEAN) if row["task"] == "markdown"]
    assert len(found) > 10
    for row in found:
        bare = re.sub(r"(?m)^#+ |^- |\*\*", "", answer(row))
        printed = row["annotations"]["plain_text"].replace("\u2022 ", "")
        assert bare.split() == re.sub(r"(?m)^- ", "", printed).split()
    assert any("\n- " in answer(row) for row in found) and any(answer(row).startswith("# ") for row in found)
    assert any("**" in answer(row) for row in found)


def test_marks_in_the_text_are_not_printed_in_formatted_blocks(tmp_path):
    """What is printed would else have another meaning in markdown."""
    folder = text_source(tmp_path)
    text = "call __init__ or *args of a[0] # 1. first - second `quoted` | piped <tag> and more plain words here\n"
    (folder / "texts" / "python3.11-doc.txt").write_text(text, encoding="utf-8")
    found = [row for _, row in rendered(folder, 60, lines=(3, 6), **CLEAN) if row["task"] == "markdown"]
    assert len(found) > 5
    for row in found:
        shown = markdown_it.MarkdownIt().render(answer(row))
        words = re.sub(r"<[^>]+>", " ", shown).split()
        printed = re.sub(r"(?m)^(\u2022|-|\d\.) ", "", row["annotations"]["plain_text"])
        assert words == printed.split()


def test_an_interrupted_overwrite_leaves_no_old_answers(source, tmp_path):
    command = ["render", "blocks", "--out", str(tmp_path), "--count", "4", "--workers", "1", "--source", str(source)]
    assert main(command) == 0

    class Stopped(Exception):
        pass

    def stopping(index: int):
        if index == 2:
            raise Stopped
        return BlockRenderer(source, 2)(index)

    with pytest.raises(Stopped):
        write_samples(tmp_path, 4, stopping, workers=1, overwrite=True)
    assert not (tmp_path / "samples.jsonl").exists()


def test_repeats_bring_the_same_few_words_back(source):
    for _, row in rendered(source, lines=(6, 8), columns=(40, 60), repeats=1.0, **CLEAN):
        words = answer(row).split()
        assert len(set(words)) <= 45 and len(words) > 1.5 * len(set(words))


def test_a_blank_block_has_no_text(source):
    for image, row in rendered(source, 5, blank=1.0, degrade=0.0):
        assert answer(row) == ""
        assert np.asarray(image.convert("L"), np.float32).std() < 25


def test_held_out_text_and_fonts_are_for_tests_alone(tmp_path):
    folder = text_source(tmp_path)
    (folder / "texts" / "postgresql-doc-15.txt").write_text("Nobody trains on vacuumed tables.\n", encoding="utf-8")
    assert paragraphs(folder, "train") == (TEXT,)
    assert paragraphs(folder, "test") == ("Nobody trains on vacuumed tables.",)
    with pytest.raises(SourceError, match="no test fonts in .*data_tools fetch"):
        BlockRenderer(folder, 1, "test")


def test_the_program_writes_samples_and_says_what_is_missing(source, tmp_path, capsys):
    command = [
        "render",
        "blocks",
        "--out",
        str(tmp_path / "out"),
        "--count",
        "3",
        "--workers",
        "1",
        "--lines",
        "1-2",
        "--source",
    ]
    assert main([*command, str(source)]) == 0
    assert len([sample.open_images() for sample in read_samples(tmp_path / "out")]) == 3
    assert main([*command, str(source)]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*command, str(tmp_path), "--overwrite"]) == 2
    assert "data_tools fetch" in capsys.readouterr().err


def test_texts_and_fonts_of_ones_own(source, tmp_path, capsys):
    """Only their words, without those that hold a letter that is not known; a tenth is kept for the test split."""
    parts = [f"Paragraaf woord{number} gaat over co\u00f6rdinatie en kopi\u00ebren." for number in range(60)]
    (tmp_path / "mine.txt").write_text("\n\n".join(parts), encoding="utf-8")
    own = ["--fonts", str(source / "fonts"), "--source", "nowhere", "--workers", "1"]
    printed = {}
    for split in ("train", "test"):
        folder = tmp_path / split
        arguments = ["render", "blocks", "--out", str(folder), "--count", "40", "--plain", "--split", split]
        assert main([*arguments, "--texts", str(tmp_path / "mine.txt"), *own]) == 0
        printed[split] = {word for sample in read_samples(folder) for word in sample.answer.split()}
    words = printed["train"] | printed["test"]
    assert {"Paragraaf", "co\u00f6rdinatie"} <= words and not any("kopi" in word for word in words)
    numbered = [{word for word in words if re.fullmatch(r"woord\d+", word)} for words in printed.values()]
    assert all(numbered) and not numbered[0] & numbered[1]
    assert "\u00eb (60)" in capsys.readouterr().err
    (tmp_path / "few.txt").write_text("Short.", encoding="utf-8")
    assert main(["render", "blocks", "--out", str(tmp_path / "none"), "--texts", str(tmp_path / "few.txt"), *own]) == 2
    assert "0 paragraphs of 20" in capsys.readouterr().err
