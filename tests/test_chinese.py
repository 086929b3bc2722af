"""Chinese captions: importing, scoring, and the tokenizer of a model that learns them."""

import json
from pathlib import Path

import pytest
from conftest import noise
from transformers import AutoTokenizer

import varytoy
from data_tools.__main__ import main
from train.data.mirror import mirrored
from train.model import assemble, build
from train.recipe import ModelSettings, Recipe, RecipeError
from varytoy.data.samples import read_samples
from varytoy.tasks.cider import cider_d
from varytoy.tasks.language import Caption

PICTURES = Path(varytoy.NANO) / "pictures"
CHINESE = ["一个男孩在左边骑马。", "男孩骑马。"]


@pytest.fixture
def imported(tmp_path):
    (tmp_path / "photos").mkdir()
    rows = []
    for number in range(6):
        noise(64, 64, number).save(tmp_path / "photos" / f"{number}.png")
        captions = [{"text": "A boy rides ."}]
        rows.append(json.dumps({"id": str(number), "captions": captions, "captions_zh": CHINESE, "entities": []}))
    (tmp_path / "photos.jsonl").write_text("\n".join(rows))
    words = ["--annotations", str(tmp_path / "photos.jsonl"), "--images", str(tmp_path / "photos"), "--suffix", ".png"]
    assert main(["entities", *words, "--out", str(tmp_path / "samples"), "--chinese"]) == 0
    return tmp_path / "samples"


def test_chinese_captions_are_samples_of_their_own_kind(imported):
    samples = [sample for sample in read_samples(imported) if sample.metadata.get("kind") == "Chinese"]
    assert len(samples) == 12 and {sample.answer for sample in samples} == set(CHINESE)
    assert all(sample.prompt in Caption.chinese_prompts and sample.task == "caption" for sample in samples)
    assert "右边" in mirrored(samples[0]).messages[-1]["content"] or "左" not in samples[0].answer


def test_captions_are_scored_by_character():
    right = cider_d(["男孩骑马。", "两只狗"], [CHINESE, ["两只狗在草地上", "狗"]])
    assert right > cider_d(["男孩骑车。", "两只狗"], [CHINESE, ["两只狗在草地上", "狗"]]) > 0
    assert cider_d(["两只狗", "男孩骑马"], [CHINESE, ["两只狗在草地上", "狗"]]) == 0


def test_a_model_goes_on_with_a_tokenizer_that_extends_its_own(imported, tmp_path):
    words = ["tokenizer", "--out", str(tmp_path / "pieces"), "--after", str(PICTURES), str(imported)]
    assert main(words) == 2 and main([*words, "--size", "2600"]) == 0  # 2,560 are taken
    new, old = AutoTokenizer.from_pretrained(tmp_path / "pieces"), AutoTokenizer.from_pretrained(PICTURES)
    assert len(new) > len(old) and len(new) <= 2600
    assert new.encode("A man [5, 6]") == old.encode("A man [5, 6]")
    assert (
        len(new.encode(CHINESE[1])) < len(old.encode(CHINESE[1])) and new.decode(new.encode(CHINESE[1])) == CHINESE[1]
    )
    settings = ModelSettings(preset="", init=[str(PICTURES)], tokenizer=str(tmp_path / "pieces"), clip=False)
    recipe = Recipe(stage="sft", output=str(tmp_path / "run"), model=settings)
    model, processor, _ = build(recipe)
    assert len(processor.tokenizer) == len(new) == model.get_input_embeddings().weight.shape[0]
    assert assemble(recipe).config.text_config.vocab_size == len(new)
    settings.tokenizer = str(varytoy.NANO)
    with pytest.raises(RecipeError, match="extend that one"):
        build(recipe)
