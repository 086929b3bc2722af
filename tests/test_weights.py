"""Other people's checkpoints: recognised from their keys, equal in what they compute, and every fault named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import originals
import pytest
import torch
from conftest import ROOT, noise
from originals import HEADS, IMAGE, RANKS, TOKENS
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
)

from varytoy.checkpoints import Source, WeightsError, convert, families, load, recognise
from varytoy.checkpoints.convert import understand
from varytoy.checkpoints.infer_config import config_of
from varytoy.checkpoints.maps import brief, renamed
from varytoy.cli import main
from varytoy.models.config import VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration, count_parameters
from varytoy.models.vision.clip import ClipBranch
from varytoy.processing.images import CLIP_MEAN, CLIP_STD
from varytoy.processing.processor import VaryProcessor


def batch(words: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(7)
    ids = torch.randint(0, 256, (2, TOKENS + words), generator=rng)
    ids[:, 2 : 2 + TOKENS] = IMAGE
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(2, 3, originals.SIDE, originals.SIDE, generator=rng),
        "clip_pixel_values": torch.randn(2, 3, 16, 16, generator=rng),
    }


@torch.no_grad()
def scores(model: VaryForConditionalGeneration, inputs: dict[str, Tensor]) -> Tensor:
    inputs = inputs if model.clip is not None else {**inputs, "clip_pixel_values": None}
    return model(**inputs).logits


def test_vary_toy_computes_what_it_did(tmp_path):
    original = originals.vary_toy(tmp_path / "original")
    inputs = batch()
    wanted = original(*inputs.values())
    model, processor = load(tmp_path / "original")
    torch.testing.assert_close(scores(model.eval(), inputs), wanted, atol=1e-5, rtol=1e-5)
    told = convert(tmp_path / "original", tmp_path / "ours")
    assert told.startswith("Vary-toy")
    again = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(scores(again, inputs), scores(model, inputs))
    assert (again.config.text_config.num_attention_heads, again.config.clip_config.select_layer) == (HEADS, -2)
    assert processor.image_processor.plan((300, 200), "text").tokens == TOKENS


def test_a_block_of_qwen_1_is_a_block_of_qwen_2(tmp_path):
    torch.manual_seed(0)
    original = originals.randomise(originals.Qwen1(), 6).eval()
    originals.write(tmp_path / "qwen", original.state_dict(), config={"num_attention_heads": HEADS})
    originals.write_ranks(tmp_path / "qwen")
    convert(tmp_path / "qwen", tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    state = {name.removeprefix("language_model."): each for name, each in written.items()}
    decoder = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "ours")).eval()
    decoder.load_state_dict(state)
    embeddings = torch.randn(2, 9, originals.WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(decoder(inputs_embeds=embeddings).logits, original(embeddings), atol=1e-5, rtol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "ours")) == originals.WORDS


def test_got_in_both_of_its_layouts(tmp_path):
    decoder = originals.got(tmp_path / "original")
    model, processor = load(tmp_path / "original")
    assert model.config.tie_word_embeddings and model.config.text_config.rope_parameters["rope_theta"] == 1e6
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, decoder(ids).logits)
    stock = originals.got_transformers(tmp_path / "stock")
    model, stock_processor = load(tmp_path / "stock")
    inputs = batch()
    with torch.no_grad():
        wanted = stock(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"]).logits
    torch.testing.assert_close(scores(model.eval(), inputs), wanted, atol=1e-4, rtol=1e-4)
    originals.write(tmp_path / "nested", stock.state_dict(), config=stock.config.to_dict())
    originals.write_ranks(tmp_path / "nested")
    nested, _ = load(tmp_path / "nested")
    assert torch.equal(scores(nested.eval(), inputs), scores(model, inputs))
    assert (processor.prompts["ocr"], stock_processor.prompts["ocr"]) == ("OCR: ", " OCR: ")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "vary_tiny.pth"])
def test_the_vocabulary_stage(tmp_path, file):
    decoder = originals.vary_tiny(tmp_path / "original", file)
    if file.endswith(".pth"):
        convert(tmp_path / "original" / file, tmp_path / "ours")
        with pytest.raises(WeightsError, match=r"Vary-tiny-600k .*\bprompt\b"):
            load(tmp_path / "original")
        model = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours")
        processor = VaryProcessor.from_pretrained(tmp_path / "ours")
    else:
        model, processor = load(tmp_path / "original")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, decoder(ids).logits, atol=1e-5, rtol=1e-5)
    assert processor.template == "vicuna" and model.clip is None


def test_parts_are_for_the_beginning_of_a_training(tmp_path):
    sam = {f"image_encoder.{name}": each for name, each in originals.tower().state_dict().items() if "net_" not in name}
    original = originals.clip()
    whole = CLIPModel(
        CLIPConfig(vision_config=original.config.to_dict(), text_config=CLIPTextConfig(hidden_size=64).to_dict())
    )
    states = {
        "sam.pth": sam | {"mask_decoder.x": torch.ones(3)},
        "clip.bin": originals.clip_state(original, ""),
        "clip-new.safetensors": original.state_dict(),
        "open-clip.safetensors": originals.open_clip_state(),
        "clip-whole.safetensors": whole.state_dict(),
        "opt.bin": originals.vary_tiny(tmp_path / "tiny").state_dict(),
        "qwen2.safetensors": originals.qwen2().state_dict(),
    }
    for file, state in states.items():
        config = {"num_attention_heads": HEADS, "rope_theta": 1e6} if file.startswith("qwen") else None
        folder = originals.write(tmp_path / Path(file).stem, state, file, config)
        told = convert(folder / file, tmp_path / f"ours-{file}")
        written = load_file(tmp_path / f"ours-{file}" / "model.safetensors")
        part = Source(folder).family.part
        assert written and all(name.startswith(f"{part}.") for name in written), told
        with pytest.raises(WeightsError, match=rf"{re.escape(str(folder))} .*model\.init"):
            load(folder)
    assert Source(tmp_path / "clip").family.name == "clip"
    branch = ClipBranch(understand(tmp_path / "clip").config).eval()
    branch.load_state_dict({name.removeprefix("clip."): each for name, each in understand(tmp_path / "clip").tensors()})
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = original(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(branch(pixels).flatten(1, 2), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(families()))
def test_every_map_goes_both_ways(name, tmp_path):
    """From the family's keys to ours and back nothing is lost, and no two keys become one."""
    family = families()[name]
    made = {"vary-toy": originals.vary_toy, "got": originals.got, "got-transformers": originals.got_transformers}
    if name in made:
        made[name](tmp_path / "x")
        keys = list(Source(tmp_path / "x").tensors)
    else:
        keys = [
            pattern.replace("{n}", "1").replace("{rest}", "weight") for rule in family.rules for pattern in rule.sources
        ]
    steps, left = family.steps(keys)
    targets = [target for step in steps for target in step.targets]
    assert not left and len(targets) == len(set(targets))
    back, lost = family.inverse(targets)
    assert not lost
    wanted = {key for step in steps for key in step.sources}
    assert {target for step in back for target in step.targets} == wanted


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("vary-toy", "vary-toy"),
        ("got", "got"),
        ("got-transformers", "got"),
        ("got-nested", "got"),
        ("vary-tiny", "vary-tiny"),
        ("vary-tiny-600k", "vary-tiny"),
    ],
)
def test_full_size_layouts_are_the_presets(name, preset):
    """On the meta device: the published shapes under their names give our configuration back."""
    family, wanted = families()[name], VaryConfig.preset(preset)
    with torch.device("meta"):
        ours = VaryForConditionalGeneration(wanted).state_dict()
    if wanted.tie_word_embeddings:
        del ours["language_model.lm_head.weight"]
    steps, lost = family.inverse(ours)
    theirs = dict(renamed(steps, ours.__getitem__))
    steps, left = family.steps(theirs)
    found = dict(renamed(steps, theirs.__getitem__))
    assert not lost and not left
    assert {name: each.shape for name, each in found.items()} == {name: each.shape for name, each in ours.items()}
    assert recognise(theirs) == family
    text = wanted.text_config
    said = {"num_attention_heads": text.num_attention_heads, "max_position_embeddings": text.max_position_embeddings}
    if text.model_type == "qwen2":
        said["rope_theta"] = text.rope_parameters["rope_theta"]
    config = config_of(found, family, said)
    if text.model_type == "qwen2":
        bare = config_of(found, family, {"num_attention_heads": text.num_attention_heads}).text_config
        assert bare.rope_parameters["rope_theta"] == text.rope_parameters["rope_theta"]
    assert config.vocabulary_config.to_dict() == wanted.vocabulary_config.to_dict()
    assert (config.clip_config is None) == (wanted.clip_config is None)
    assert config.image_token_id == wanted.image_token_id and count_parameters(config) == count_parameters(wanted)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size"):
        assert getattr(config.text_config, key) == getattr(text, key)


def test_every_fault_is_named(tmp_path):
    originals.vary_toy(tmp_path / "x")
    state = torch.load(tmp_path / "x" / "pytorch_model.bin", weights_only=True)
    state.pop("transformer.h.1.attn.c_attn.bias")
    state.pop("transformer.vision_tower_high.net_3.weight")
    state["transformer.h.0.ln_1.weight"] = torch.ones(5)
    state["transformer.h.0.extra"] = torch.ones(5)
    state["transformer.vision_tower_high.more"] = torch.ones(5)
    torch.save(state, tmp_path / "x" / "pytorch_model.bin")
    with pytest.raises(WeightsError) as caught:
        understand(tmp_path / "x")
    said = str(caught.value)
    assert "transformer.vision_tower_high.net_3.weight" in said and "HaoranWei/Vary-toy" in said
    state["transformer.vision_tower_high.net_3.weight"] = torch.ones(32, 24, 3, 3)
    torch.save(state, tmp_path / "x" / "pytorch_model.bin")
    with pytest.raises(WeightsError) as caught:
        understand(tmp_path / "x")
    said = str(caught.value)
    assert "missing transformer.h.1.attn.c_attn.bias" in said
    assert "unexpected transformer.h.0.extra, transformer.vision_tower_high.more" in said
    assert re.search(r"transformer\.h\.0\.ln_1\.weight .*\[5\].*\[64\]", said)


def test_sizes_that_tensors_do_not_tell(tmp_path):
    """Narrow key heads contradict the head width of 64 that is taken where nothing says another."""
    decoder = originals.qwen2(num_key_value_heads=1)
    originals.write(tmp_path / "bare", decoder.state_dict())
    with pytest.raises(WeightsError, match=r"config\.json .*num_attention_heads"):
        understand(tmp_path / "bare")
    decoder.save_pretrained(tmp_path / "whole")
    config = understand(tmp_path / "whole").config
    assert (config.num_attention_heads, config.num_key_value_heads) == (HEADS, 1)
    assert config.rope_parameters["rope_theta"] == 1e6


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(WeightsError, match=rf"{re.escape(str(tmp_path / 'nowhere'))}(?!.*safetensors)"):
        Source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match=rf"{re.escape(str(tmp_path / 'empty'))} .*\*\.safetensors.*pytorch_model\.bin"
    ):
        Source(tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"empty/model\.safetensors"):
        Source(tmp_path / "empty")
    (tmp_path / "evil").mkdir()
    torch.save({"x": Path("/")}, tmp_path / "evil" / "pytorch_model.bin")  # a class, which would have to be executed
    with pytest.raises(WeightsError, match=r"evil/pytorch_model\.bin"):
        Source(tmp_path / "evil")
    with pytest.raises(WeightsError, match=r"\ba, b\b.*\bvary-toy\b"):
        recognise(["a", "b"])
    originals.vary_toy(tmp_path / "toy")
    (tmp_path / "toy" / "qwen.tiktoken").unlink()
    with pytest.raises(WeightsError, match=r"toy .*tokenizer\.json, qwen\.tiktoken"):
        load(tmp_path / "toy")
    index = {"weight_map": {"x": "model-2.safetensors"}}
    (tmp_path / "toy" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"toy .*model-2\.safetensors\b.* model\.safetensors\.index\.json"):
        Source(tmp_path / "toy")
    originals.vary_toy(tmp_path / "again")
    shutil.copytree(tmp_path / "again", tmp_path / "out")
    with pytest.raises(WeightsError, match=rf"{re.escape(str(tmp_path / 'out'))} (?!.*Errno)"):
        convert(tmp_path / "again", tmp_path / "out")


