"""Types and ranges of the settings read from ``config.json``, ``processor_config.json`` and ``adapter_config.json``, so
that an error names the file and the key, and no size can make an unboundedly large model."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varytoy.checkpoints.maps import WeightsError


@dataclass(frozen=True)
class Rule:
    """A check on a value; ``words`` describe it in error messages."""

    fits: Callable[[Any], bool]
    words: str


Rules = Mapping[str, "Rule | Rules"]


def whole(least: int, most: int) -> Rule:
    return Rule(
        lambda value: type(value) is int and least <= value <= most, f"a whole number from {least:,} to {most:,}"
    )


def number(least: float, most: float) -> Rule:
    return Rule(lambda value: type(value) in (int, float) and least <= value <= most, f"from {least:g} to {most:g}")


def one_of(*values: str) -> Rule:
    return Rule(lambda value: value in values, " or ".join(values))


def several(rule: Rule, least: int, most: int) -> Rule:
    def fits(value: object) -> bool:
        return isinstance(value, (list, tuple)) and least <= len(value) <= most and all(map(rule.fits, value))

    count = f"{least}" if least == most else f"{least} to {most}"
    return Rule(fits, f"a list of {count}, each {rule.words}")


def either(*rules: Rule) -> Rule:
    return Rule(lambda value: any(rule.fits(value) for rule in rules), ", or ".join(rule.words for rule in rules))


TEXT = Rule(lambda value: isinstance(value, str), "text")
FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
TEXTS = Rule(
    lambda value: isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values()), "texts by name"
)
_WIDTH, _HEADS, _LAYERS, _TOKEN = whole(1, 2**20), whole(1, 2**14), whole(0, 1024), whole(0, 2**22)
_SIDE, _POSITIONS, _PATCHES = whole(1, 2**14), whole(1, 2**24), whole(2, 2**16)
_ROPE: Rules = {"type": TEXT, "rope_type": TEXT, "rope_theta": number(1, 1e12), "factor": number(1e-3, 1e6)}
_STAGE = Rule(
    lambda value: (
        (several(whole(0, 2**14), 4, 4).fits(value) and value[0] > 0 and 1 <= value[1] <= 16 and 1 <= value[2] <= 16)
        and value[3] <= 64
    ),
    "a width, two strides from 1 to 16 and up to 64 blocks",
)

_TOKENS: Rules = {
    **dict.fromkeys(("bos_token_id", "pad_token_id"), _TOKEN),
    "eos_token_id": either(_TOKEN, several(_TOKEN, 0, 64)),
}
_DECODER: Rules = {
    "model_type": TEXT,
    "num_attention_heads": _HEADS,
    "rms_norm_eps": number(0, 1),
    "layer_norm_epsilon": number(0, 1),
    "max_position_embeddings": _POSITIONS,
    "seq_length": _POSITIONS,
    "rope_theta": number(1, 1e12),
    "rotary_emb_base": number(1, 1e12),
    "rope_parameters": _ROPE,
    "rope_scaling": _ROPE,
    "tie_word_embeddings": FLAG,
}
FOREIGN: Rules = {
    **_DECODER,
    "text_config": _DECODER,
    "vision_config": {"hidden_act": TEXT, "num_attention_heads": _HEADS},
    "hidden_act": TEXT,
    "vision_select_layer": whole(-1024, 1024),
}
"""For another project's ``config.json``; sizes are inferred from the tensors."""

OPEN_CLIP: Rules = {"model_cfg": {"quick_gelu": FLAG}}

