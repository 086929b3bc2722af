"""Photographs: the importer of captions and phrases, word pieces, weights of an image net, the model for pictures."""

import json
import shutil
from collections import Counter

import pytest
import torch
from conftest import noise, picture_source
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from data_tools.__main__ import main
from data_tools.assets import image_nets
from data_tools.assets.packages import SourceError
from data_tools.importers.entities import clean, find_words
from train import contact_sheet
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.experiments import nano_pictures
from train.recipe import DataSettings
from varytoy.data.boxes import format_box, on_grid
from varytoy.data.samples import read_samples
from varytoy.inference.reader import Reader
from varytoy.models.config import TimmConfig, VaryConfig, read_preset
from varytoy.models.vision import TimmBranch
from varytoy.processing.tokenizer import character_tokenizer, word_piece_tokenizer

PHOTO = {
    "id": "7",
    "captions": [{"text": "A man in a red shirt is riding a horse ."}, {"text": "Two dogs watch a man riding ."}],
    "entities": [
        {
            "type": "people",
            "phrases": ["a man", "a man in a red shirt"],
            "boxes": [[100, 200, 400, 900], [105, 205, 400, 900]],
        },
        {"type": "clothing", "phrases": ["a red shirt"], "boxes": [[150, 300, 350, 500]]},
        {"type": "animals", "phrases": ["two dogs"], "boxes": [[500, 700, 600, 900], [700, 700, 820, 900]]},
        {"type": "scene", "phrases": ["a field"], "boxes": []},
        {"type": "other", "phrases": ["a thread"], "boxes": [[10, 10, 12, 900]]},
    ],
}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for number in range(12):
        lines.append(json.dumps({**PHOTO, "id": str(number)}))
        noise(224, 224, number).save(folder / f"{number}.png")
    (tmp_path / "photos.jsonl").write_text("\n".join(lines))
    return tmp_path


def imported(photos, *options: str) -> list:
    out = photos / f"out{len(list(photos.iterdir()))}"
    words = [
        "--annotations",
        str(photos / "photos.jsonl"),
        "--out",
        str(out),
        "--images",
        str(photos / "photos"),
        "--suffix",
        ".png",
        *options,
    ]
    assert main(["entities", *words]) == 0
    return list(read_samples(out))


def test_a_photograph_gives_captions_phrases_boxes_and_questions(photos):
    samples = imported(photos, "--limit", "14", "--evaluate")
    tasks = ("caption", "ground", "detect", "vqa")
    by_task = {task: [sample for sample in samples if sample.task == task] for task in tasks}
    (caption,) = by_task["caption"][:1]
    assert caption.answer == "A man in a red shirt is riding a horse." and len(caption.annotations.references) == 2
    phrases = {sample.boxes[0].label: sample for sample in by_task["ground"]}
    assert set(phrases) == {"a man", "a man in a red shirt", "a red shirt", "two dogs"}  # no box, a sliver: left out
    assert phrases["two dogs"].boxes[0].xyxy == (500, 700, 820, 900) and phrases["two dogs"].metadata["boxes"] == 2
    assert phrases["a man"].answer == "[100, 200, 400, 900]" and phrases["a man"].prompt == "Detect an object: a man."
    assert by_task["detect"][0].answer == (
        "people: [100, 200, 400, 900]; animals: [500, 700, 600, 900], [700, 700, 820, 900];"
    )  # of two boxes of one man one
    answers = {sample.prompt.split("?")[0]: sample.annotations.references for sample in by_task["vqa"]}
    assert answers["How many people are there"] == ["1"] and answers["What color is the shirt"] == ["red"]
    assert answers["What is the person doing"] == ["riding"] and answers["Is there a man"] == ["yes"]


