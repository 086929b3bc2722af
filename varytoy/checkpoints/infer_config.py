"""Infer a model's configuration from its tensors; what shapes do not show comes from the checkpoint's config.json."""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from varytoy.checkpoints.maps import PARTS, Family, WeightsError
from varytoy.models.config import ClipConfig, VaryConfig, VisionVocabularyConfig, read_preset

_HEAD_WIDTH = 64
"""Used where neither tensors nor configuration give it."""


def config_of(tensors: Mapping[str, Tensor], family: Family, stored: dict) -> VaryConfig | PretrainedConfig:
    """The configuration of a whole model, or of the part that the family is.

    Args:
        tensors: by our names; only their shapes are looked at.
        stored: the checkpoint's ``config.json``.

    Raises:
        WeightsError: a tensor that gives a size is missing.
    """
    try:
        if family.part == "vision_vocabulary":
            return vocabulary_config(tensors)
        if family.part == "clip":
            return clip_config(tensors, stored)
        if family.part == "language_model":
            return text_config(
                tensors, family.model_type, stored, read_preset("vary-toy") if family.name == "qwen" else {}
            )
        preset = read_preset(family.preset)
        text = text_config(tensors, family.model_type, stored, preset)
        clip = clip_config(tensors, stored) if "clip.visual.class_embedding" in tensors else None
        return VaryConfig(
            vocabulary_config=vocabulary_config(tensors),
            clip_config=clip,
            clip_projection_size=len(tensors["connector.mm_projector.weight"]) if clip is not None else 0,
            text_config=text,
            image_token_id=_image_token(stored, preset["image_token_id"], text.vocab_size),
            tie_word_embeddings=text.tie_word_embeddings,
        )
    except KeyError as error:
        if not str(error.args[0]).startswith((*PARTS, "connector.")):
            raise
        name = family.source_of(str(error.args[0]))
        raise WeightsError(f"no {name} among the weights of {family.about}: its sizes cannot be read") from error


def vocabulary_config(tensors: Mapping[str, Tensor]) -> VisionVocabularyConfig:
    """The configuration of SAM's encoder, with or without Vary's compressor."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[f"vision_vocabulary.{name}"].shape)

    _, side, _, width = shape("pos_embed")
    layers = _count(tensors, r"vision_vocabulary\.blocks\.(\d{1,6})\.")
    relative = "vision_vocabulary.blocks.0.attn.rel_pos_h" in tensors
    heads = width // (shape("blocks.0.attn.rel_pos_h")[1] if relative else _HEAD_WIDTH)
    spans = [(shape(f"blocks.{n}.attn.rel_pos_h")[0] + 1) // 2 if relative else side for n in range(layers)]
    windows = {span for span in spans if span != side}
    if len(windows) > 1:
        raise WeightsError(
            f"the vision vocabulary has windows of several sizes ({sorted(windows)}), which ours does not support"
        )
    settings = {}
    if "vision_vocabulary.net_2.weight" in tensors:
        settings["compressor_sizes"] = (shape("net_2.weight")[0], shape("net_3.weight")[0])
    patch = shape("patch_embed.proj.weight")[-1]
    return VisionVocabularyConfig(
        image_size=side * patch,
        patch_size=patch,
        relative_positions=relative,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        mlp_ratio=shape("blocks.0.mlp.lin1.weight")[0] / width,
        window_size=windows.pop() if windows else 0,
        global_layers=[n for n, span in enumerate(spans) if span == side],
        neck_size=shape("neck.0.weight")[0],
        **settings,
    )


def clip_config(tensors: Mapping[str, Tensor], stored: dict) -> ClipConfig:
    """The configuration of CLIP's vision transformer."""
    width = len(tensors["clip.visual.class_embedding"])
    patch = tensors["clip.visual.conv1.weight"].shape[-1]
    positions = len(tensors["clip.visual.positional_embedding"]) - 1
    vision = stored if stored.get("model_type") == "clip_vision_model" else stored.get("vision_config") or {}
    if vision.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise WeightsError(
            f"this CLIP computes with {vision['hidden_act']}, and ours with quick_gelu: use OpenAI's weights"
        )
    heads = vision.get("num_attention_heads")
    return ClipConfig(
        image_size=round(positions**0.5) * patch,
        patch_size=patch,
        width=width,
        layers=_count(tensors, r"clip\.visual\.transformer\.resblocks\.(\d{1,6})\."),
        head_width=width // heads if heads else _HEAD_WIDTH,
        select_layer=stored.get("vision_select_layer") or -2,
    )


