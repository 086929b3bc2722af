"""A vision branch, a connector, an objective, a task, an importer and an engine of one's own, as CONTRIBUTING.md
describes them: nothing else knows their names."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import tiny_config, tiny_model, tiny_recipe
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import PretrainedConfig

from data_tools.__main__ import main as data_tools
from data_tools.importers import Importer
from data_tools.importers.base import Entry
from data_tools.program import PROGRAMS
from train.loop import run
from train.objectives import OBJECTIVES, Objective, Settings
from train.recipe import RecipeError, load_recipe, to_yaml
from varytoy import cli, tasks
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer
from varytoy.data.sample import TASK_NAMES
from varytoy.data.samples import read_samples
from varytoy.inference.engine import Engine
from varytoy.inference.reader import Reader
from varytoy.models import connectors
from varytoy.models.config import ENCODER_CONFIGS, VaryConfig
from varytoy.models.connectors import image_tokens
from varytoy.models.vision import base
from varytoy.tasks import Task


class StripesConfig(PretrainedConfig):
    model_type = "stripes"

    width: int = 24

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels a token, vertical and horizontal."""
        return 16, 8

    @property
    def output_size(self) -> int:
        return self.width


class Stripes(base.VisionEncoder):
    """One convolution."""

    config_class = StripesConfig

    def __init__(self, config: StripesConfig):
        super().__init__()
        self.width, self.stride = config.width, config.stride
        self.proj = nn.Conv2d(3, self.width, self.stride, self.stride)

    def forward(self, pixels, sizes=None):
        return self.proj(pixels).permute(0, 2, 3, 1)


class MeanConnector(connectors.Connector):
    """Four rows an image, whatever its size."""

    latents = 4

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        self.proj = nn.Linear(config.vocabulary_config.output_size, config.text_config.hidden_size)

    def forward(self, features, grids=None):
        return self.proj(features["vocabulary"].mean((1, 2))).repeat_interleave(self.latents, 0)


@pytest.fixture
def registered():
    base.register(Stripes)
    connectors.register("mean")(MeanConnector)
    yield
    del base.ENCODERS["stripes"], connectors.CONNECTORS["mean"]
    ENCODER_CONFIGS.remove(StripesConfig)


def test_they_are_built_saved_and_read_back(registered, processor, pictures, tmp_path):
    tree = tiny_config().to_dict() | {"vocabulary_config": {"model_type": "stripes"}, "clip_config": None}
    model = tiny_model(VaryConfig(**tree | {"connector": "mean"}))
    processor.image_processor.clip_size = 0
    processor.image_processor.latents = MeanConnector.latents
    inputs = processor(["Read.", "Read this."], pictures)
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [4, 4]
    with torch.inference_mode():
        said = model(**inputs).logits
    assert torch.isfinite(said).all()
    assert image_tokens(model.config) == 4
    model.save_pretrained(tmp_path)
    processor.image_processor.latents = 5
    processor.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="latents is 5.* 4"):
        Reader.from_pretrained(str(tmp_path), "cpu")
    processor.image_processor.latents = 4
    processor.save_pretrained(tmp_path)
    again = Reader.from_pretrained(str(tmp_path), "cpu")
    assert isinstance(again.engine.model.vision_vocabulary, Stripes)
    assert isinstance(again.engine.model.connector, MeanConnector)
    with torch.inference_mode():
        assert torch.equal(again.engine.model(**again.processor(["Read.", "Read this."], pictures)).logits, said)


@pytest.mark.parametrize(
    ("change", "known"), [("connector", "linear"), ("vocabulary_config", "vary_vision_vocabulary")]
)
def test_an_unknown_name_is_refused_with_the_known_ones(change, known):
    wrong = "nobody's" if change == "connector" else {"model_type": "nobody's"}
    with pytest.raises(ValueError, match=f"'nobody's'; known are .*{known}"):
        tiny_model(VaryConfig(**tiny_config().to_dict() | {change: wrong}))


@dataclass
class _Settings(Settings):
    power: int = 2


