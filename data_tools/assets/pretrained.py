"""Pretrained towers of timm and open_clip, from the hub or from a file, for ``model.init`` of a recipe.

``OUT/model.safetensors`` has the branch's names, ``visual.…``. ``OUT/origin.json`` says where the weights come from,
their licence if the library knows it, and settings of a preset that fit them.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from data_tools.assets.packages import SourceError
from varytoy.models.vision.open_clip_branch import build_tower


def write_tower(library: str, net: str, out: Path, weights: Path | None = None) -> dict:
    """Write a tower's weights and origin to the folder ``out``. Returns what ``origin.json`` holds.

    Args:
        library: ``"timm"`` or ``"open_clip"``.
        net: NAME or NAME.TAG of timm, NAME:TAG of open_clip.
        weights: a file in the library's own layout, in place of a download.

    Raises:
        SourceError: the library does not know the net, or its weights cannot be fetched, read or used.
    """
    if weights is not None and not weights.is_file():
        raise SourceError(f"{weights} is missing: give a file with weights of {net}")
    visual, note = (_timm if library == "timm" else _open_clip)(net, weights)
    if weights is not None:
        note |= {"source": str(weights), "licence": None}
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.{name}": tensor.contiguous() for name, tensor in visual.state_dict().items()}
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    (out / "origin.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return note


def _timm(net: str, weights: Path | None) -> tuple[nn.Module, dict]:
    import timm

    if not timm.is_model(net):
        raise SourceError(f"timm has no model '{net}'; timm.list_models() lists those it has")
    overlay = {} if weights is None else {"file": str(weights), "custom_load": weights.suffix == ".npz"}
    with _named(net, weights):
        settings = timm.get_pretrained_cfg(net)
        # A model of features alone would take the weights of any other model for its own, and none of them.
        whole = timm.create_model(net, pretrained=True, pretrained_cfg_overlay=overlay)
        overlay = {"state_dict": whole.state_dict()}
        visual = timm.create_model(net, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True)
    info, side = visual.feature_info, settings.input_size[-1]
    config = {"model_type": "vary_timm", "name": net, "image_size": side, "stages": [info.out_indices[-1]]}
    config |= {"patch_size": info.reduction()[-1], "width": info.channels()[-1]}
    source = settings.hf_hub_id or settings.url
    return visual, _note("timm", source, settings.license, config, settings.to_dict(), settings.crop_mode)


def _open_clip(net: str, weights: Path | None) -> tuple[nn.Module, dict]:
    import open_clip

    name, _, tag = net.partition(":")
    if name not in open_clip.list_models():
        raise SourceError(f"open_clip has no model '{name}'; open_clip.list_models() lists those it has")
    settings = open_clip.get_pretrained_cfg(name, tag)
    if not settings and (tag or weights is None):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none: give a file"
        raise SourceError(f"open_clip has no weights '{tag}' of {name}; it has {tags}")
    if settings.get("quick_gelu") and not open_clip.get_model_config(name).get("quick_gelu"):
        raise SourceError(f"the weights '{tag}' are those of {name}-quickgelu, not of {name}")
    with _named(net, weights):
        model = open_clip.create_model(name, tag if weights is None else str(weights))
    _, width, patch_size, _, side = build_tower(name)
    config = {"model_type": "vary_open_clip", "name": name, "image_size": side or model.visual.image_size}
    config |= {"patch_size": patch_size, "width": width}
    source, preprocess = settings.get("hf_hub") or settings.get("url"), open_clip.get_model_preprocess_cfg(model)
    preprocess |= {key: value for key, value in settings.items() if key in preprocess}
    return model.visual, _note("open_clip_torch", source, None, config, preprocess, preprocess["resize_mode"])


def _note(package: str, source: str | None, licence: str | None, config: dict, settings: dict, mode: str) -> dict:
    return {
        "source": source,
        "licence": licence,
        "library": f"{package} {version(package)}",
        "interpolation": settings["interpolation"],
        "clip_config": config,
        "image_processor": {
            "clip_size": config["image_size"],
            "clip_mode": "squash" if mode == "squash" else "crop",
            "clip_mean": list(settings["mean"]),
            "clip_std": list(settings["std"]),
        },
    }


@contextmanager
def _named(net: str, weights: Path | None) -> Iterator[None]:
    """Context: any error of the libraries becomes one sentence, and they log nothing beside it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except Exception as error:  # they raise nearly any type
        what = f"cannot fetch the weights of {net}" if weights is None else f"{weights} does not hold weights of {net}"
        raise SourceError(f"{what}: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.disable(before)
