"""A head estimates a chart's numbers, and the table that is read is compared with it."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, noise, tiny_config, tiny_model, tiny_recipe
from PIL import Image, ImageDraw

from data_tools.render.charts import FORMS, random_chart
from data_tools.render.markdown import block_markdown, escape
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.loop import run
from train.model import export
from train.objectives.numbers import Numbers
from varytoy.cli import main
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.formats import chart
from varytoy.inference import generate
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import Request, TransformersEngine
from varytoy.inference.join import join_pages
from varytoy.inference.reader import Reader
from varytoy.models.numbers import gap, normalised
from varytoy.models.vary import VaryForConditionalGeneration, count_parameters

TABLE = "# Costs\n\n| Month | A | B |\n| --- | --- | --- |\n| Jan | 10 | 1,020 |\n| Feb | 515 | 10 |\n"
BARS = {"Tax": (3, 9, 6, 4), "Oil": (8, 2, 5, 7), "Tea": (1, 6, 9, 2)}


def table(title: str, values) -> str:
    rows = "".join(f"\n| {name} | {value} |" for name, value in zip("abcd", values, strict=False))
    return f"# {title}\n\n| x | y |\n| --- | --- |{rows}"


def drawn(values) -> Image.Image:
    """A chart of bars, 64 x 64."""
    image = Image.new("RGB", (64, 64), "white")
    for number, value in enumerate(values):
        ImageDraw.Draw(image).rectangle((4 + 15 * number, 62 - 6 * value, 13 + 15 * number, 62), fill="navy")
    return image


def charts(folder: Path, task: str = "markdown") -> Path:
    folder.mkdir()
    lines = []
    for title, values in BARS.items():
        drawn(values).save(folder / f"{title}.png")
        talk = [
            {"role": "user", "content": "<image>\nRead."},
            {"role": "assistant", "content": table(title, values)},
        ]
        lines.append(json.dumps({"id": title, "task": task, "messages": talk, "images": [f"{title}.png"]}))
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return folder


def preset(folder: Path, **changes) -> str:
    (folder / "preset.json").write_text(json.dumps(json.loads(Path(TINY).read_text()) | changes))
    return str(folder / "preset.json")


def test_numbers_are_compared_on_one_scale():
    assert chart.values(TABLE) == [10, 1020, 515, 10]
    assert normalised(chart.values(TABLE)) == [0, 1, 0.5, 0]
    assert normalised([-4, 0, 4]) == [0, 0.5, 1] and normalised([3, 3]) == normalised([]) == []
    estimated = torch.tensor([0.1, 0.8, 0.5, 0.1, 7.0])
    assert gap(estimated, [10, 1020, 515, 10]) == pytest.approx(0.1)
    assert gap(estimated, [2, 4, 3, 2]) == pytest.approx(0.1)
    assert gap(estimated, [1020, 10, 515, 10]) == pytest.approx((0.9 + 0.8 + 0 + 0.1) / 4)
    assert gap(estimated, range(6)) is gap(estimated, [5, 5]) is gap(estimated, []) is None


def test_charts_of_our_data_have_numbers():
    for index, form in enumerate(FORMS * 3):
        made = random_chart(random.Random(index), form)
        answer = f"# {escape(made.title)}\n\n{block_markdown(made.table())}"
        rows = zip(*made.values, strict=True)
        assert chart.values(answer) == [float(made.text(value)) for row in rows for value in row]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12 | 13",
        TABLE.replace("515", "many"),
        TABLE.replace("# Costs", "Costs"),
        f"{TABLE}\nThey rose.",
        f"{TABLE}\n{TABLE}",
        TABLE.replace("515", "9" * 400),
    ],
)
def test_other_answers_have_no_numbers(text):
    assert normalised(chart.values(text)) == []


def sample(answer: str, turns: tuple[str, ...] = (), images: tuple[str, ...] = ("a.png",)) -> Sample:
    messages = []
    for number, said in enumerate((*turns, answer)):
        question = "<image>\nRead it." if not number and images else "And now?"
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
    return Sample(messages, list(images), "a", "markdown")


def test_targets_stand_before_the_answers_of_charts(processor):
    objective = Numbers(Numbers.Settings(1.0))
    objective.setup(tiny_model(tiny_config(numbers=4)), ())
    collator = Collator(processor, 2048, BadSamples(), objectives=[objective])
    rows = [
        sample("no chart"),
        sample(TABLE, ("A chart.",)),
        sample(table("Equal", (3, 3, 3))),
        sample(TABLE.replace("10 |\n", "10 |\n| Mar | 1 | 2 |\n")),  # six values
        sample(TABLE, images=()),
        sample(table("Short", (4, 2, 3))),
    ]
    batch = collator([(each, [noise(64, 64)] * len(each.images)) for each in rows])
    targets = batch["targets"]
    assert targets["numbers.positions"][:, 0].tolist() == [1, 5]
    torch.testing.assert_close(
        targets["numbers.values"], torch.tensor([[0, 1, 0.5, 0], [1, 0, 0.5, float("nan")]]), equal_nan=True
    )
    for row, position in targets["numbers.positions"].tolist():
        answer = processor.tokenizer.decode(batch["input_ids"][row, position + 1 :], skip_special_tokens=True)
        assert answer.strip() == rows[row].answer.strip()
    assert "targets" not in collator([(rows[0], [noise(64, 64)])])


def test_the_head_is_part_of_the_checkpoint(tmp_path, processor):
    model, plain = tiny_model(tiny_config(numbers=16)), tiny_model(tiny_config())
    assert count_parameters(model.config) - count_parameters(plain.config) == 48 * 24 + 24 + 24 * 24 + 24 + 24 * 16 + 16
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    plain.save_pretrained(tmp_path / "plain")
    inputs = processor(["Read.", "Read it all."], [noise(64, 64), noise(48, 64, 2)])
    export(str(tmp_path / "model"), tmp_path / "half")
    with torch.inference_mode():
        expected = model(**inputs)
        again = VaryForConditionalGeneration.from_pretrained(tmp_path / "model").eval()(**inputs)
        half = Reader.from_pretrained(str(tmp_path / "half"), "cpu").engine.model(**inputs)
        old = VaryForConditionalGeneration.from_pretrained(tmp_path / "plain").eval()
        assert old.numbers is None and old(**inputs).numbers is None
    assert expected.numbers.shape == (2, 16) and torch.equal(again.numbers, expected.numbers)
    torch.testing.assert_close(half.numbers, expected.numbers, atol=0.05, rtol=0.05)


def test_each_request_is_compared_with_its_own_picture(processor, monkeypatch):
    """In batches, with beams, and only where there is a picture; not where the answer was cut."""
    model = tiny_model(tiny_config(numbers=4))
    assert BatchingEngine.supports(tiny_model(tiny_config())) and not BatchingEngine.supports(model)
    finish, ended = generate.finish, ["end"]
    monkeypatch.setattr(generate, "finish", lambda *given: replace(finish(*given), text=TABLE, stop_reason=ended[0]))
    engine = TransformersEngine(model, processor)
    long = [{"role": "user", "content": "<image>\nRead it, and take your time."}]
    asked = [
        Request([{"role": "user", "content": "Hello"}], max_new_tokens=2),
        Request([{"role": "user", "content": "<image>\nRead."}], [noise(64, 64)], max_new_tokens=2),
        Request(long, [noise(40, 64, 2)], max_new_tokens=2),
    ]
    alone = [engine.generate([each])[0].number_gap for each in asked]
    assert alone[0] is None and alone[1] != pytest.approx(alone[2], abs=1e-3)
    together = [each.number_gap for each in engine.generate(asked)]
    assert together[0] is None and together[1:] == pytest.approx(alone[1:], abs=1e-4)
    model.generation_config.num_beams = 2
    searched = engine.generate([replace(each, search=True) for each in asked])
    assert [each.number_gap for each in searched][1:] == pytest.approx(alone[1:], abs=1e-4)
    assert join_pages(searched).number_gap == max(each.number_gap for each in searched[1:])
    ended[0] = "length"
    assert engine.generate(asked[1:])[0].number_gap is None


def test_wrong_settings_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="numbers is -1: give the most values of a chart"):
        tiny_config(numbers=-1)
    recipe = tiny_recipe(charts(tmp_path / "charts"), tmp_path / "run", {"numbers": Numbers.Settings(1.0)}, max_steps=1)
    with pytest.raises(ValueError, match="this model has no head for numbers: use a preset with 'numbers'"):
        run(recipe)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run that learned three charts by heart."""
    folder = tmp_path_factory.mktemp("numbers")
    objectives = {"numbers": Numbers.Settings(1.0)}
    steps = {"max_steps": 160, "warmup": 10, "batch_size": 3, "learning_rate": 3e-3}
    recipe = tiny_recipe(charts(folder / "charts"), folder / "run", objectives, **steps)
    recipe.model.preset = preset(folder, numbers=16)
    run(recipe)
    return folder