_BACKBONE: Rules = {"name": TEXT, "stages": several(whole(0, 64), 1, 8), "select_layer": whole(-256, -1)}
"""Of a branch that timm or open_clip builds by name."""
_SWITCHES = dict.fromkeys(("output_hidden_states", "output_attentions", "return_dict", "use_cache"), FLAG)
_PARTS = ("vision_vocabulary", "clip", "connector", "language_model", "pointer", "letters", "numbers")
OURS: Rules = {
    **_SWITCHES,
    "vocabulary_config": {
        "image_size": _SIDE,
        "stem": one_of("patch", "conv"),
        "patch_size": _SIDE,
        "stem_stages": several(_STAGE, 0, 16),
        "positions": one_of("learned", "sincos", "projected"),
        "relative_positions": FLAG,
        "hidden_size": _WIDTH,
        "num_layers": _LAYERS,
        "num_heads": _HEADS,
        "mlp_ratio": number(0.01, 64),
        "window_size": whole(0, 2**14),
        "global_layers": several(_LAYERS, 0, 1024),
        "neck_size": whole(0, 2**20),
        "compressor_sizes": several(_WIDTH, 2, 2),
        "width": _WIDTH,
        "max_patches": _PATCHES,
        "intermediate_size": _WIDTH,
        **_BACKBONE,
    },
    "clip_config": {
        **_BACKBONE,
        "image_size": _SIDE,
        "patch_size": _SIDE,
        "width": _WIDTH,
        "layers": either(whole(1, 256), several(whole(1, 64), 1, 4)),
        "head_width": _HEADS,
    },
    "text_config": {
        **_DECODER,
        **_SWITCHES,
        **dict.fromkeys(("hidden_size", "intermediate_size", "ffn_dim", "word_embed_proj_dim"), _WIDTH),
        **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer"), _LAYERS),
        **dict.fromkeys(("num_key_value_heads", "head_dim"), _HEADS),
        **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), _LAYERS),
        **_TOKENS,
        "vocab_size": whole(1, 2**22),
    },
    "connector": TEXT,
    "shared": several(one_of(*_PARTS), 0, len(_PARTS)),
    "connector_options": {"latents": whole(1, 2**14), "heads": _HEADS, "normalize": FLAG},
    "clip_projection_size": whole(0, 2**20),
    "numbers": whole(0, 2**14),
    "image_token_id": _TOKEN,
    "tie_word_embeddings": FLAG,
}

PROCESSOR: Rules = {
    "image_processor": {
        "mode": one_of("squash", "fit", "patches"),
        "size": several(_SIDE, 2, 2),
        "stride": several(whole(1, 1024), 2, 2),
        "max_pixels": whole(1, 2**31),
        "picture_side": _SIDE,
        "text_size": number(0.1, 1000),
        "cell_size": number(0, 1000),
        "least_confidence": number(0, 1),
        "max_patches": _PATCHES,
        "standardize": FLAG,
        "latents": whole(0, 2**14),
        "clip_size": whole(0, 2**14),
        "clip_mode": one_of("crop", "squash"),
        "mean": several(number(-10, 10), 3, 3),
        "std": several(number(1e-3, 10), 3, 3),
        "clip_mean": several(number(-10, 10), 3, 3),
        "clip_std": several(number(1e-3, 10), 3, 3),
    },
    "template": one_of("chatml", "compact", "vicuna", "jinja"),
    "system": TEXT,
    "places": whole(0, 2**16),
    "place_size": several(_SIDE, 2, 2),
    "prompts": TEXTS,
    "learned": several(TEXT, 0, 100),
}

GENERATION: Rules = {**_TOKENS, **_SWITCHES}
TOKENIZER: Rules = {"model_max_length": number(1, 1e31), "padding_side": one_of("left", "right")}

ADAPTER: Rules = {
    "rank_pattern": Rule(
        lambda value: (
            isinstance(value, dict) and all(type(rank) is int and 1 <= rank <= 2**14 for rank in value.values())
        ),
        "ranks by name",
    ),
    "base_model_name_or_path": TEXT,
    "peft_type": one_of("LORA"),
    "r": whole(1, 2**14),
    "lora_alpha": number(0, 1e6),
    "target_modules": either(TEXT, several(TEXT, 0, 2**14)),
}


def read_settings(file: Path, rules: Rules) -> dict:
    """Read and check the JSON object in a file. Keys without a rule are not checked; null counts as missing.

    Raises:
        WeightsError: naming the file and the key.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{file}: not a JSON object, but a {type(settings).__name__}")
    _check(settings, rules, file, "")
    return settings


def _check(tree: dict, rules: Rules, file: Path, prefix: str) -> None:
    for key, rule in rules.items():
        value = tree.get(key)
        if value is None:
            continue
        if isinstance(rule, Rule):
            if not rule.fits(value):
                raise WeightsError(f"{file}: {prefix}{key} must be {rule.words}, not {repr(value)[:80]}")
        elif isinstance(value, dict):
            _check(value, rule, file, f"{prefix}{key}.")
        else:
            raise WeightsError(f"{file}: {prefix}{key} must be an object with settings, not {repr(value)[:80]}")


@contextmanager
def named(what: str) -> Iterator[None]:
    """Context: turns any library's error into a WeightsError that names the file."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # the constructors and readers of six libraries raise nearly any type
        message = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{what}: {message[:300]}") from error