def test_as_many_things_are_absent_as_present_where_there_are_others(photos):
    rows = [json.loads(line) for line in (photos / "photos.jsonl").read_text().splitlines()]
    for row in rows[6:]:
        row["entities"] = [{"type": "vehicles", "phrases": ["a truck", "a wheel"], "boxes": [[1, 1, 500, 500]]}]
        row["captions"] = [{"text": "A truck ."}]
    (photos / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    questions = [sample for sample in imported(photos) if sample.metadata.get("kind") == "presence"]
    answers = Counter((sample.id.split("-")[0], sample.answer) for sample in questions)
    assert answers["8", "yes"] == answers["8", "no"] == 2 and answers["1", "no"] == 2


def test_the_words_have_an_order(photos):
    """Sets of words are ordered by Python's hash seed, which differs between processes."""
    rows = [json.loads(line) for line in (photos / "photos.jsonl").read_text().splitlines()]
    nouns = find_words(rows).nouns
    assert nouns == sorted(nouns) and len(set(nouns)) > 3


def test_words_of_the_importer(photos):
    assert clean("a dog , wet , runs .") == "A dog, wet, runs."
    (photos / "photos.jsonl").write_text('{"id": 3}')
    assert main(["entities", "--annotations", str(photos / "photos.jsonl"), "--out", str(photos / "none")]) == 2


def test_boxes_on_a_grid_are_written_in_tokens_of_their_own(photos, tmp_path):
    assert on_grid((0, 15, 16, 1000), 64) == (8, 8, 23, 992)
    folder = imported(photos)[0].folder
    settings = DataSettings(str(folder), tasks=["ground"], bins=4)
    sample = SampleDataset([settings], 0, BadSamples()).samples[0]
    assert set(sample.boxes[0].xyxy) <= {125, 375, 625, 875} and sample.answer == format_box(sample.boxes[0].xyxy)
    assert main(["tokenizer", "--out", str(tmp_path / "pieces"), str(folder), "--bins", "4"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "pieces")
    assert len(tokenizer.encode(f"{sample.answer} {sample.answer}", add_special_tokens=False)) == 8


def test_word_pieces_stand_behind_the_characters():
    characters = read_preset("nano")["processor"]["characters"]
    texts = ["A child in a pink dress.", "[008, 023, 555, 992]", "What is in this picture?"] * 50
    pieces, plain = word_piece_tokenizer(texts, characters, 512, 600, 64), character_tokenizer(characters, 512, 64)
    text = "A child in a blue dress [008, 023, 555, 992] <|im_end|> \u00e9 \u65e5"
    ids = pieces.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert pieces.decode(ids) == text and len(pieces) <= 600
    assert len(ids) < 0.7 * len(plain.encode(text, add_special_tokens=False, split_special_tokens=True))
    assert all(pieces.get_vocab()[token] == number for token, number in plain.get_vocab().items())
    assert pieces.eos_token == "<|im_end|>" and pieces.eos_token_id not in ids


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Weights of random numbers, in the order of the published ones and under other names."""
    import timm

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    model = timm.create_model("tf_efficientnet_lite0")
    torch.save({f"other.{number}": value for number, value in enumerate(model.state_dict().values())}, folder / "a.pth")
    image_nets.convert(folder / "a.pth", "tf_efficientnet_lite0", folder / "converted")
    return folder, model


def test_an_image_nets_weights_come_under_timms_names(net):
    folder, model = net
    weights = load_file(folder / "converted" / "model.safetensors")
    assert set(weights) == {f"visual.{name}" for name in TimmBranch(TimmConfig()).visual.state_dict()}
    assert all(torch.equal(value, model.state_dict()[name.removeprefix("visual.")]) for name, value in weights.items())
    with pytest.raises(SourceError, match=r"a\.pth.* tf_efficientnet_lite1"):
        image_nets.convert(folder / "a.pth", "tf_efficientnet_lite1", folder / "no")


@pytest.mark.slow
def test_the_model_for_pictures_learns_a_photograph(net, photos, source):
    """The one command that makes it: features, the trainings, export; and answers from the finished folder."""
    root = photos / "photos"
    (photos / "photos.jsonl").rename(root / "train.jsonl")
    (root / "dev.jsonl").write_text((root / "train.jsonl").read_text())
    for split in ("train", "dev"):
        (root / split).mkdir()
        for file in root.glob("*.png"):
            shutil.copy(file, root / split)
    shutil.copytree(source, photos / "out" / "data" / "sources")
    picture_source(photos / "out" / "data" / "sources")
    weights = photos / "out" / "data" / "sources" / "image_nets" / "tf_efficientnet_lite0"
    shutil.copytree(net[0] / "converted", weights)
    words = [str(root), str(photos / "out"), "--suffix", ".png", "--text-count", "4", "--scene-count", "4"]
    steps = ["first:train.max_steps=340", "first:train.dropout=0"]
    for stage in ("second", "third", "fourth", "fifth"):
        steps += [f"{stage}:train.max_steps=4", f"{stage}:train.learning_rate=1e-5"]
    steps += [f"{stage}:train.lr_overrides.vision_vocabulary=1e-6" for stage in ("third", "fourth")]
    steps += [f"{stage}:train.workers=0" for stage in ("third", "fourth", "fifth")]
    short = ["train.batch_size=4", "train.warmup=5", "train.save_steps=1000"]
    assert nano_pictures.main([*words, *short, *steps]) == 0
    assert nano_pictures.main([*words, *short]) == 0  # all is there
    reader = Reader.from_pretrained(str(photos / "out" / "model"), "cpu")
    assert reader.engine.model.config.connector == "encoder" and reader.engine.model.pointer is not None
    answer = reader.ask(root / "0.png", "vqa", "How many people are there?", max_new_tokens=8)
    assert answer.text == "1"
    answer = reader.ground(root / "0.png", "a man", max_new_tokens=16)
    assert len(answer.objects) == 1, answer.text
    (region,) = answer.objects
    assert abs(region.box[0] - 22) <= 12 and abs(region.box[3] - 202) <= 12  # pixels of 224


def test_pictures_of_text_say_so(source, tmp_path):
    words = ["--out", str(tmp_path / "out"), "--count", "2", "--source", str(source), "--workers", "1"]
    assert main(["render", "text-pictures", *words]) == 0
    samples = list(read_samples(tmp_path / "out"))
    assert {sample.task for sample in samples} == {"caption", "vqa", "detect"} and len(samples) == 16
    assert all("text" in sample.answer for sample in samples if sample.task == "caption")
    assert max(samples[0].open_images()[0].size) <= 448


def test_coco_captions(tmp_path):
    noise(32, 24).save(tmp_path / "a.png")
    tree = {
        "images": [{"id": 3, "file_name": "a.png"}],
        "annotations": [{"image_id": 3, "caption": "a cat sits ."}, {"image_id": 3, "caption": "One cat."}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(tree))
    words = [
        "coco-captions",
        "--annotations",
        str(tmp_path / "captions.json"),
        "--out",
        str(tmp_path / "out"),
        "--images",
        str(tmp_path),
    ]
    assert main(words) == 0
    samples = list(read_samples(tmp_path / "out"))
    assert [sample.answer for sample in samples] == ["A cat sits.", "One cat."]
    assert samples[1].annotations.references == ["A cat sits.", "One cat."]
    (tmp_path / "captions.json").write_text('{"images": [{}]}')
    assert main([*words, "--overwrite"]) == 2


def test_the_worst_answers_are_drawn(photos, tmp_path):
    samples = [sample for sample in imported(photos, "--evaluate") if sample.task == "vqa"]
    texts = [sample.answer for sample in samples[1:]]
    rows = contact_sheet.worst(["nothing", *texts], samples, 3)
    assert rows[0][1:] == ("nothing", 0.0) and [score for *_, score in rows[1:]] == [1.0, 1.0]
    contact_sheet.draw(rows, tmp_path / "sheets" / "vqa.png")
    with Image.open(tmp_path / "sheets" / "vqa.png") as sheet:
        assert sheet.width > 1500


def test_the_preset_for_pictures_is_small():
    config = VaryConfig.preset("nano-pictures")
    assert config.vocabulary_config.image_tokens == 49 and config.connector == "encoder"