def test_a_changed_table_is_told_from_the_right_one(trained):
    reader = Reader.from_pretrained(str(trained / "run"), "cpu")
    for each in read_samples(trained / "charts"):
        (answer,) = reader.engine.generate([Request(each.messages[:-1], each.open_images(), max_new_tokens=90)])
        assert answer.text == each.answer
        assert answer.number_gap < 0.1 and answer.reliable
        for values in (BARS[each.id][::-1], BARS[each.id][1:]):
            assert gap(reader.engine.model.estimated[0], chart.values(table("Tax", values))) > 0.2


@pytest.mark.parametrize("wrong", [False, True])
def test_read_tells_a_doubtful_table(trained, tmp_path, capsys, monkeypatch, wrong):
    """A model that reads pages whole; its decoder is made to write another number."""
    engine = Reader.from_pretrained(str(trained / "run"), "cpu").engine
    images = engine.processor.image_processor
    images.mode, images.size = "squash", (64, 64)
    engine.model.save_pretrained(tmp_path / "whole")
    engine.processor.save_pretrained(tmp_path / "whole")
    if wrong:
        finish = generate.finish
        said = {"text": table("Oil", (8, 2, 5, 1))}
        monkeypatch.setattr(generate, "finish", lambda *given: replace(finish(*given), **said))
    picture = str(trained / "charts" / "Oil.png")
    asked = ["--prompt", "Read.", "--model", str(tmp_path / "whole"), "--device", "cpu"]
    assert main(["read", picture, "--json", *asked]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["reliable"] is not wrong and (record["number_gap"] < 0.1) is not wrong
    warned = "the numbers of the table differ from those seen in the picture by 0."
    assert (warned in printed.err) is wrong
