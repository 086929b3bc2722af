"""Erasing, replacing and writing words: the data, the training of an image decoder, and drawing in a picture."""

import json

import numpy as np
import pytest
import torch
from conftest import noise, picture_source, text_source, tiny_recipe
from PIL import Image

from data_tools.render.looks import Look
from data_tools.render.word_pairs import SIZE, WordPairRenderer
from data_tools.writer import write_samples
from train import rendering
from train.__main__ import main as train
from train.drawing import figures, inpainted, pasted
from train.drawing import main as measure_drawing
from train.loop import run
from train.objectives.drawing import Drawing, drawing_loss, export_decoder, pictures_of
from train.recipe import RecipeError
from varytoy import cli
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer, Region
from varytoy.data.samples import read_samples
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.draw_files import find_words
from varytoy.inference.drawing import NOTE, Drawer, save
from varytoy.inference.reader import Reader
from varytoy.models.image_decoder import Drawn, TextUNet, TextUNetConfig
from varytoy.processing.glyphs import draw_glyphs

SHAPE = {"channels": [8, 16, 24], "latents": 4}


@pytest.fixture(scope="module")
def look(tmp_path_factory) -> Look:
    return Look(text_source(picture_source(tmp_path_factory.mktemp("source"))), "train")


@pytest.fixture(scope="module")
def pairs(look, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_samples(folder, 3, WordPairRenderer(look, 4, strength=0.0), workers=1)
    return folder


@pytest.fixture
def drawer(model, processor) -> Drawer:
    size = model.config.text_config.hidden_size
    return Drawer(TextUNet(TextUNetConfig(state_size=size, **SHAPE)), BatchingEngine(model, processor))


def test_pairs_differ_in_their_place_alone(pairs):
    samples = list(read_samples(pairs))
    assert [sample.task for sample in samples] == ["erase", "edit", "generate"] * 3
    for sample in samples:
        picture, target = sample.open_images()[0], sample.open_target_images()[0]
        x1, y1, x2, y2 = (round(side) for side in sample.boxes[0].to_pixels(*SIZE))
        differs = np.any(np.asarray(picture) != np.asarray(target), axis=2)
        assert picture.size == SIZE and differs[y1:y2, x1:x2].any()
        differs[y1:y2, x1:x2] = False
        assert not differs.any(), sample.id
        wanted = sample.annotations.wanted_text
        assert (wanted in sample.prompt) and bool(wanted) == (sample.task != "erase")
        assert (sample.annotations.plain_text or "") != wanted or sample.task == "generate"


def test_a_trained_decoder_draws(pairs, tmp_path, processor):
    """The loss falls; the exported decoder works beside the checkpoint."""
    chosen = tiny_recipe(pairs, tmp_path / "run", clip=True, batch_size=9, max_steps=25, learning_rate=5e-3, warmup=2)
    chosen.objectives = {"drawing": Drawing.Settings(1.0, **SHAPE)}
    run(chosen)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [row["loss_drawing"] for row in rows if "loss_drawing" in row]
    assert found[-1] < 0.8 * found[0]
    assert train(["export", str(tmp_path / "run"), str(tmp_path / "run" / "drawing"), "--drawing"]) == 0
    reader = Reader.from_pretrained(str(tmp_path / "run"), "cpu")
    answer = reader.ask(noise(200, 100), "edit", "Hi", place=(20, 20, 90, 50))
    assert "edit" in reader.tasks and answer.image.size == (200, 100) and answer.text == "Hi"
    with pytest.raises(ValueError, match="the task 'erase' needs the place of the text"):
        reader.shared().ask(noise(200, 100), "erase")


def test_a_run_without_decoder_exports_none(tmp_path, pairs):
    run(tiny_recipe(pairs, tmp_path / "run", max_steps=1))
    with pytest.raises(RecipeError, match="has no image decoder"):
        export_decoder(tmp_path / "run", tmp_path / "out")
    with pytest.raises(ModelError, match="has no image decoder"):
        _ = Reader.from_pretrained(str(tmp_path / "run"), "cpu").drawer


def test_the_loss_is_zero_for_the_true_picture(pairs):
    sample = next(each for each in read_samples(pairs) if each.task == "edit")
    true = {name: each[None] for name, each in pictures_of(sample, sample.open_images()[0]).items()}
    letters = (true["target"] != true["clean"]).any(1, keepdim=True)
    drawn = Drawn(true["target"], true["clean"], torch.where(letters, 20.0, -20.0))
    assert drawing_loss(drawn, true["target"], true["clean"], true["mask"]) < 0.4  # edges of letters are between
    other = drawing_loss(drawn._replace(picture=true["picture"]), true["target"], true["clean"], true["mask"])
    assert other > drawing_loss(drawn, true["target"], true["clean"], true["mask"]) + 0.01
    assert true["glyphs"].sum() > 0 and not (true["glyphs"] * (1 - true["mask"])).any()


def test_only_the_place_changes(drawer):
    """Of any size, at the picture's edges too, and bit by bit elsewhere."""
    torch.nn.init.normal_(drawer.decoder.fine[-1].weight, std=0.5)
    image = noise(300, 220)
    for box in ((40, 40, 160, 90), (-20, 150, 60, 400), (0, 0, 300, 220), (10, 10, 290, 22)):
        before, after = np.asarray(image), np.asarray(drawer.edit(image, box, "Hi"))
        x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], 300), min(box[3], 220)
        differs = np.any(before != after, axis=2)
        assert differs[y1:y2, x1:x2].any()
        differs[y1:y2, x1:x2] = False
        assert not differs.any()