def text_config(tensors: Mapping[str, Tensor], model_type: str, stored: dict, preset: dict) -> PretrainedConfig:
    """The decoder's configuration, in transformers' class for ``model_type`` (qwen2 or opt); ``preset``: defaults."""
    stored = stored.get("text_config") or stored
    defaults = preset.get("text_config", {})  # configurations leave out default values
    names = {
        "qwen2": "language_model.model.embed_tokens.weight",
        "opt": "language_model.model.decoder.embed_tokens.weight",
    }
    table = tensors[names[model_type]]
    vocab_size, width = table.shape
    heads = stored.get("num_attention_heads")
    if not heads:
        heads = defaults["num_attention_heads"] if width == defaults.get("hidden_size") else width // _HEAD_WIDTH
    settings = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_attention_heads": heads,
        "tie_word_embeddings": "language_model.lm_head.weight" not in tensors,
    }
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(stored.get(name), int):
            settings[name] = stored[name]
    if model_type == "opt":
        return AutoConfig.for_model(
            **settings,
            word_embed_proj_dim=width,
            ffn_dim=len(tensors["language_model.model.decoder.layers.0.fc1.weight"]),
            num_hidden_layers=_count(tensors, r"language_model\.model\.decoder\.layers\.(\d{1,6})\."),
            max_position_embeddings=len(tensors["language_model.model.decoder.embed_positions.weight"]) - 2,
        )
    rows = len(tensors["language_model.model.layers.0.self_attn.k_proj.weight"])
    if width % heads or rows % (width // heads):
        raise WeightsError(
            f"{rows} rows of keys in heads {width // heads} wide: config.json must say num_attention_heads"
        )
    rope_settings = stored.get("rope_parameters") or {}
    rope_theta = stored.get("rope_theta") or stored.get("rotary_emb_base") or rope_settings.get("rope_theta")
    rope_theta = rope_theta or defaults.get("rope_parameters", {}).get("rope_theta")
    if not rope_theta:
        raise WeightsError(
            "Qwen's decoders differ in their rotary embeddings: config.json beside the weights must say rope_theta"
        )
    rope_settings = rope_settings | (stored.get("rope_scaling") or {})
    return AutoConfig.for_model(
        **settings,
        num_key_value_heads=rows // (width // heads),
        intermediate_size=len(tensors["language_model.model.layers.0.mlp.gate_proj.weight"]),
        num_hidden_layers=_count(tensors, r"language_model\.model\.layers\.(\d{1,6})\."),
        rms_norm_eps=stored.get("rms_norm_eps") or stored.get("layer_norm_epsilon") or 1e-6,
        max_position_embeddings=stored.get("max_position_embeddings")
        or stored.get("seq_length")
        or defaults.get("max_position_embeddings", 8192),
        rope_parameters={"rope_type": rope_settings.get("type", "default")}
        | rope_settings
        | {"rope_theta": float(rope_theta)},
    )


def _image_token(stored: dict, preset: int, vocab_size: int) -> int:
    """The id of ``<imgpad>``: the checkpoint's, else the published one, else the last of a smaller vocabulary."""
    for name in ("im_patch_token", "image_token_id", "image_token_index"):
        if isinstance(stored.get(name), int):
            return stored[name]
    return min(preset, vocab_size - 1)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The number of layers; raises WeightsError where the numbering has a gap."""
    numbers = {int(match[1]) for name in tensors if (match := re.match(pattern, name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None:
        where = pattern.replace("\\", "").replace("(d{1,6})", f"{gap}")
        raise WeightsError(f"there is a layer {max(numbers)}, but no tensor {where}* of layer {gap}")
    return len(numbers)