class Short(Objective):
    """Hidden states are to be as the brightness of the target image."""

    name, has_head, Settings = "short", True, _Settings

    def setup(self, model, frozen):
        return nn.Linear(model.config.text_config.hidden_size, 1)

    def targets(self, items, batch, processor):
        grey = [item.sample.open_target_images()[0].convert("L").resize((1, 1)).getpixel((0, 0)) for item in items]
        return {"short.wanted": torch.tensor(grey) / 255}

    def losses(self, model, head, state):
        found = head(state.hidden).mean((1, 2)) - state.targets["short.wanted"]
        return {"short": (found.abs() ** self.settings.power).mean()}


def test_an_objective_of_ones_own(ten, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "short", Short)
    ten = Path(shutil.copytree(ten, tmp_path / "data"))
    rows = [json.loads(line) for line in (ten / "samples.jsonl").read_text().splitlines()]
    rows = [row | {"target_images": row["images"]} for row in rows]
    (ten / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = tiny_recipe(ten, tmp_path / "run", max_steps=3)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run(load_recipe(tmp_path / "recipe.yaml", ["objectives.short={weight: 0.5, power: 1}"]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss_short"] > 0 and "heads.short.weight" in load_file(
        tmp_path / "run" / "training_heads.safetensors"
    )
    with pytest.raises(RecipeError, match="power"):
        load_recipe(tmp_path / "recipe.yaml", ["objectives.short={power: many}"])


class Count(Task):
    name, metric = "count", "mean absolute error"
    prompts = ("How many letters are there?",)

    def parse(self, text, size, argument=""):
        return Answer(text.strip(), markup=f"**{text.strip()}**")

    def score(self, predictions, samples):
        return sum(abs(int(text) - int(each.answer)) for text, each in zip(predictions, samples, strict=True))


@pytest.fixture
def count_task():
    tasks.register(Count())
    yield
    del tasks.TASKS["count"]
    TASK_NAMES.remove("count")


class Letters:
    """An engine without a model: counts the words of the question."""

    context = 100

    def __init__(self, processor):
        self.processor = processor

    def generate(self, requests, show=None, cancel=None):
        texts = [str(len(each.messages[-1]["content"].split())) for each in requests]
        return [Answer(text, confidence=1.0, tokens=1, image=Image.new("L", (3, 3))) for text in texts]


def test_a_task_and_an_engine_of_ones_own(count_task, processor, tmp_path):
    engine: Engine = Letters(processor)
    answer = Reader(engine).ask(Image.new("RGB", (40, 40)), "count")
    assert (answer.text, answer.markup, answer.tokens, answer.image.size) == ("6", "**6**", 1, (3, 3))
    assert cli.build_parser().parse_args(["read", "x.png", "--task", "count"]).task == "count"
    messages = [{"role": "user", "content": "How many letters are there?"}, {"role": "assistant", "content": "4"}]
    (tmp_path / "samples.jsonl").write_text(json.dumps({"task": "count", "messages": messages}))
    samples = list(read_samples(tmp_path))
    assert tasks.get_task("count").score([answer.text], samples) == 2
    assert tasks.find_prompt("How many letters are there?")[0].name == "count"


class Titles(Importer):
    """A line each: file name, tab, text."""

    name, help = "titles", "import titles"

    def groups(self, options):
        lines = options.annotations.read_text().splitlines()
        return [[Entry(f"line {number}", line)] for number, line in enumerate(lines, 1)]

    def rows(self, entry, options):
        image, text = entry.record.split("\t")
        question = f"<image>\n{tasks.TASKS['ocr'].prompt()}"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        yield {"task": "ocr", "messages": messages, "images": [image], "target_images": [image]}


def test_an_importer_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROGRAMS, "titles", Titles())
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "titles.tsv").write_text("a.png\tOne\nb.png\tTwo\n../a.png\tThree\n")
    words = ["--annotations", str(tmp_path / "titles.tsv"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert data_tools(["titles", *words]) == 0
    (sample,) = read_samples(tmp_path / "out")
    assert (sample.answer, sample.task, sample.id) == ("One", "ocr", "titles-1")
    assert sample.open_images()[0].size == sample.open_target_images()[0].size == (30, 20)
    printed = capsys.readouterr()
    assert "1 samples" in printed.out and "2 dropped" in printed.out
    assert "line 2" in printed.err and "line 3" in printed.err