def test_the_states_and_the_letters_matter(drawer):
    picture, mask = torch.rand(2, 3, 64, 128), torch.ones(2, 1, 64, 128)
    for module in (
        drawer.decoder.fine[-1],
        *(each.change for each in drawer.decoder.modules() if hasattr(each, "change")),
    ):
        torch.nn.init.normal_(module.weight, std=0.5)
    states, glyphs = torch.randn(2, 5, drawer.decoder.config.state_size), torch.rand(2, 1, 64, 128)
    first = drawer.decoder(picture, mask, glyphs, states).picture
    assert not torch.equal(first, drawer.decoder(picture, mask, glyphs, -states).picture)
    assert not torch.equal(first, drawer.decoder(picture, mask, 1 - glyphs, states).picture)
    padded = torch.cat([states, torch.randn(2, 3, states.shape[2])], 1)
    known = torch.arange(8).expand(2, -1) < 5
    assert torch.allclose(first, drawer.decoder(picture, mask, glyphs, padded, known).picture, atol=1e-4)
    drawer.decoder.config.glyphs = False
    assert torch.equal(
        drawer.decoder(picture, mask, glyphs, states).picture, drawer.decoder(picture, mask, 1 - glyphs, states).picture
    )


@pytest.mark.parametrize(
    ("box", "text", "problem"),
    [
        ((10, 10, 12, 40), "x", "less than 4 x 4 pixels"),
        ((900, 900, 950, 950), "x", "less than 4 x 4 pixels"),
        ((40, 40, 160, 90), "\u6f22", "the letter '\u6f22' cannot be written yet"),
        ((40, 40, 60, 50), "a long text for a small place", "too long for the place"),
        ((40, 40, 160, 90), "", "the task 'edit' needs the words to write"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(drawer, box, text, problem):
    with pytest.raises(ValueError, match=problem):
        drawer.edit(noise(200, 120), box, text)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_file_says_that_it_was_changed(tmp_path, suffix):
    save(noise(30, 20), tmp_path / f"x{suffix}")
    assert NOTE.encode() in (tmp_path / f"x{suffix}").read_bytes()


def test_glyphs_stand_in_their_box():
    drawn = np.asarray(draw_glyphs("Word", (40, 10, 200, 54), (256, 64)))
    rows, columns = np.nonzero(drawn)
    assert 10 <= rows.min() < rows.max() < 54 and 40 <= columns.min() < columns.max() < 200
    assert abs((columns.min() + columns.max()) / 2 - 120) < 3
    assert Image.fromarray(drawn).mode == "L"


# --- the command line ---


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    size = model.config.text_config.hidden_size
    TextUNet(TextUNetConfig(state_size=size, **SHAPE)).save_pretrained(tmp_path / "model" / "drawing")
    return tmp_path / "model"


def test_commands_write_pictures(folder, tmp_path, capsys):
    noise(200, 120).save(tmp_path / "x.png")
    model = ["--model", str(folder), "--device", "cpu"]
    box = ["--box", "20,20,150,60", *model]
    for number, words in enumerate(
        (
            ["erase", str(tmp_path / "x.png"), *box],
            ["edit", str(tmp_path / "x.png"), "--text", "New", *box],
            ["draw", "New", *model],
        )
    ):
        out = tmp_path / f"{number}.png"
        assert cli.main([*words, "--out", str(out)]) == 0, capsys.readouterr().err
        with Image.open(out) as image:
            assert image.size == ((512, 128) if words[0] == "draw" else (200, 120))
            assert image.text["Description"] == NOTE


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["erase", "x.png", "--out", "y.png"], "which text? give --box X1,Y1,X2,Y2 around it, or --word"),
        (["erase", "x.png", "--out", "y"], "--out y: name a picture, such as y.png"),
        (["erase", "x.png", "--box", "red", "--out", "y.png"], "--box: "),
        (["erase", "x.png", "--box", "1,2", "--out", "y.png"], "--box: '1,2' is no part of an image"),
        (["edit", "x.png", "--box", "1,2,90,80", "--text", "\u6f22", "--out", "y.png"], "the letter '\u6f22'"),
    ],
)
def test_a_wrong_command_is_one_sentence(folder, tmp_path, capsys, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    noise(200, 120).save("x.png")
    assert cli.main([*words, "--model", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"varytoy: {problem}") and said.count("\n") == 1


def test_words_are_found_by_reading():
    def line(y, *texts):
        parts = tuple(Region((40 * n, y, 40 * n + 30, y + 10), text=text) for n, text in enumerate(texts))
        return Region((0, y, 200, y + 10), text=" ".join(texts), parts=parts)

    answer = Answer(
        "", regions=[Region((0, 0, 200, 50), text="x", parts=(line(0, "Open", "daily"), line(20, "Open", "late")))]
    )
    assert find_words(answer, "open DAILY") == (0, 0, 70, 10) and find_words(answer, "late") == (40, 20, 70, 30)
    with pytest.raises(ValueError, match=r"'Open' stands in 2 places \(0,0,30,10; 0,20,30,30\): give the place"):
        find_words(answer, "Open")
    with pytest.raises(ValueError, match="'Closed' was not read in this picture"):
        find_words(answer, "Closed")


# --- the measurement ---


def test_figures_are_means_over_crops():
    """What is left of erased text counts from half of it; words are right if all letters are."""
    alike = {"psnr": 20.0, "ssim": 0.5, "age": 3.0, "p_eps": 0.1, "p_ceps": 0.0}
    about = {"method": "model", "old": "Open", "wanted": "Shut"} | alike
    rows = [{"task": "erase", "read": {"r": said}} | about for said in ("", "Op", "Open", "x")]
    rows += [{"task": "edit", "read": {"r": said}} | about for said in ("Shut", "Shot", "", "Shut")]
    found = figures(rows)
    assert found["erase"]["model"]["r: text left"]["value"] == 0.5
    edited = found["edit"]["model"]
    assert edited["r: words right"]["value"] == 0.5 and edited["r: similarity"]["value"] == pytest.approx(0.6875)
    assert edited["psnr"] == {"value": 20.0, "low": 20.0, "high": 20.0} and edited["count"]["value"] == 4


def test_baselines_stay_in_the_box(look):
    images, _ = WordPairRenderer(look, 4, strength=0.0)(1)
    picture, box = images["old"], (60, 10, 200, 54)
    drawn = [inpainted(picture, box, "telea"), inpainted(picture, box, "navier-stokes")]
    drawn.append(pasted(picture, box, "Word", "Other", look.source))
    for each in drawn:
        differs = np.any(np.asarray(each) != np.asarray(picture), axis=2)
        differs[10:54, 60:200] = False
        assert not differs.any()
    assert np.any(np.asarray(drawn[0]) != np.asarray(drawn[2]))


@pytest.mark.slow
def test_the_measurement_runs_once(folder, look, tmp_path, capsys, monkeypatch):
    """Real readers, two pairs; finished rows are kept. There are no fonts for tests alone."""
    render = rendering.data_tools
    monkeypatch.setattr(rendering, "data_tools", lambda words: render([{"test": "train"}.get(w, w) for w in words]))
    words = ["--source", str(look.source), "--model", str(folder), "--out", str(tmp_path / "out"), "--count", "2"]
    assert measure_drawing(words) == 0
    said = capsys.readouterr().out
    rows = (tmp_path / "out" / "rows.jsonl").read_text()
    assert "erase, 2 crops" in said and "nearest font" in said and len(rows.splitlines()) == 2 * (5 + 5 + 4)
    assert measure_drawing(words) == 0 and (tmp_path / "out" / "rows.jsonl").read_text() == rows
