"""VaryForConditionalGeneration: two vision branches, a connector and any causal language model of transformers.

Shapes: B batch, I images in the batch, H W pixels, h w token grid, N image tokens of the batch, T text, D width.
"""

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from varytoy.models.config import VaryConfig
from varytoy.models.connectors import build_connector
from varytoy.models.embedding import ScaledEmbedding
from varytoy.models.letters import LetterHead
from varytoy.models.numbers import NumberHead
from varytoy.models.pointer import Pointed, Pointer
from varytoy.models.vision import VisionEncoder, build_encoder

CACHE = "cache" if "cache" in {each.name for each in fields(CausalLMOutputWithPast)} else "past_key_values"
"""Name of the key-value cache in the installed transformers: ``cache`` since 5.24."""


class _Runs(NamedTuple):
    """``first``: indices of the images that differ from the one before; ``number`` [I]: of each image's run."""

    first: Tensor
    number: Tensor


@dataclass
class VaryOutput(CausalLMOutputWithPast):
    """``image_features``: features of the vision branches by name, [I, h, w, D] each; None without images.
    ``pointed``: of the last position of each row, if the model has a pointer and each row one image.
    ``numbers`` [B, N]: estimated at the last position of each row, if the model has a head for them and got images."""

    image_features: dict[str, Tensor] | None = None
    pointed: Pointed | None = None
    numbers: Tensor | None = None


class VaryForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config_class = VaryConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block", "PatchLayer", "Qwen2DecoderLayer", "OPTDecoderLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    compute_dtype: torch.dtype | None = None
    """The dtype that layers upcast their weights to (varytoy.devices.precision), if it is not ``dtype``."""

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        self.vision_vocabulary = build_encoder(config.vocabulary_config)
        self.clip = build_encoder(config.clip_config) if config.clip_config is not None else None
        if config.serial and self.clip.width != self.vision_vocabulary.width:
            raise ValueError(
                f"clip_config.width is {self.clip.width}, and the vision vocabulary, whose features this CLIP gets, "
                f"has {self.vision_vocabulary.width} channels: they must be equal"
            )
        self.connector = build_connector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        if config.embedding_scale != 1:
            self.set_input_embeddings(ScaledEmbedding(self.get_input_embeddings(), config.embedding_scale))
        self.pointer = Pointer(config.text_config.hidden_size, self.grid) if config.pointer else None
        self.pointed: Pointed | None = None
        self.letters = LetterHead(config.vocabulary_config.output_size, config.letters) if config.letters else None
        self.numbers = NumberHead(config.text_config.hidden_size, config.numbers) if config.numbers else None
        self.estimated: Tensor | None = None
        """The last ``VaryOutput.numbers``."""
        self._recent: deque[tuple[tuple[Tensor | None, ...], dict[str, Tensor]]] = deque(maxlen=0)
        self.post_init()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image tokens of an image of the vision vocabulary's ``image_size``."""
        side, (down, across) = self.config.vocabulary_config.image_size, self.config.vocabulary_config.stride
        return side // down, side // across

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    @property
    def encoders(self) -> dict[str, VisionEncoder]:
        """The vision branches of this model: ``"vocabulary"`` for text, ``"clip"`` for natural images."""
        branches = {"vocabulary": self.vision_vocabulary, "clip": self.clip}
        return {name: branch for name, branch in branches.items() if branch is not None}

    def encode_images(
        self, pixel_values: Tensor, image_sizes: Tensor | None = None, clip_pixel_values: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Images to the features of each branch, [I, h, w, D] by name. Outside training, equal images that follow each
        other, as with several questions about one, are encoded once.

        Args:
            pixel_values: [I, 3, H, W] for the vision vocabulary, smaller images padded at the right and bottom.
            image_sizes: [I, 2] pixels (height, width) of each; None when none is padded.
            clip_pixel_values: [I, 3, S, S]; None switches the CLIP branch off, unless it is serial and takes none.
        """
        runs = None if self.training else _runs(pixel_values, image_sizes, clip_pixel_values)
        if runs is not None:
            pixel_values = pixel_values[runs.first]
            image_sizes = None if image_sizes is None else image_sizes[runs.first]
            clip_pixel_values = None if clip_pixel_values is None else clip_pixel_values[runs.first]
        inputs = (pixel_values, image_sizes, clip_pixel_values)
        features = self._remembered(inputs)
        if features is None:
            features = self.run_branches(*inputs)
            if self._recent.maxlen and len(pixel_values) == 1:
                self._recent.append((inputs, features))
        if runs is not None:
            features = {name: each[runs.number] for name, each in features.items()}
        return features

    def run_branches(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        clip_pixel_values: Tensor | None = None,
        names: Container[str] = ("vocabulary", "clip"),
    ) -> dict[str, Tensor]:
        """The features of all images, as in ``encode_images``, of the branches ``names`` and of those they need.

        Raises:
            ValueError: pixels for a CLIP branch that takes none.
        """
        dtype, serial = self.compute_dtype or self.dtype, self.config.serial
        if serial and clip_pixel_values is not None:
            raise ValueError("this CLIP branch takes no pixels: set the image processor's clip_size to 0")
        features = {}
        if serial or "vocabulary" in names:
            features["vocabulary"] = self.vision_vocabulary(pixel_values.to(dtype), image_sizes)
        if self.clip is None or "clip" not in names:
            return features
        if serial:
            features["clip"] = self.clip(features["vocabulary"], self._grids(image_sizes))
        elif clip_pixel_values is not None:
            features["clip"] = self.clip(clip_pixel_values.to(dtype))
        return features

    def _grids(self, image_sizes: Tensor | None) -> Tensor | None:
        """Pixels [I, 2] of each image -> rows and columns of its tokens."""
        if image_sizes is None:
            return None
        return image_sizes // image_sizes.new_tensor(self.config.vocabulary_config.stride)

    def remember_images(self, count: int) -> None:
        """Keep the features of the last images that were encoded alone, for more questions about them. ``train()`` and
        ``eval()`` forget them; call ``forget_images`` after other changes of the branches."""
        self._recent = deque(maxlen=count)

    def forget_images(self) -> None:
        self._recent.clear()

    def train(self, mode: bool = True) -> "VaryForConditionalGeneration":
        self.forget_images()
        return super().train(mode)

    def _remembered(self, inputs: Sequence[Tensor | None]) -> dict[str, Tensor] | None:
        if self.training or torch.is_grad_enabled():
            return None
        return next((features for others, features in self._recent if all(map(_equal, inputs, others))), None)

    def connect(self, features: dict[str, Tensor], image_sizes: Tensor | None = None) -> Tensor:
        """Features of ``encode_images`` -> language-model embeddings [N, D] in reading order, without padding."""
        return self.connector(features, self._grids(image_sizes))

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        clip_pixel_values: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor] | None, Tensor | None]:
        """Input embeddings of text and images [B, T, D], the branches' features, and the image rows [N, D]."""
        if pixel_values is None:
            return self.get_input_embeddings()(input_ids), None, None
        features = self.encode_images(pixel_values, image_sizes, clip_pixel_values)
        rows = self.connect(features, image_sizes)
        return self.fuse(input_ids, rows), features, rows

    def fuse(self, input_ids: Tensor, rows: Tensor) -> Tensor:
        """Replace the embeddings of the ``<imgpad>`` tokens of input_ids [B, T] by the image rows [N, D].

        Raises:
            ValueError: the number of ``<imgpad>`` tokens is not N.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        image_mask = input_ids == self.config.image_token_id
        if int(image_mask.sum()) != rows.shape[0]:
            raise ValueError(
                f"{int(image_mask.sum())} <imgpad> tokens but {rows.shape[0]} image tokens: "
                "prompt and pixels must come from the same VaryProcessor call"
            )
        return embeddings.masked_scatter(image_mask[..., None], rows.to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        clip_pixel_values: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> VaryOutput:
        """input_ids [B, T] with ``<imgpad>`` runs; labels [B, T], -100 where no loss is taken. ``cache`` and
        ``past_key_values`` are two names of the key-value cache; the installed transformers uses one of them."""
        features = rows = None
        if inputs_embeds is None:
            inputs_embeds, features, rows = self.embed(input_ids, pixel_values, image_sizes, clip_pixel_values)
        items = kwargs.pop("num_items_in_batch", None)
        estimates = self.numbers is not None and rows is not None  # not in later steps, whose cache holds the image
        if self.pointer is not None or estimates:
            kwargs["output_hidden_states"] = True
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{CACHE: past_key_values if cache is None else cache},
            **kwargs,
        )
        if estimates:
            self.estimated = self.numbers(outputs.hidden_states[-1][:, -1])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=outputs.logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=items,
            )
        return VaryOutput(
            loss=loss,
            logits=outputs.logits,
            **{CACHE: getattr(outputs, CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_features=features,
            pointed=self._point(outputs, rows),
            numbers=self.estimated if estimates else None,
        )

    def _point(self, outputs: CausalLMOutputWithPast, rows: Tensor | None) -> Pointed | None:
        """The pointer's view from the last position; the image rows [N, D] are kept with the cache for later steps."""
        if self.pointer is None or outputs.hidden_states is None:
            return None
        last, cache = outputs.hidden_states[-1][:, -1], getattr(outputs, CACHE)
        if rows is not None and cache is not None:
            cache.image_rows = rows
        rows = getattr(cache, "image_rows", rows)
        self.pointed = None
        if rows is not None and len(rows) == len(last) * self.grid[0] * self.grid[1]:
            images = torch.arange(len(last), device=last.device)
            self.pointed = self.pointer(last, rows.view(len(last), -1, last.shape[-1]), images)
        return self.pointed

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if self.numbers is not None and self.numbers.initialise(module):
            return
        if not any(encoder.initialise(module) for encoder in self.encoders.values()):
            super()._init_weights(module)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.equal(first, second)


def _runs(*pixels: Tensor | None) -> _Runs | None:
    """Runs of equal images [I, ...], compared in all tensors; None if there are no equal neighbours."""
    given = [each for each in pixels if each is not None]
    if len(given[0]) < 2 or given[0].is_meta:
        return None
    differs = torch.stack([(each[1:] != each[:-1]).flatten(1).any(1) for each in given]).any(0)
    if bool(differs.all()):
        return None
    starts = torch.cat([differs.new_ones(1), differs])
    return _Runs(starts.nonzero().flatten(), starts.cumsum(0) - 1)


def count_parameters(config: VaryConfig) -> int:
    """Parameters of a model of this configuration, counted on the meta device (tied weights once)."""
    with torch.device("meta"):
        model = VaryForConditionalGeneration(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())
