"""Small models and pictures. Everything runs on a CPU without network."""

import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "train" / "recipes"
BASES = sorted(path for path in RECIPES.glob("*/*.yaml") if path.parent.name != "overlays")
OVERLAID = [
    (path, name)
    for path in BASES
    for name in dict.fromkeys(
        re.findall(rf"train run {path.relative_to(ROOT)} --overlay (\S+)", path.read_text("utf-8"))
    )
]
"""Recipes with each overlay that their first lines name."""
sys.path.insert(0, str(ROOT))  # for train, which the installed package does not hold

import varytoy  # noqa: E402, F401  (first: it repairs mismatched torchvision builds)
from data_tools.render.blocks import BlockOptions, BlockRenderer  # noqa: E402
from data_tools.writer import write_samples  # noqa: E402
from train.model import opt_shape  # noqa: E402
from train.recipe import DataSettings, ModelSettings, Recipe, TrainSettings  # noqa: E402
from varytoy.data.answer import Answer  # noqa: E402
from varytoy.inference.engine import Request  # noqa: E402
from varytoy.models.config import VaryConfig, read_preset  # noqa: E402
from varytoy.models.vary import VaryForConditionalGeneration  # noqa: E402
from varytoy.processing.processor import VaryProcessor  # noqa: E402

torch.set_num_threads(1)

RGB = {"red": (220, 25, 25), "green": (40, 170, 60), "blue": (40, 80, 220), "yellow": (245, 215, 30)}
TEXT = "The quick brown fox jumps over the lazy dog while seven wizards brew strong coffee at noon."
CLASSES = ("apple", "bus", "car", "cat", "umbrella")


def pytest_collection_finish() -> None:
    """What is imported now stays to the end: the garbage collector need not look at its millions of objects after each
    training, which takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


def tiny_config(opt: bool = False, **changes) -> VaryConfig:
    """The preset nano, made much smaller; weights so large that pictures and words change what is generated."""
    tree = {key: value for key, value in read_preset("nano").items() if key != "processor"}
    tree["vocabulary_config"] |= {
        "stem_stages": [[8, 2, 2, 0], [8, 2, 2, 1], [16, 2, 2, 1], [16, 2, 1, 0]],
        "hidden_size": 32,
        "num_heads": 2,
    }
    tree["clip_config"] |= {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
    tree["clip_projection_size"] = 16
    tree["text_config"] |= {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    config = VaryConfig(**tree, **changes)
    if opt:
        config.text_config = opt_shape(config.text_config)
        config.text_config.init_std = 0.2
    return config


def tiny_model(config: VaryConfig) -> VaryForConditionalGeneration:
    torch.manual_seed(0)
    return VaryForConditionalGeneration(config).eval()


@pytest.fixture
def model() -> VaryForConditionalGeneration:
    return tiny_model(tiny_config())


@pytest.fixture
def opt_model() -> VaryForConditionalGeneration:
    return tiny_model(tiny_config(opt=True))


@pytest.fixture
def processor() -> VaryProcessor:
    """Nano's processor for the tiny model, whose CLIP branch takes 32 px."""
    processor = VaryProcessor.preset("nano")
    processor.image_processor.clip_size = 32
    return processor


class FakeEngine:
    """Answers by a function of the request in place of a model; keeps the requests."""

    def __init__(self, processor: VaryProcessor, answer: Callable[[Request], Answer], context: int = 4096):
        self.processor, self.answer, self.context = processor, answer, context
        self.requests: list[Request] = []

    def generate(self, requests, show=None, cancel=None) -> list[Answer]:
        requests = list(requests)
        self.requests += requests
        return [self.answer(request) for request in requests]

    @property
    def images(self) -> list[Image.Image]:
        return [image for request in self.requests for image in request.images]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture in which every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def photograph() -> Image.Image:
    """A real one, 512 x 600."""
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as image:
        return image.convert("RGB")


def drawn_photograph(width: int = 640, height: int = 480) -> Image.Image:
    """Clouds of many colours with details of all sizes."""
    rng, values = np.random.default_rng(5), np.full((height, width, 3), 128.0)
    for cells in (3, 6, 12, 24, 48, 96):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        values += (np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) * 1.8 / cells**0.5
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Two pictures of which neither holds the other: wide and low, narrow and high."""
    return [noise(120, 32, 1), noise(60, 70, 2)]


def text_source(folder: Path) -> Path:
    """A source folder as `data_tools fetch` lays it out, from what the test dependencies bring."""
    (folder / "fonts").mkdir()
    (folder / "texts").mkdir()
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        shutil.copyfile(fonts / name, folder / "fonts" / name)
    (folder / "texts" / "python3.11-doc.txt").write_text(TEXT + "\n", encoding="utf-8")
    return folder


def picture_source(root: Path) -> Path:
    """Fill ``root`` as ``fetch`` does: four coloured shapes for each of five classes, two backgrounds."""
    for name in CLASSES:
        (root / "cutouts" / name).mkdir(parents=True)
        for colour, rgb in RGB.items():
            image = Image.new("RGBA", (90, 70))
            ImageDraw.Draw(image).ellipse((5, 8, 80, 60), fill=(*rgb, 255))
            image.save(root / "cutouts" / name / f"{colour}.png")
    (root / "backgrounds" / "on grass").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (300, 260), (90, 150, 60)).save(root / "backgrounds" / "on grass" / f"{number}.png")
    return root


TINY = str(Path(__file__).with_name("tiny.json"))


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    return text_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def ten(source, tmp_path_factory) -> Path:
    """Ten clean little pages of two lines."""
    return _little_pages(tmp_path_factory.mktemp("ten"), source, 10)


@pytest.fixture(scope="session")
def two(source, tmp_path_factory) -> Path:
    """The first two of ``ten``."""
    return _little_pages(tmp_path_factory.mktemp("two"), source, 2)


def _little_pages(folder: Path, source: Path, count: int) -> Path:
    options = BlockOptions((2, 2), (8, 12), (7.0, 8.0), formatted=False, blank=0.0, degrade=0.0)
    write_samples(folder, count, BlockRenderer(source, 5, "train", options), workers=1)
    return folder


def tiny_recipe(
    data: Path, output: Path, objectives: dict | None = None, init: tuple = (), clip: bool = False, **train
) -> Recipe:
    """A run of the tiny model on one folder of samples."""
    settings = {"batch_size": 5, "log_steps": 1, "save_steps": 1000, "learning_rate": 1e-3, **train}
    return Recipe(
        stage="pretrain",
        output=str(output),
        model=ModelSettings(preset=TINY, clip=clip, init=list(init)),
        data=[DataSettings(str(data))],
        objectives=objectives or {},
        train=TrainSettings(**settings),
    )


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def heed_interrupts() -> None:
    """For ``preexec_fn``: a shell's background jobs ignore Ctrl-C, and hand that down to the programs they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def forked(function: Callable, *arguments) -> multiprocessing.process.BaseProcess:
    """Call the function in a process of its own, which is killed or waited for. A copy of this one imports nothing:
    that saves the six seconds that a new Python needs for torch."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def start_of(path: Path, *overrides: str, processes: int = 1) -> dict:
    """How a recipe is run in its own process, or in several, for subprocess."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    start = [sys.executable, *(several if processes > 1 else []), "-m", "train"]
    return {"args": [*start, "run", str(path), *overrides], "cwd": ROOT, "env": environment}


def launch(path: Path, *overrides: str, processes: int = 1) -> str:
    """Run a recipe in its own process, as a user does; DeepSpeed wants a fresh one."""
    done = subprocess.run(
        **start_of(path, *overrides, processes=processes), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout
