"""Our models in other engines' formats: transformers' GOT-OCR2, a stock decoder, a vision vocabulary alone, ONNX."""

import re

import originals
import pytest
import torch
from conftest import ROOT, noise
from originals import SIDE, TOKENS
from safetensors.torch import load_file
from test_weights import batch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, GotOcr2ForConditionalGeneration

from varytoy.checkpoints import convert, load
from varytoy.cli import main
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor


def test_transformers_own_class_reads_what_is_exported(tmp_path, capsys):
    stock = originals.got_transformers(tmp_path / "stock")
    assert main(["convert", str(tmp_path / "stock"), str(tmp_path / "ours")]) == 0
    assert main(["export", "got", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    again = GotOcr2ForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    wanted, found = stock.state_dict(), again.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    processor = AutoProcessor.from_pretrained(tmp_path / "back")
    ours = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    own = VaryProcessor.from_pretrained(tmp_path / "ours")
    picture = noise(SIDE, SIDE)
    inputs = processor(picture, return_tensors="pt", num_image_tokens=TOKENS)
    same = own(" OCR: ", [picture])
    assert torch.equal(inputs["input_ids"], same["input_ids"])
    torch.testing.assert_close(inputs["pixel_values"], same["pixel_values"], atol=1e-4, rtol=0)
    returned, _ = load(tmp_path / "back")
    with torch.no_grad():
        assert torch.equal(returned.eval()(**same).logits, ours(**same).logits)
    told = dict(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(again.generate(**inputs, **told), ours.generate(**same, **told))


def test_what_the_stock_class_has_not_is_said(tmp_path, capsys):
    originals.vary_toy(tmp_path / "x")
    convert(tmp_path / "x", tmp_path / "ours")
    assert main(["export", "got", str(tmp_path / "ours"), str(tmp_path / "out")]) == 2
    assert "CLIP" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["export", "got", str(tmp_path / "x"), str(tmp_path / "out")]) == 2
    assert "`varytoy convert`" in capsys.readouterr().err


def test_the_decoder_alone_is_a_stock_one(tmp_path):
    originals.vary_toy(tmp_path / "x")
    convert(tmp_path / "x", tmp_path / "ours")
    assert main(["export", "decoder", str(tmp_path / "ours"), str(tmp_path / "qwen")]) == 0
    decoder = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen").eval()
    assert type(decoder).__name__ == "Qwen2ForCausalLM"
    ids = AutoTokenizer.from_pretrained(tmp_path / "qwen")("the fox", return_tensors="pt")["input_ids"]
    model = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert torch.equal(decoder(ids).logits, model(ids).logits)


def test_a_vision_vocabulary_goes_from_one_model_into_another(tmp_path, capsys):
    originals.vary_toy(tmp_path / "toy")
    convert(tmp_path / "toy", tmp_path / "ours")
    other = originals.randomise(originals.tower(), 9).state_dict()
    prefixes = {"sam-like.pth": "image_encoder.", "got.bin": "model.vision_tower_high."}
    for file, prefix in prefixes.items():
        state = {f"{prefix}{name}": each for name, each in other.items()}
        if file == "got.bin":
            state |= {"model.mm_projector_vary.weight": torch.ones(2, 2), "model.embed_tokens.weight": torch.ones(2, 2)}
        originals.write(tmp_path / "from", state, file)
        assert main(["export-vocab", str(tmp_path / "from" / file), str(tmp_path / f"vocab-{file}")]) == 0
        written = load_file(tmp_path / f"vocab-{file}" / "model.safetensors")
        assert written.keys() == other.keys() and all(torch.equal(written[name], other[name]) for name in other)
    vocabulary = str(tmp_path / "vocab-got.bin")
    assert main(["import-vocab", vocabulary, str(tmp_path / "ours"), str(tmp_path / "joined")]) == 0
    joined = VaryForConditionalGeneration.from_pretrained(tmp_path / "joined").state_dict()
    before = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours").state_dict()
    for name, each in joined.items():
        tower = name.startswith("vision_vocabulary.")
        assert torch.equal(each, other[name.removeprefix("vision_vocabulary.")] if tower else before[name])
    capsys.readouterr()
    clip = originals.write(tmp_path / "clip", originals.clip_state(originals.clip(), ""))
    assert main(["export-vocab", str(clip), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert str(clip) in error and "openai/clip-vit-large-patch14" in error and "vision vocabulary" in error
    sam = {f"image_encoder.{name}": each for name, each in other.items() if "net_" not in name}
    originals.write(tmp_path / "from", sam, "sam.pth")
    nano = str(ROOT / "varytoy" / "nano")
    assert main(["export-vocab", str(tmp_path / "from" / "sam.pth"), str(tmp_path / "sam")]) == 0
    assert main(["export-vocab", str(tmp_path / "sam"), str(tmp_path / "sam-again")]) == 0
    assert main(["convert", str(tmp_path / "from" / "sam.pth"), str(tmp_path / "sam-part")]) == 0
    assert main(["export-vocab", str(tmp_path / "sam-part"), str(tmp_path / "sam-third")]) == 0
    assert main(["export-vocab", nano, str(tmp_path / "nano-vocab")]) == 0
    capsys.readouterr()
    assert main(["import-vocab", str(tmp_path / "sam"), str(tmp_path / "ours"), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "sam") in error and "vision_vocabulary.net_2.weight" in error
    assert main(["convert", str(tmp_path / "sam-part"), str(tmp_path / "none")]) == 2
    assert "model.init" in capsys.readouterr().err
    assert main(["convert", nano, str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"{re.escape(nano)} .*\bcheckpoint\b", error) and "`varytoy convert`" not in error
    assert main(["import-vocab", vocabulary, nano, str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert vocabulary in error and nano in error and "vision_vocabulary.blocks.0" in error


def test_the_branches_run_in_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    originals.vary_toy(tmp_path / "x")
    convert(tmp_path / "x", tmp_path / "ours")
    assert main(["export", "onnx", str(tmp_path / "ours"), str(tmp_path / "onnx")]) == 0
    model = VaryForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    inputs = {name: each for name, each in batch().items() if name != "input_ids"}
    inputs = {name: torch.cat([each, each[:1]]) for name, each in inputs.items()}  # three: not the batch of the export

    def run(file: str, **given: Tensor) -> Tensor:
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / file)
        return torch.from_numpy(session.run(None, {name: each.numpy() for name, each in given.items()})[0])

    with torch.no_grad():
        read, seen = model.vision_vocabulary(inputs["pixel_values"]), model.clip(inputs["clip_pixel_values"])
        rows = model.connector({"vocabulary": read, "clip": seen}).unflatten(0, (3, -1))
    close = dict(atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        run(f"vision_vocabulary-{SIDE}.onnx", pixel_values=inputs["pixel_values"]), read, **close
    )
    torch.testing.assert_close(run("clip.onnx", clip_pixel_values=inputs["clip_pixel_values"]), seen, **close)
    torch.testing.assert_close(run(f"connector-{SIDE}.onnx", vocabulary=read, clip=seen), rows, **close)
