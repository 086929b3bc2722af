"""An image tower of open_clip as a vision branch, and ``image-net``, which fetches or converts pretrained towers."""

import json

import open_clip
import pytest
import timm
import torch
from conftest import tiny_config, tiny_model
from safetensors.torch import load_file, save_file
from torch import nn

from data_tools.__main__ import main
from train.stage_weights import load_stage
from varytoy.inference.reader import Reader
from varytoy.models.config import ClipConfig, OpenClipConfig, TimmConfig, VaryConfig
from varytoy.models.vision import ClipBranch, OpenClipBranch, TimmBranch

TEXT = {"context_length": 4, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
MODELS = {
    "small-vit": {"image_size": 56, "layers": 3, "width": 128, "patch_size": 14},
    "small-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "small-timm": {"image_size": 64, "timm_model_name": "convnext_atto"},
}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """Small models beside those that open_clip has."""
    for name, vision in MODELS.items():
        settings = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": True}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, settings)


def small_config(**changes) -> OpenClipConfig:
    return OpenClipConfig(**{"name": "small-vit", "image_size": 56, "width": 128, "patch_size": 14} | changes)


def test_equals_the_clip_branch_on_the_same_weights():
    torch.manual_seed(0)
    ours = ClipBranch(ClipConfig(image_size=56, width=128, layers=3)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    branch = OpenClipBranch(small_config()).eval()
    branch.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(branch(pixels), ours(pixels))
    assert branch(pixels).shape == (2, *branch.grid, 128) == (2, 4, 4, 128)


def test_has_the_published_names_and_shapes():
    with torch.device("meta"):
        ours = ClipBranch(ClipConfig()).state_dict()
        theirs = OpenClipBranch(OpenClipConfig(name="ViT-L-14-quickgelu", width=1024, patch_size=14)).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in ours.items()}


@pytest.mark.parametrize(
    ("name", "width", "last"), [("small-resnet", 256, "visual.layer4"), ("small-timm", 320, "visual.trunk.stages.3")]
)
def test_a_tower_of_stages_gives_its_last_map_and_keeps_its_statistics(name, width, last):
    branch = OpenClipBranch(OpenClipConfig(name=name, image_size=64, width=width))
    maps = []
    branch.get_submodule(last).register_forward_hook(lambda module, inputs, output: maps.append(output))
    before = {name: value.clone() for name, value in branch.named_buffers()}
    branch.train()
    features = branch(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 2, 2, width)
    assert torch.equal(features, maps[0].permute(0, 2, 3, 1))
    assert all(torch.equal(value, before[name]) for name, value in branch.named_buffers())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "ViT-of-nobody"}, r"ViT-of-nobody.*list_models"),
        ({"width": 64}, "width 128"),
        ({"image_size": 70}, "image_size 56, not 70"),
        ({"select_layer": -4}, "3 layers"),
    ],
)
def test_a_tower_that_cannot_be_is_said(changes, named):
    with pytest.raises(ValueError, match=named):
        OpenClipBranch(small_config(**changes))


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_file_makes_a_model(name, processor, pictures, tmp_path):
    """The file's weights and the settings beside them, in place of the CLIP branch; saved and read back."""
    torch.manual_seed(0)
    theirs = open_clip.create_model(name).eval()
    (tmp_path / "theirs").mkdir()
    save_file(theirs.state_dict(), tmp_path / "theirs/open_clip_model.safetensors")
    arguments = ["image-net", "open_clip", name, "--out", str(tmp_path / "net"), "--weights"]
    assert main([*arguments, str(tmp_path / "theirs/open_clip_model.safetensors")]) == 0
    origin = json.loads((tmp_path / "net/origin.json").read_text())
    assert origin["source"].endswith("open_clip_model.safetensors") and origin["licence"] is None

    model = tiny_model(VaryConfig(**tiny_config().to_dict() | {"clip_config": origin["clip_config"]}))
    for folder in ("theirs", "net"):
        loaded = load_stage(model, tmp_path / folder)
        assert not loaded.misfits and loaded.taken == {n for n in model.state_dict() if n.startswith("clip.")}
    processor.image_processor.clip_size = origin["image_processor"]["clip_size"]
    inputs = processor(["Read.", "Read this."], pictures)
    index = -2 if name == "small-vit" else -1
    with torch.inference_mode():
        expected = theirs.visual.forward_intermediates(inputs["clip_pixel_values"], indices=[index])
        torch.testing.assert_close(
            model.clip(inputs["clip_pixel_values"]), expected["image_intermediates"][0].permute(0, 2, 3, 1)
        )
        logits = model(**inputs).logits
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = Reader.from_pretrained(str(tmp_path / "model"), "cpu")
    with torch.inference_mode():
        assert torch.equal(again.engine.model(**inputs).logits, logits)


def test_a_file_of_timm_gives_the_branchs_names(tmp_path):
    """ConvNeXt's stages have other names where only features are wanted."""
    theirs = timm.create_model("convnext_atto")
    with torch.no_grad():
        for value in theirs.parameters():
            nn.init.normal_(value, std=0.1)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    arguments = ["image-net", "timm", "convnext_atto", "--out", str(tmp_path / "net"), "--weights"]
    assert main([*arguments, str(tmp_path / "theirs.safetensors")]) == 0
    origin = json.loads((tmp_path / "net/origin.json").read_text())
    branch = TimmBranch(TimmConfig(**origin["clip_config"])).eval()
    branch.load_state_dict(load_file(tmp_path / "net/model.safetensors"))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs.eval().forward_intermediates(pixels, indices=[3], intermediates_only=True)[0]
        torch.testing.assert_close(branch(pixels), expected.permute(0, 2, 3, 1))
    assert origin["image_processor"]["clip_mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timm", "resnet_of_nobody"], "timm has no model 'resnet_of_nobody'"),
        (["timm", "resnet18.nobody"], "weights of resnet18.nobody"),
        (["open_clip", "ViT-of-nobody:openai"], "open_clip has no model 'ViT-of-nobody'"),
        (["open_clip", "ViT-B-16:nobody"], "datacomp_xl_s13b_b90k"),
        (["open_clip", "ViT-B-16:openai"], "ViT-B-16-quickgelu"),
        (["open_clip", "small-vit"], "none: give a file"),
    ],
)
def test_a_net_that_cannot_be_fetched_is_said(words, said, tmp_path, capsys):
    assert main(["image-net", *words, "--out", str(tmp_path / "net")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(("library", "name"), [("timm", "convnext_atto"), ("open_clip", "small-vit")])
def test_another_nets_file_is_refused(library, name, tmp_path, capsys):
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert (
        main(["image-net", library, name, "--out", str(tmp_path / "net"), "--weights", str(tmp_path / "x.safetensors")])
        == 2
    )
    assert f"x.safetensors does not hold weights of {name}" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_no_network_is_one_sentence(library, tmp_path, capsys, monkeypatch):
    def unreachable(*arguments, **settings):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(f"{library}.create_model", unreachable)
    net = {"timm": "resnet18", "open_clip": "ViT-B-32:laion2b_e16"}[library]
    assert main(["image-net", library, net, "--out", str(tmp_path / "net")]) == 2
    assert capsys.readouterr().err == f"data_tools: cannot fetch the weights of {net}: no route to the hub\n"