def test_what_lies_beside_the_weights(tmp_path):
    """A trainer's files, leftovers of another format, and settings that are there and say nothing."""
    originals.vary_toy(tmp_path / "x")
    folder = tmp_path / "x"
    wanted = understand(folder).targets.keys()
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        torch.save({"x": Path("/")}, folder / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vision_select_layer": None, "text_config": None}))
    assert understand(folder).targets.keys() == wanted
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    originals.write(folder, state)
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    assert Source(folder).get("transformer.wte.weight").shape == state["transformer.wte.weight"].shape
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copyfile(folder / "a.safetensors", folder / "b.safetensors")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"x/pytorch_model\.bin\.index\.json: "):
        Source(folder)
    (folder / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(WeightsError, match=r"a\.safetensors\b.*\bb\.safetensors"):
        Source(folder)
    for text in ("[]", "{"):
        (folder / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=r"x/config\.json: "):
            Source(folder)


def test_another_activation_is_no_silent_change(tmp_path):
    state = originals.clip_state(originals.clip(), "")
    originals.write(tmp_path / "clip", state, config={"vision_config": {"hidden_act": "gelu"}})
    with pytest.raises(WeightsError, match=r"\bgelu\b.*\bquick_gelu\b"):
        understand(tmp_path / "clip")
    folder = originals.write(tmp_path / "open", originals.open_clip_state(), "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    assert understand(folder).config.width == 128
    (folder / "open_clip_config.json").write_text('{"model_cfg": {}}')
    with pytest.raises(WeightsError, match=r"\bgelu\b.*\bquick_gelu\b"):
        understand(folder)


def test_tokenizers_that_say_little_or_nonsense(tmp_path):
    originals.vary_toy(tmp_path / "x")
    processor = load(tmp_path / "x")[1]
    processor.tokenizer.backend_tokenizer.save(str(tmp_path / "x" / "tokenizer.json"))
    (tmp_path / "x" / "qwen.tiktoken").unlink()
    again = load(tmp_path / "x")[1]
    assert again(["a", "longer"], [noise(9, 9)] * 2)["input_ids"].tolist() == (
        processor(["a", "longer"], [noise(9, 9)] * 2)["input_ids"].tolist()
    )
    (tmp_path / "x" / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(WeightsError, match=rf"{re.escape(str(tmp_path / 'x'))}: .*\btokenizer\b"):
        load(tmp_path / "x")


def test_names_in_brief():
    assert brief(["h.0.a", "h.1.a", "h.3.a", "x", "h.2.b"]) == "h.0-1,3.a, x, h.2.b"


LAYOUTS = {
    "vary-toy": originals.vary_toy,
    "got": originals.got,
    "got-transformers": originals.got_transformers,
    "vary-tiny": originals.vary_tiny,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_read_takes_every_layout(name, tmp_path, capsys):
    """What random weights write says nothing; that they write does, twice the same."""
    LAYOUTS[name](tmp_path / "x")
    pixels = load(tmp_path / "x")[1].image_processor
    assert (pixels.mode, pixels.mean, pixels.std) == ("squash", CLIP_MEAN, CLIP_STD)
    page = tmp_path / "page.png"
    noise(200, 150).save(page)
    found = []
    for model in ("x", "ours"):
        assert main(["read", str(page), "--model", str(tmp_path / model), "--json", "--max-new-tokens", "8"]) == 0
        found.append(json.loads(capsys.readouterr().out)["text"])
        if model == "x":
            assert main(["convert", str(tmp_path / "x"), str(tmp_path / "half"), "--dtype", "fp16"]) == 0
            assert VaryConfig.from_pretrained(tmp_path / "half").dtype == torch.float16
            assert main(["convert", str(tmp_path / "x"), str(tmp_path / "ours")]) == 0
            assert "tensors" in capsys.readouterr().out
    assert found[0] == found[1]


def test_a_model_knows_the_tasks_that_it_was_taught(tmp_path, capsys):
    originals.got(tmp_path / "x")
    page = tmp_path / "page.png"
    noise(200, 150).save(page)
    assert main(["read", str(page), "--model", str(tmp_path / "x"), "--task", "detect"]) == 2
    assert re.search(r"\bocr\b.*\bmarkdown\b.*\bdetect\b", capsys.readouterr().err)


@pytest.mark.slow
def test_conversion_streams(tmp_path):
    """At the full model's widths, with 8 of 24 layers: what stands in memory at once is half a GiB of tensors."""
    size = originals.large(tmp_path / "large", 8)
    shutil.copy(RANKS, tmp_path / "large")
    command = [sys.executable, str(ROOT / "tests" / "stream.py"), str(tmp_path / "large"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    largest = 2 * 151860 * 2048
    assert size > 2.5 * 2**30 and found["peak"] <= 2**30 + largest
