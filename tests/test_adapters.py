"""LoRA adapters: they train, their folder is PEFT's, and merging changes nothing."""

import json
import re

import pytest
import torch
from conftest import losses, tiny_recipe
from PIL import Image
from safetensors.torch import load_file

from train.__main__ import main
from train.adapters import Nf4StandIn
from train.loop import run
from train.model import build
from train.recipe import LoraSettings
from varytoy.checkpoints.loading import ModelError
from varytoy.devices.precision import decoder_linears, quantize
from varytoy.inference.reader import Reader

TOWERS = ["vision_vocabulary", "clip"]


def adapted(data, output, init=(), quantize: str = "", freeze=(), **train):
    chosen = tiny_recipe(data, output, init=init, clip=True, **train)
    chosen.freeze = [*TOWERS, *freeze]
    chosen.lora = LoraSettings(rank=8, alpha=16, quantize=quantize)
    return chosen


@pytest.mark.parametrize("quantize", ["", "nf4"])
def test_only_adapters_and_connector_learn(ten, tmp_path, quantize):
    chosen = adapted(ten, tmp_path / "run", max_steps=20, quantize=quantize, learning_rate=1e-2)
    chosen.check()
    said = []
    run(chosen, say=said.append)
    found = losses(tmp_path / "run")
    assert found[-1] < 0.9 * found[0]  # from a random base
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert any(bool(saved[name].any()) for name in saved if "lora_B" in name)  # they begin as zeros
    plain, *_ = build(tiny_recipe(ten, tmp_path / "run", clip=True))
    base = load_file(tmp_path / "run" / "base" / "model.safetensors")
    assert base.keys() >= {name for name, _ in plain.named_parameters() if "lm_head" not in name}
    assert all("lora_" in name or "connector" in name for name in saved) and any("connector" in name for name in saved)
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == str(tmp_path / "run" / "base")
    assert any("adapters" in line and "trained" in line for line in said)


def test_merged_is_what_the_adapter_was_and_resume_goes_on(ten, tmp_path, capsys):
    run(tiny_recipe(ten, tmp_path / "first", clip=True, max_steps=2))
    settings = dict(init=(str(tmp_path / "first"),), schedule="constant", save_steps=3, learning_rate=1e-2)
    run(adapted(ten, tmp_path / "whole", max_steps=6, **settings))
    run(adapted(ten, tmp_path / "broken", max_steps=3, **settings))
    run(adapted(ten, tmp_path / "broken", max_steps=6, **settings), resume=True)
    whole, broken = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert not (tmp_path / "whole" / "base").exists()  # the first run is whole
    assert main(["merge", str(tmp_path / "whole"), str(tmp_path / "merged")]) == 0
    merged = Reader.from_pretrained(str(tmp_path / "merged"))

    from peft import PeftModel

    base = Reader.from_pretrained(str(tmp_path / "first"))
    batch = base.processor("read", [Image.open(next((ten / "images").rglob("*.png")))])
    with torch.no_grad():
        plain = base.engine.model(**batch).logits
        model = PeftModel.from_pretrained(base.engine.model, tmp_path / "whole").eval()
        torch.testing.assert_close(merged.engine.model(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, merged.engine.model(**batch).logits, atol=1e-2)
    assert main(["merge", str(tmp_path / "first"), str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(tmp_path / "first") in error and "adapter_config.json" in error


def test_an_adapter_without_its_base_is_said(ten, tmp_path):
    run(adapted(ten, tmp_path / "run", max_steps=1))
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    Reader.from_pretrained(str(moved))  # its base came along
    (moved / "base" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=rf"{re.escape(str(moved / 'base'))}.*model\.safetensors"):
        Reader.from_pretrained(str(moved))


def test_the_stand_in_takes_the_memory_of_real_four_bit_layers(ten, tmp_path):
    model, *_ = build(tiny_recipe(ten, tmp_path / "run"))
    plain = decoder_linears(model.language_model)
    wanted = {name: Nf4StandIn(layer, torch.float32) for name, layer in plain.items()}
    quantize(model, "nf4", torch.float32)
    for name, layer in wanted.items():
        real = model.language_model.get_submodule(name).weight
        assert real.dtype == torch.uint8 and real.nbytes == layer.weight.nbytes
        assert real.quant_state.absmax.numel() == layer.scales.numel()
        assert real.quant_state.absmax.dtype == layer.scales.dtype
        assert real.quant_state.state2.absmax.numel() == layer.scales_of_scales.numel()
