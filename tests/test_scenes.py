import json
import pickle
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CLASSES, RGB, picture_source
from PIL import Image

from data_tools.assets import packages
from data_tools.assets.packages import SourceError
from data_tools.render import pictures, scenes, textures
from data_tools.render.colours import PAINTS, colour_word, paint
from data_tools.render.scene_rows import Scene, Thing, article, caption, phrases, plural, scene_rows
from data_tools.render.scenes import SceneRenderer
from varytoy.data.boxes import parse_boxes
from varytoy.data.samples import parse_sample

SCENES = range(50)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Four coloured shapes for each of five classes, two backgrounds, in the layout of ``fetch``."""
    return picture_source(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def rendered(source):
    """(picture, scene, rows) of the first scenes of the training split."""
    renderer = SceneRenderer(source, 3, size=160)
    return [(*renderer.compose(index), renderer(index)[1]) for index in SCENES]


def test_a_scene_depends_on_its_index_alone(source):
    # Renderers travel to worker processes pickled.
    first, second = SceneRenderer(source, 7, size=128), pickle.loads(pickle.dumps(SceneRenderer(source, 7, size=128)))
    for index in (5, 0, 3):
        image, rows = first(index)
        again, rows_again = second(index)
        assert image.tobytes() == again.tobytes() and rows == rows_again
    assert first(0)[0].tobytes() != first(1)[0].tobytes()
    assert first(0)[1] != SceneRenderer(source, 8, size=128)(0)[1]


def test_rows_follow_the_schema_and_the_answers_their_boxes(rendered, tmp_path):
    ids = [row["id"] for _, _, rows in rendered for row in rows]
    assert len(ids) == len(set(ids))
    for _, _, rows in rendered:
        assert {"detect", "caption", "vqa"} <= {row["task"] for row in rows}
        for row in rows:
            sample = parse_sample({**row, "images": ["picture.png"]}, tmp_path)
            if row["task"] in ("detect", "ground"):
                assert sorted(box.xyxy for box in parse_boxes(sample.answer)) == sorted(
                    box.xyxy for box in sample.boxes
                )


def test_boxes_are_tight_on_the_alpha(source, monkeypatch):
    """On black and on white the same pixels differ by 255 - alpha, which shows what was pasted where."""
    renderer, taken = SceneRenderer(source, 11, size=200), {}
    for tone in (0, 255):

        def flat(pictures, width, height, *_, tone=tone):
            return Image.new("RGB", (width, height), (tone,) * 3), "", False

        monkeypatch.setattr(scenes, "_background", flat)
        taken[tone] = [renderer.compose(index) for index in SCENES]
    for (black, scene), (white, _) in zip(taken[0], taken[255], strict=True):
        alpha = 255 - (np.asarray(white, dtype=int) - np.asarray(black)).max(axis=2)
        outside = alpha.copy()
        for left, top, right, bottom in (thing.box for thing in scene.things):
            part = alpha[top:bottom, left:right]
            assert min(part[0].max(), part[-1].max(), part[:, 0].max(), part[:, -1].max()) >= 40
            outside[top:bottom, left:right] = 0
        assert outside.max() == 0


def test_sizes_order_and_number(rendered):
    for image, scene, _ in rendered:
        assert 3 <= len(scene.things) <= 8 or not scene.things
        assert list(scene.things) == sorted(scene.things, key=lambda thing: thing.box[:2])
        for thing in scene.things:
            side = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) / min(image.size)
            assert scenes.SMALLEST - 0.02 <= side <= scenes.LARGEST + 0.01


def test_little_of_a_thing_is_covered():
    disc = Image.new("RGBA", (40, 40), (255, 0, 0, 255))
    seen, totals = [np.ones((40, 40), dtype=bool)], [1600]
    assert scenes._leaves_visible(disc.crop((0, 0, 10, 40)), (0, 0, 10, 40), seen, totals)
    assert not scenes._leaves_visible(disc.crop((0, 0, 11, 40)), (0, 0, 11, 40), seen, totals)


def _meant(scene: Scene, phrase: str) -> list[Thing]:
    """Who a phrase means, worked out from the words alone."""
    name = next(name for name in CLASSES if re.search(rf"\b{name}\b", phrase))
    things = scene.named(name)
    for word, key in (
        ("left", lambda thing: thing.centre[0]),
        ("right", lambda thing: -thing.centre[0]),
        ("top", lambda thing: thing.centre[1]),
        ("bottom", lambda thing: -thing.centre[1]),
        ("bigg", lambda thing: -thing.area),
        ("small", lambda thing: thing.area),
    ):
        if re.search(rf"\b{word}(most|er|est)?\b", phrase):
            best = min(map(key, things))
            return [thing for thing in things if key(thing) == best]
    colour = re.search(r"\b(" + "|".join(PAINTS) + r")\b", phrase)
    return [thing for thing in things if not colour or thing.colour == colour[0]]


def test_a_phrase_means_one_thing(rendered):
    seen = set()
    for _, scene, rows in rendered:
        for row in rows:
            if row["task"] == "ground":
                meant = _meant(scene, row["metadata"]["phrase"])
                assert len(meant) == 1
                assert list(scene.box(meant[0]).xyxy) == row["boxes"][0]["box"]
                assert row["metadata"]["phrase"] in row["messages"][0]["content"]
                if row["metadata"]["kind"] != "name":
                    assert len(scene.named(meant[0].name)) > 1
                seen.add(row["metadata"]["kind"])
    assert seen == {"name", "place", "colour", "size"}


def test_no_phrase_where_none_is_plain():
    near = Scene(200, 200, (Thing("cat", "red", (10, 10, 60, 60)), Thing("cat", "orange", (20, 12, 70, 62))))
    assert phrases(near, near.things[0]) == []
    unknown = Scene(200, 200, (Thing("car", "red", (10, 10, 60, 60)), Thing("car", None, (15, 120, 65, 170))))
    assert {kind for _, kind in phrases(unknown, unknown.things[0])} == {"place"}


def test_answers_are_true(rendered):
    checked = {"How many": 0, "presence": 0, "has colour": 0, "yes or no": 0}
    for _, scene, rows in rendered:
        for row in (row for row in rows if row["task"] == "vqa"):
            question, answer = row["messages"][0]["content"], row["messages"][1]["content"]
            if "How many objects" in question:
                assert answer == str(len(scene.things))
            elif "How many" in question:
                name = next(name for name in CLASSES if plural(name) in question)
                assert answer == str(len(scene.named(name)))
                checked["How many"] += 1
            elif row["metadata"]["kind"] == "presence":
                name = next(name for name in CLASSES if article(name) in question)
                assert (answer == "yes") == bool(scene.named(name))
                checked["presence"] += 1
            elif row["metadata"]["kind"] == "has colour":
                phrase, colour = re.search(r"Is (.*) (\w+)\?", question).groups()
                assert (answer == "yes") == (_meant(scene, phrase)[0].colour == colour)
                checked["has colour"] += 1
            elif row["metadata"]["kind"] == "place, yes or no":
                first, words, second = re.search(
                    r"the (\w+) (left of|right of|above|below) the (\w+)", question
                ).groups()
                (first,), (second,) = scene.named(first), scene.named(second)
                axis = 0 if words.endswith("of") else 1
                before = first.centre[axis] < second.centre[axis]
                assert (answer == "yes") == (before == (words in ("left of", "above")))
                checked["yes or no"] += 1
    assert all(count >= 3 for count in checked.values()), checked


def test_yes_and_no_are_balanced():
    things = tuple(
        Thing(name, "red", (40 * at, 30 * at, 40 * at + 35, 30 * at + 28))
        for at, name in enumerate(("cat", "car", "bus"))
    )
    rows = [
        row
        for number in range(400)
        for row in scene_rows(Scene(200, 200, things), [*CLASSES, "dog"], "", random.Random(number))
        if row["messages"][1]["content"] in ("yes", "no")
    ]
    for kind in ("presence", "place, yes or no", "has colour"):
        answers = [row["messages"][1]["content"] == "yes" for row in rows if row["metadata"]["kind"] == kind]
        assert len(answers) > 30 and 0.35 < np.mean(answers) < 0.65, kind


def test_named_classes_and_absent_ones():
    scene = Scene(200, 200, (Thing("cat", None, (10, 10, 60, 60)), Thing("car", None, (100, 90, 160, 150))))
    absent = 0
    for number in range(200):
        row = scene_rows(scene, CLASSES, "", random.Random(number))[0]
        asked = row.get("annotations", {}).get("classes")
        if asked:
            assert ", ".join(asked) in row["messages"][0]["content"]
            found = {box.label for box in parse_boxes(row["messages"][1]["content"])}
            assert found == set(asked) & {"cat", "car"}
            absent += not found and row["messages"][1]["content"] == "None."
    assert absent


def test_captions_are_english():
    car, cat = Thing("car", "red", (0, 0, 9, 9)), Thing("cat", "orange", (20, 0, 29, 9))
    assert caption(Scene(90, 90, (car, cat), "on grass")) == "A red car and a cat on grass."
    assert caption(Scene(90, 90, (cat, Thing("cat", None, (50, 0, 59, 9)), Thing("apple", "red", (70, 0, 79, 9))))) == (
        "Two cats and an apple."
    )
    assert caption(Scene(90, 90, (Thing("umbrella", "orange", (0, 0, 9, 9)), car, cat))) == (
        "An orange umbrella, a red car and a cat."
    )
    assert [plural(name) for name in ("bus", "fish", "couch", "cherry", "key")] == [
        "buses",
        "fish",
        "couches",
        "cherries",
        "keys",
    ]


def test_an_empty_scene():
    rows = scene_rows(Scene(100, 100, ()), CLASSES, "", random.Random(1))
    by_task = {row["task"]: row["messages"][1]["content"] for row in rows}
    assert by_task["detect"] == "None." and by_task["caption"] == "An empty background."
    assert "ground" not in by_task and all("boxes" not in row for row in rows)
    assert {row["messages"][1]["content"] for row in rows if row["task"] == "vqa"} <= {"0", "no"}


def test_train_never_shows_what_is_held_out(source, monkeypatch):
    opened, load = [], pictures.load_cutout.__wrapped__
    monkeypatch.setattr(scenes, "load_cutout", lambda path, colour=None: opened.append(path) or load(path, colour))
    kept_back = {
        str(path)
        for folder in (source / "cutouts").iterdir()
        for path in folder.iterdir()
        if path.stem in pictures.held_out(folder.name, [file.stem for file in folder.iterdir()])
    }
    assert len(kept_back) == len(CLASSES)
    shown = {}
    for split in ("train", "test"):
        opened.clear()
        made = [SceneRenderer(source, 2, split, 96)(index)[1] for index in range(20)]
        shown[split] = set(opened), any("held_out" in row.get("metadata", {}) for rows in made for row in rows)
    assert not shown["train"][0] & kept_back and not shown["train"][1]
    assert shown["test"][0] & kept_back and shown["test"][1]
    assert not set(textures.HELD_OUT) & set(pictures.library(source, "train").textures)


def test_copies_of_a_drawing_are_held_out_together():
    names = ["one", "one-red", "one-blue", "two", "two-red", "three"]
    out = pictures.held_out("cat", names)
    assert out and {name.split("-")[0] for name in out} & {name.split("-")[0] for name in set(names) - out} == set()
    assert pictures.held_out("cat", reversed(names)) == out
    assert pictures.held_out("cat", ["one", "two"]) == set()


def test_colour_words():
    for word, rgb in RGB.items():
        image = Image.new("RGBA", (40, 40), (*rgb, 255))
        assert colour_word(image) == word
        for target in PAINTS:
            painted = paint(image, target)
            assert painted is not None and colour_word(painted) == target
    for word, rgb in {
        "black": (10, 10, 12),
        "white": (250, 250, 250),
        "gray": (128,) * 3,
        "brown": (110, 65, 30),
    }.items():
        assert colour_word(Image.new("RGBA", (40, 40), (*rgb, 255))) == word
    car = Image.new("RGBA", (40, 40), (*RGB["red"], 255))
    car.paste((0, 0, 0, 255), (0, 0, 40, 20))
    assert colour_word(car) == "red"  # black tyres do not count
    car.paste((*RGB["blue"], 255), (0, 20, 20, 40))
    assert colour_word(car) is None
    assert paint(Image.new("RGBA", (40, 40), (250, 250, 250, 255)), "red") is None


def test_the_class_table_is_sound():
    kinds = pictures.picture_classes().values()
    assert len(kinds) >= 60
    for kind in kinds:
        assert kind.colour in ("paint", "measure", "none") and (kind.emoji or kind.drawings)
        assert re.fullmatch(r"[a-z]+( [a-z]+)?", kind.name)
    assert "public domain" in pictures.licences()


def test_every_texture_draws():
    for name in textures.TEXTURES:
        image, words = textures.draw(name, 60, 44, np.random.default_rng(1))
        assert image.size == (60, 44) and image.mode == "RGB"
        assert words == "" or words.split()[0] in ("on", "in", "against")


def test_a_missing_source_names_the_command(tmp_path):
    with pytest.raises(SourceError, match=r"python -m data_tools fetch .*nowhere"):
        SceneRenderer(tmp_path / "nowhere", 0)
    with pytest.raises(ValueError, match="no split 'dev'"):
        SceneRenderer(tmp_path, 0, "dev")


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(SourceError, match="'npm' is not installed"):
        pictures.fetch(tmp_path)


def test_drawings_of_an_icon_set_are_taken_by_code_point_and_by_name(tmp_path):
    def drawing(colour: str) -> dict:
        return {"body": f'<rect x="4" y="8" width="24" height="16" fill="{colour}"/>'}

    folder = tmp_path / "root" / "package"
    folder.mkdir(parents=True)
    icons = {"lion": drawing("red"), "tiger-face": drawing("blue"), "unheard-of": drawing("black")}
    (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 32, "height": 32}))
    (folder / "chars.json").write_text(json.dumps({"1f981": "lion"}))
    pictures._take_icons(tmp_path / "root", tmp_path, "style")
    found = {path.relative_to(tmp_path / "cutouts").as_posix(): path for path in tmp_path.glob("cutouts/*/*.png")}
    assert sorted(found) == ["lion/style_1f981.png", "tiger/style_1f42f.png"]
    with Image.open(found["tiger/style_1f42f.png"]) as image:
        assert image.mode == "RGBA" and image.getpixel((40, 40)) == (0, 0, 255, 255)
        assert image.width / image.height == pytest.approx(24 / 16, abs=0.02)


def test_the_first_package_that_is_to_be_had_is_taken(monkeypatch):
    """Releases of Debian name their packages by version."""

    def run(command, cwd, **options):
        if command[0] == "dpkg":
            (cwd / "root").mkdir()
            (cwd / "root" / command[2]).touch()
        elif command[-1] == "old-doc":
            return SimpleNamespace(returncode=100, stderr="E: Unable to locate package old-doc\n")
        else:
            (cwd / "new-doc.deb").touch()
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    with packages.unpacked("apt", "old-doc", "new-doc") as root:
        assert (root / "new-doc.deb").exists()
    with pytest.raises(SourceError, match="package old-doc: E: Unable"), packages.unpacked("apt", "old-doc"):
        pass
