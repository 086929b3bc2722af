"""Mixtures of samples: what is drawn, what train and mix make of them, and looking at samples."""

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import noise, tiny_recipe
from PIL import Image

from data_tools.__main__ import main
from data_tools.mixture import DataSettings, counts
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.recipe import RecipeError, load_recipe, to_yaml
from varytoy.data.samples import read_samples
from varytoy.tasks import TASKS, find_prompt


def folder(path: Path, count: int, task: str = "ocr", prompt: str = "", per_image: int = 2) -> Path:
    """``count`` samples about pictures of their own, two each, with numbers for answers."""
    (path / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        name = f"images/{number // per_image}.png"
        noise(24, 16, number // per_image).save(path / name)
        talk = [(prompt or TASKS[task].prompt("a dog" if TASKS[task].takes else "")), f"{path.name} {number}"]
        messages = [{"role": "user", "content": f"<image>\n{talk[0]}"}, {"role": "assistant", "content": talk[1]}]
        rows.append({"id": f"{path.name}-{number}", "task": task, "messages": messages, "images": [name]})
    (path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def mixture(tmp_path):
    """A large and a small source with the same weight, and one to replay."""
    folders = [folder(tmp_path / name, count) for name, count in (("large", 12), ("small", 4), ("old", 10))]
    path = tmp_path / "mixture.yaml"
    path.write_text(
        "data:\n"
        f"  - {{path: {folders[0]}, weight: 1, cap: 8}}\n"
        f"  - {{path: {folders[1]}, weight: 0.5}}\n"
        f"  - {{path: {folders[2]}, replay: 0.25}}\n"
        'prompts:\n  ocr: [Read this., "What is written?"]\n'
    )
    return path


def test_weights_caps_and_replay():
    sources = [DataSettings("a", weight=3), DataSettings("b", weight=1), DataSettings("c", weight=1, cap=5)]
    assert counts(sources, [30, 20, 100]) == [60, 20, 20]  # each sample at least once, in proportion to the weights
    assert counts([DataSettings("a", share=0.5), DataSettings("b", share=2)], [10, 10]) == [5, 20]
    assert counts([DataSettings("a"), DataSettings("b", replay=0.2)], [80, 5]) == [80, 20]


def test_train_and_mix_draw_the_same_numbers(mixture, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(tiny_recipe(tmp_path, tmp_path / "run")).split("data:")[0] + f"data: {mixture}\n")
    data = SampleDataset(load_recipe(recipe).data, 0, BadSamples())
    assert data.counts == [8, 4, 4]
    assert {sample.prompt for sample in data.samples} == {"Read this.", "What is written?"}
    assert main(["mix", str(mixture), "--out", str(tmp_path / "mixed"), "--workers", "1"]) == 0
    samples = list(read_samples(tmp_path / "mixed"))
    drawn = Counter(sample.answer.split()[0] for sample in samples)
    assert drawn == {"large": 8, "small": 4, "old": 4} and len({sample.answer for sample in samples}) == 16
    assert {sample.prompt for sample in samples} == {"Read this.", "What is written?"}
    places = [number for number, sample in enumerate(samples) if sample.answer.startswith("small")]
    assert places[0] < 6 and places[-1] > 9, "the sources are not mixed"
    for sample in samples:
        number = int(sample.answer.split()[1]) // 2
        assert sample.open_images()[0].tobytes() == noise(24, 16, number).convert("RGB").tobytes()
    manifest = json.loads((tmp_path / "mixed/manifest.json").read_text())
    assert set(manifest["sources"]) == {str(tmp_path / name) for name in ("large", "small", "old")}


def test_what_is_repeated_has_ids_of_its_own_and_shards_are_read(mixture, tmp_path):
    mixture.write_text(
        f"data: [{{path: {tmp_path / 'large'}, weight: 1}}, {{path: {tmp_path / 'small'}, weight: 1}}]\n"
    )
    words = ["mix", str(mixture), "--workers", "1"]
    assert main([*words, "--out", str(tmp_path / "a"), "--shards", "5"]) == 0
    samples = list(read_samples(tmp_path / "a"))
    small = [sample for sample in samples if sample.answer.startswith("small")]
    assert len(samples) == 24 and len(small) == 12 and len({sample.id for sample in samples}) == 24
    assert Counter(sample.answer for sample in small) == {f"small {number}": 3 for number in range(4)}
    mixture.write_text(f"data: [{{path: {tmp_path / 'a'}}}, {{path: {tmp_path / 'old'}, share: 0.5}}]\n")
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert main([*words[:2], "--workers", "2", "--out", str(tmp_path / "c")]) == 0
    for name in ("samples.jsonl", "manifest.json"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    assert len(list(read_samples(tmp_path / "b"))) == 29 and main(["check", str(tmp_path / "b")]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [{path: x, weigth: 2}]", "unknown key 'data.0.weigth'"),
        ("data: [{path: x, weight: 2}, {path: y}]", "give one to every source without replay"),
        ("data: [{path: x, weight: 2, share: 3}]", "x: give one of weight, share and replay"),
        ("data: [{path: x, as_text: true, turns: 2}]", "x: as_text with turns shares the text alone: add isolated"),
        ("data: []", "name at least one folder"),
        ("data: [{path: x}]\nprompts: {ocr: ['Read {}.']}", "prompts.ocr: give wordings without {}"),
        ("data: [{path: x}]\nprompts: {ground: [Find it.]}", "each with one {} for a phrase"),
        ("data: [{path: x}]\nprompts: {oc: [Read.]}", "no task 'oc'"),
        ("data: [{path: nowhere}]", "no samples at nowhere"),
        ("data: [", "is not YAML"),
    ],
)
def test_a_wrong_mixture_is_one_sentence(text, said, tmp_path, capsys):
    path = tmp_path / "mixture.yaml"
    path.write_text(text)
    for words in (["mix", str(path), "--out", str(tmp_path / "out")], ["check", str(path)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    if "nowhere" not in text:
        (tmp_path / "recipe.yaml").write_text(f"data: {path}")
        with pytest.raises(RecipeError):
            load_recipe(tmp_path / "recipe.yaml")


def test_a_mixture_keeps_its_sources_and_their_pictures_apart(tmp_path, capsys):
    """Not over a source; names that differ only in a folder stay two; no picture leaves the output."""
    source = tmp_path / "source"
    rows = []
    for number, name in enumerate(("x.png", "images/x.png", "../source/y.png")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        noise(8, 8, number).save(source / name)
        talk = [{"role": "user", "content": "<image>\nHi"}, {"role": "assistant", "content": str(number)}]
        rows.append(json.dumps({"id": str(number), "messages": talk, "images": [name]}))
    (source / "samples.jsonl").write_text("\n".join([*rows, "no sample"]))
    (tmp_path / "mixture.yaml").write_text(f"data: [{{path: {source}}}]")
    words = ["mix", str(tmp_path / "mixture.yaml"), "--workers", "1", "--out"]
    assert main([*words, str(source), "--overwrite"]) == 2 and "holds the source" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "a" / "out")]) == 0
    samples = list(read_samples(tmp_path / "a" / "out"))
    assert [sample.answer for sample in samples] == ["0", "1", "2"]
    for number, sample in enumerate(samples):
        assert sample.open_images()[0].tobytes() == noise(8, 8, number).convert("RGB").tobytes()
        assert ".." not in sample.images[0]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"out"}
    assert json.loads((tmp_path / "a/out/manifest.json").read_text())["dropped"] == {"not a valid sample": 1}
    assert "line 4" in (tmp_path / "a/out/dropped.txt").read_text()


def test_prompts_with_an_argument_keep_it(tmp_path):
    path = folder(tmp_path / "ground", 2, "ground")
    settings = DataSettings(str(path), prompts={"ground": ["Box of {}?"], "detect": ["All things?"]})
    assert SampleDataset([settings], 0, BadSamples()).samples[0].prompt == "Box of a dog?"
    some = folder(tmp_path / "some", 2, "detect", prompt=TASKS["detect"].prompt("cat, dog"))
    settings = DataSettings(str(some), prompts=settings.prompts)
    assert SampleDataset([settings], 0, BadSamples()).samples[0].prompt == "Detect cat, dog in this image."


@pytest.mark.parametrize("name", [name for name in TASKS if name != "chat"])
def test_each_task_has_ten_wordings_that_are_found_again(name):
    task = TASKS[name]
    assert len(set(task.prompts)) >= 10 and (not task.class_prompts or len(set(task.class_prompts)) >= 10)
    for wording in (*task.prompts, *task.class_prompts):
        argument = "cat, dog" if "{}" in wording else ""
        assert find_prompt(wording.format(argument)) == (task, argument), wording


def test_a_sample_is_shown_with_its_trained_tokens(tmp_path, capsys):
    path = folder(tmp_path / "some", 3)
    assert main(["show", str(path), "2", "--out", str(tmp_path / "shown.png")]) == 0
    out = capsys.readouterr().out
    assert "some-1 (ocr), images: 24x16" in out and "⟦some 1" in out and "<imgpad>x" in out
    with Image.open(tmp_path / "shown.png") as shown:
        assert shown.size == (24, 16)
    assert main(["show", str(path), "4"]) == 2 and "fewer than 4 samples" in capsys.readouterr().err


def test_distributions_are_drawn(mixture, tmp_path, capsys):
    english = "The quick brown fox jumps over the lazy dog and runs into the forest."
    row = {"task": "chat", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": english}]}
    (tmp_path / "old/samples.jsonl").write_text(json.dumps(row))
    assert main(["stats", str(mixture), "--out", str(tmp_path / "stats.png")]) == 0
    out = capsys.readouterr().out
    assert "12 samples (12 ocr)" in out and "languages: 1 en" in out
    with Image.open(tmp_path / "stats.png") as shown:
        assert shown.width > 1000
