"""The shape of a model, read off its tensors; the checkpoint's own ``config.json`` says what tensors cannot."""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from varytoy.checkpoints.maps import PARTS, Family, WeightsError
from varytoy.models.config import ClipConfig, VaryConfig, VisionVocabularyConfig, read_preset

_HEAD_WIDTH = 64
"""Where neither tensors nor configuration say."""


def config_of(tensors: Mapping[str, Tensor], family: Family, said: dict) -> VaryConfig | PretrainedConfig:
    """The configuration of a whole model, or of the part that the family is.

    Args:
        tensors: by our names; only their shapes are looked at.
        said: the checkpoint's ``config.json``.

    Raises:
        WeightsError: tensors from which a size would be read are missing.
    """
    try:
        if family.part == "vision_vocabulary":
            return vocabulary_config(tensors)
        if family.part == "clip":
            return clip_config(tensors, said)
        if family.part == "language_model":
            return text_config(
                tensors, family.model_type, said, read_preset("vary-toy") if family.name == "qwen" else {}
            )
        preset = read_preset(family.preset)
        text = text_config(tensors, family.model_type, said, preset)
        clip = clip_config(tensors, said) if "clip.visual.class_embedding" in tensors else None
        return VaryConfig(
            vocabulary_config=vocabulary_config(tensors),
            clip_config=clip,
            clip_projection_size=len(tensors["connector.mm_projector.weight"]) if clip is not None else 0,
            text_config=text,
            image_token_id=_image_token(said, preset["image_token_id"], text.vocab_size),
            tie_word_embeddings=text.tie_word_embeddings,
        )
    except KeyError as error:
        if not str(error.args[0]).startswith((*PARTS, "connector.")):
            raise
        name = family.source_of(str(error.args[0]))
        raise WeightsError(f"no {name} among the weights of {family.about}: its sizes cannot be read") from error


def vocabulary_config(tensors: Mapping[str, Tensor]) -> VisionVocabularyConfig:
    """Of SAM's encoder, with or without Vary's compressor."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[f"vision_vocabulary.{name}"].shape)

    _, side, _, width = shape("pos_embed")
    layers = _count(tensors, r"vision_vocabulary\.blocks\.(\d{1,6})\.")
    relative = "vision_vocabulary.blocks.0.attn.rel_pos_h" in tensors
    heads = width // (shape("blocks.0.attn.rel_pos_h")[1] if relative else _HEAD_WIDTH)
    reach = [(shape(f"blocks.{n}.attn.rel_pos_h")[0] + 1) // 2 if relative else side for n in range(layers)]
    windows = {found for found in reach if found != side}
    if len(windows) > 1:
        raise WeightsError(
            f"the vision vocabulary has windows of several sizes ({sorted(windows)}), which ours has not"
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
        global_layers=[n for n, found in enumerate(reach) if found == side],
        neck_size=shape("neck.0.weight")[0],
        **settings,
    )


def clip_config(tensors: Mapping[str, Tensor], said: dict) -> ClipConfig:
    """Of CLIP's vision transformer."""
    width = len(tensors["clip.visual.class_embedding"])
    patch = tensors["clip.visual.conv1.weight"].shape[-1]
    places = len(tensors["clip.visual.positional_embedding"]) - 1
    vision = said if said.get("model_type") == "clip_vision_model" else said.get("vision_config") or {}
    if vision.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise WeightsError(
            f"this CLIP computes with {vision['hidden_act']}, ours with quick_gelu as OpenAI's: take that"
        )
    heads = vision.get("num_attention_heads")
    return ClipConfig(
        image_size=round(places**0.5) * patch,
        patch_size=patch,
        width=width,
        layers=_count(tensors, r"clip\.visual\.transformer\.resblocks\.(\d{1,6})\."),
        head_width=width // heads if heads else _HEAD_WIDTH,
        select_layer=said.get("vision_select_layer") or -2,
    )


def text_config(tensors: Mapping[str, Tensor], model_type: str, said: dict, preset: dict) -> PretrainedConfig:
    """Of the decoder, in transformers' class for ``model_type`` (qwen2 or opt); ``preset`` has what is usual."""
    said = said.get("text_config") or said
    usual = preset.get("text_config", {})  # configurations leave out what is usual
    names = {
        "qwen2": "language_model.model.embed_tokens.weight",
        "opt": "language_model.model.decoder.embed_tokens.weight",
    }
    table = tensors[names[model_type]]
    words, width = table.shape
    heads = said.get("num_attention_heads")
    if not heads:
        heads = usual["num_attention_heads"] if width == usual.get("hidden_size") else width // _HEAD_WIDTH
    settings = {
        "model_type": model_type,
        "vocab_size": words,
        "hidden_size": width,
        "num_attention_heads": heads,
        "tie_word_embeddings": "language_model.lm_head.weight" not in tensors,
    }
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(said.get(name), int):
            settings[name] = said[name]
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
    told = said.get("rope_parameters") or {}
    rope = said.get("rope_theta") or said.get("rotary_emb_base") or told.get("rope_theta")
    rope = rope or usual.get("rope_parameters", {}).get("rope_theta")
    if not rope:
        raise WeightsError(
            "Qwen's decoders differ in their rotations: config.json beside the weights must say rope_theta"
        )
    told = told | (said.get("rope_scaling") or {})
    return AutoConfig.for_model(
        **settings,
        num_key_value_heads=rows // (width // heads),
        intermediate_size=len(tensors["language_model.model.layers.0.mlp.gate_proj.weight"]),
        num_hidden_layers=_count(tensors, r"language_model\.model\.layers\.(\d{1,6})\."),
        rms_norm_eps=said.get("rms_norm_eps") or said.get("layer_norm_epsilon") or 1e-6,
        max_position_embeddings=said.get("max_position_embeddings")
        or said.get("seq_length")
        or usual.get("max_position_embeddings", 8192),
        rope_parameters={"rope_type": told.get("type", "default")} | told | {"rope_theta": float(rope)},
    )


def _image_token(said: dict, preset: int, words: int) -> int:
    """The id of ``<imgpad>``: as the checkpoint says, else the published one, else the last of a smaller vocabulary."""
    for name in ("im_patch_token", "image_token_id", "image_token_index"):
        if isinstance(said.get(name), int):
            return said[name]
    return min(preset, words - 1)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The layers, which are numbered without gaps."""
    numbers = {int(found[1]) for name in tensors if (found := re.match(pattern, name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None:
        where = pattern.replace("\\", "").replace("(d{1,6})", f"{gap}")
        raise WeightsError(f"there is a layer {max(numbers)}, and none of the tensors {where}* of layer {gap}")
    return len(numbers)
