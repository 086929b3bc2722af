"""Export of our models: transformers' GOT-OCR2, a bare decoder, the vision vocabulary alone, ONNX."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GotOcr2Config, GotOcr2ForConditionalGeneration, PretrainedConfig

from varytoy.checkpoints.infer_config import vocabulary_config
from varytoy.checkpoints.maps import Family, WeightsError, families, renamed
from varytoy.checkpoints.native import read_ours, read_processor
from varytoy.checkpoints.settings import named
from varytoy.checkpoints.source import Source, new_folder, write_shards
from varytoy.extras import require
from varytoy.models.config import VaryConfig, VisionVocabularyConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor


def export_got(model: str | Path, out: str | Path) -> None:
    """Write one of our models without CLIP branch as transformers' ``GotOcr2ForConditionalGeneration``, with its
    processor (which needs ``num_image_tokens`` where an image does not have 256 tokens).

    Raises:
        WeightsError: the model has a part that the stock class does not support.
    """
    source, config = read_ours(model)
    stock = _got_config(config, str(model))
    processor = read_processor(model, config)
    side = config.vocabulary_config.image_size
    if processor.image_processor.square not in (0, side):
        raise WeightsError(
            f"{model} cannot be transformers' GOT-OCR2: it reads images of {processor.image_processor.square} pixels, "
            f"and that class those of its positions, {side}"
        )
    with new_folder(out) as out:
        _write(source, families()["got-transformers"], source.tensors, out, stock)
        _got_processor(processor, side).save_pretrained(out)


def as_got(model: VaryForConditionalGeneration) -> GotOcr2ForConditionalGeneration:
    """A copy of one of our models without CLIP branch as the class of transformers, on its device and in its dtype.

    Raises:
        WeightsError: the model has a part that the stock class does not support.
    """
    tensors = {name: each for name, each in model.state_dict().items() if "lm_head" not in name}
    steps, _ = families()["got-transformers"].inverse(tensors)
    config = _got_config(model.config, "the model")
    copy = GotOcr2ForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=dict(renamed(steps, tensors.__getitem__)), dtype=model.dtype
    )
    return copy.to(model.device).eval()


def _got_config(config: VaryConfig, name: str) -> GotOcr2Config:
    vision, text = config.vocabulary_config, config.text_config
    if not isinstance(vision, VisionVocabularyConfig):
        raise WeightsError(
            f"{name} cannot be transformers' GOT-OCR2: its vision branch is of the type {vision.model_type}"
        )
    sizes = (2 * vision.neck_size, text.hidden_size)
    for reason, unsupported in {
        "has a CLIP branch, which that class does not support": config.clip_config is not None,
        f"has a decoder of the kind {text.model_type} in place of qwen2": text.model_type != "qwen2",
        "has a vision vocabulary of another kind than SAM's with a compressor": vision.stem != "patch"
        or vision.positions != "learned"
        or not vision.neck_size,
        f"compresses to {tuple(vision.compressor_sizes)} channels in place of {sizes}": tuple(vision.compressor_sizes)
        != sizes,
    }.items():
        if unsupported:
            raise WeightsError(f"{name} cannot be transformers' GOT-OCR2: it {reason}")
    stock = GotOcr2Config(
        vision_config={
            "hidden_size": vision.hidden_size,
            "output_channels": vision.neck_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "use_rel_pos": vision.relative_positions,
            "window_size": vision.window_size,
            "global_attn_indexes": list(vision.global_layers),
            "mlp_dim": int(vision.hidden_size * vision.mlp_ratio),
        },
        text_config=text.to_dict(),
        image_token_index=config.image_token_id,
        image_seq_length=vision.image_tokens,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    stock.architectures = ["GotOcr2ForConditionalGeneration"]
    return stock


def _got_processor(processor: VaryProcessor, side: int):
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.got_ocr2.processing_got_ocr2 import GotOcr2Processor

    pixels = processor.image_processor
    images = GotOcr2ImageProcessorPil(
        size={"height": side, "width": side}, image_mean=list(pixels.mean), image_std=list(pixels.std)
    )
    return GotOcr2Processor(images, processor.tokenizer)


def export_decoder(model: str | Path, out: str | Path) -> None:
    """Write the decoder of one of our models as a stock folder of its own kind (Qwen2, OPT), with the tokenizer."""
    source, config = read_ours(model)
    text = config.text_config
    if text.model_type not in families():
        raise WeightsError(f"{model}: no layout of a decoder of the kind {text.model_type} is known")
    tokenizer = read_processor(model, config).tokenizer
    text.architectures = [AutoModelForCausalLM._model_mapping[type(text)].__name__]  # type: ignore[index, attr-defined]
    with new_folder(out) as out:
        _write(source, families()[text.model_type], _part(source, "language_model"), out, text)
        tokenizer.save_pretrained(out)


def export_vocabulary(model: str | Path, out: str | Path) -> None:
    """Write the vision vocabulary alone, under SAM's names without any prefix, with its shape in ``config.json``.
    ``model``: one of ours, or a checkpoint in any layout that holds one.

    Raises:
        WeightsError: it holds no vision vocabulary.
    """
    tensors, config = vocabulary_of(model)
    plain = {name.removeprefix("vision_vocabulary."): tensor for name, tensor in tensors.items()}
    with new_folder(out) as out:
        write_shards(out, plain, plain.items())
        config.save_pretrained(out)


def import_vocabulary(vocabulary: str | Path, model: str | Path, out: str | Path) -> None:
    """Write one of our models with the vision vocabulary of another checkpoint, in any layout that holds one.

    Raises:
        WeightsError: it holds no vision vocabulary, or one of other shapes than the model's.
    """
    source, config = read_ours(model)
    tensors, _ = vocabulary_of(vocabulary)
    own = _part(source, "vision_vocabulary")
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            shapes = [str(list(each[name].shape)) if name in each else "nothing" for each in (tensors, own)]
            raise WeightsError(f"{vocabulary} does not fit into {model}: {name} is {shapes[0]} in place of {shapes[1]}")
    processor = read_processor(model, config)

    def merged() -> Iterable[tuple[str, Tensor]]:
        for name, meta in source.tensors.items():
            yield name, tensors[name].to(meta.dtype) if name in tensors else source.get(name)

    with new_folder(out) as out:
        write_shards(out, source.tensors, merged())
        config.save_pretrained(out)
        processor.save_pretrained(out)


def vocabulary_of(path: str | Path) -> tuple[dict[str, Tensor], PretrainedConfig]:
    """The vision vocabulary of a checkpoint in any layout, under our names, and its configuration.

    Raises:
        WeightsError: it holds no vision vocabulary.
    """
    source = Source(path)
    own = {name: source.get(name) for name in _part(source, "vision_vocabulary")}
    if own:
        if "vocabulary_config" in source.config:
            shape = read_ours(path)[1].vocabulary_config
            assert isinstance(shape, PretrainedConfig)
            return own, shape
        return own, _read_shape(source, own)
    steps = [
        each for each in source.family.steps(source.tensors)[0] if each.targets[0].startswith("vision_vocabulary.")
    ]
    with named(f"{path}: its tensors do not make {source.family.about}"):
        tensors = dict(renamed(steps, source.get))
    if not tensors:
        raise WeightsError(f"{path} is {source.family.about}: there is no vision vocabulary in it")
    return tensors, _read_shape(source, tensors)


def _read_shape(source: Source, tensors: dict[str, Tensor]) -> PretrainedConfig:
    with named(f"{source.path}: its tensors do not make a vision vocabulary: missing or wrong"):
        return vocabulary_config(tensors)


def _part(source: Source, part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in source.tensors.items() if name.startswith(f"{part}.")}


def _write(source: Source, family: Family, tensors: dict[str, Tensor], out: Path, config: PretrainedConfig) -> None:
    """Write the tensors, given under our names, under the family's names, and the configuration."""
    steps, left = family.inverse(tensors)
    if left:
        raise WeightsError(f"{source.path} has tensors that {family.about} does not have: {', '.join(left)}")
    metas = dict(renamed(steps, source.tensors.__getitem__))
    write_shards(out, metas, renamed(steps, source.get))
    config.dtype = next(iter(metas.values())).dtype
    config.save_pretrained(out)


@torch.no_grad()
def export_onnx(model: str | Path, out: str | Path, size: int = 0) -> list[Path]:
    """Write ``vision_vocabulary.onnx``, ``connector.onnx`` and, with a CLIP branch, ``clip.onnx``, for batches of any
    size, in 32 bits. A serial CLIP branch takes the vision vocabulary's features.

    Args:
        size: pixels of a side for the vision vocabulary, which goes into the file's name; 0 for that of its processor.

    Returns:
        The files.

    Raises:
        MissingExtra: the onnx packages are not installed.
        WeightsError: ``out`` cannot be written.
    """
    require("onnx", "onnx", "onnxscript", by="the export to ONNX")
    _, config = read_ours(model)
    whole = VaryForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    side = size or read_processor(model, config).image_processor.square or config.vocabulary_config.image_size
    pixels = torch.randn(2, 3, side, side)
    features = whole.vision_vocabulary(pixels)
    with new_folder(out) as out:
        files = [_onnx(whole.vision_vocabulary, (pixels,), ["pixel_values"], out / f"vision_vocabulary-{side}.onnx")]
        inputs, names = [features], ["vocabulary"]
        if whole.clip is not None:
            given, name, file = features, "vocabulary", out / f"clip-{side}.onnx"
            if not config.serial:
                given = torch.randn(2, 3, config.clip_config.image_size, config.clip_config.image_size)
                name, file = "clip_pixel_values", out / "clip.onnx"
            files.append(_onnx(whole.clip, (given,), [name], file))
            inputs, names = [*inputs, whole.clip(given)], [*names, "clip"]
        files.append(_onnx(_ByImage(whole.connector, names), tuple(inputs), names, out / f"connector-{side}.onnx"))
    return files


class _ByImage(torch.nn.Module):
    """A connector with one input per branch and an output that is split by image: [I, h, w, D] each -> [I, N, D]."""

    def __init__(self, connector: torch.nn.Module, names: list[str]):
        super().__init__()
        self.connector, self.names = connector, names

    def forward(self, vocabulary: Tensor, clip: Tensor | None = None) -> Tensor:
        rows = self.connector(dict(zip(self.names, (vocabulary, clip), strict=False)))
        return rows.unflatten(0, (vocabulary.shape[0], -1))


def _onnx(module: torch.nn.Module, inputs: tuple, names: list[str], file: Path) -> Path:
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} if isinstance(each, Tensor) else None for each in inputs)
    torch.onnx.export(
        module,
        inputs,
        file,
        input_names=names,
        output_names=["features"],
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    return file
