"""Speed of decoding with random weights in the shape of a published model, beside transformers on the same weights."""

import functools
import inspect
import json
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import median

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import GotOcr2ForConditionalGeneration

from varytoy.bench.pages import page
from varytoy.bench.timing import STOCK, ratio, timed
from varytoy.checkpoints.export import as_got
from varytoy.checkpoints.maps import WeightsError
from varytoy.devices.precision import Precision, decoder_linears, place
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.decoder_step import merge_projections
from varytoy.inference.engine import ModelEngine, Request
from varytoy.models.config import VaryConfig, read_preset
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.processor import VaryProcessor
from varytoy.processing.tokenizer import SPECIAL, character_tokenizer, chat_tokenizer

_CHARACTERS = 512


def random_model(shape: str, precision: Precision, seed: int = 0) -> VaryForConditionalGeneration:
    torch.manual_seed(seed)
    config = VaryConfig.preset(shape)
    config.image_token_id = SPECIAL.index("<imgpad>")
    with torch.device(precision.device):
        model = VaryForConditionalGeneration(config).eval()
    return place(model, precision)


def processor_of(shape: str, size: int) -> VaryProcessor:
    """The preset's, with a made-up tokenizer: one token a character, and words for the rest of the vocabulary."""
    settings = dict(read_preset(shape)["processor"])
    images = VaryImageProcessor(**settings.pop("image_processor"))
    characters = settings.pop("characters", string.printable)
    tokenizer = character_tokenizer(characters, min(size, _CHARACTERS), settings.get("places", 0))
    if size > _CHARACTERS:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["model"]["vocab"] |= {f"[{number}]": number for number in range(_CHARACTERS, size)}
        tokenizer = chat_tokenizer(Tokenizer.from_str(json.dumps(state)))
    return VaryProcessor(images, tokenizer, **settings)


class _Stock:
    """Greedy ``generate`` of a class of transformers, without anything of ours around it."""

    def __init__(self, model: VaryForConditionalGeneration | GotOcr2ForConditionalGeneration, encoder: ModelEngine):
        self.model, self.encoder = model, encoder

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[str]:
        tokenizer = self.encoder.processor.tokenizer
        names = inspect.signature(self.model.forward).parameters
        encoded = self.encoder.encode(requests)[0]
        inputs = {name: each.to(self.model.device) for name, each in encoded.items() if name in names}
        for name in ("pixel_values", "clip_pixel_values"):
            if name in inputs:
                inputs[name] = inputs[name].to(self.model.dtype)
        ids = self.model.generate(
            **inputs,
            max_new_tokens=requests[0].max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def compare(model: VaryForConditionalGeneration, shape: str, batch: int, tokens: int, repeats: int) -> list[str]:
    """A markdown table of seconds to the first token, and to that of a second question about the page, tokens a second
    after it, pages a second, the share of the memory's bandwidth that a step of one row takes, and the ratio to the
    first engine. ``batch`` pages together, an answer of ``tokens`` to each."""
    engine = BatchingEngine(model, processor_of(shape, model.config.text_config.vocab_size), batch)
    engine.guard = engine.drafts = False  # random weights repeat themselves
    engines: dict[str, Callable[[Sequence[Request]], Sequence]] = {}
    if all(type(each) is nn.Linear for each in decoder_linears(model.language_model).values()):
        with suppress(WeightsError):  # it has a branch that the class lacks
            engines[f"{STOCK}, GotOcr2"] = _Stock(as_got(model), engine).generate
    engines |= {f"{STOCK}, our class": _Stock(model, engine).generate, "varytoy": engine.generate}
    merge_projections(model)
    images = [page(8, seed) for seed in range(batch)]
    requests = [Request([{"role": "user", "content": "<image>OCR: "}], [image], "text", tokens) for image in images]
    short = [replace(request, max_new_tokens=1) for request in requests]
    model.remember_images(0)
    runs = {name: functools.partial(generate, requests) for name, generate in engines.items()}
    first_runs = {name: functools.partial(generate, short) for name, generate in engines.items()}
    timed(first_runs, 1)
    if model.device.type == "cuda":
        timed({"varytoy": runs["varytoy"]}, 2)  # the second captures graphs
    first = timed(first_runs, repeats)[0]
    seconds, answers = timed(runs, repeats)
    second = _second_question(engine, short[0], repeats) if batch == 1 else ""
    texts = {name: [getattr(each, "text", each) for each in given] for name, given in answers.items()}
    names = (
        "engine",
        "first token, s",
        "second question, s",
        "tokens a second",
        "pages a second",
        "bandwidth",
        "times as fast",
        "same text",
    )
    rows = [
        f"{batch} pages together, prompts of {engine.encode(short[:1])[1][0]} tokens, answers of {tokens}",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
    ]
    stock, limit = next(iter(engines)), _least_seconds(model)
    for name in engines:
        start, whole = median(first[name]), median(seconds[name])
        step = (whole - start) / max(1, tokens - 1)
        share = f"{limit / step:.2f}" if batch == 1 else ""
        same = sum(a == b for a, b in zip(texts[stock], texts[name], strict=True))
        again = second if name == "varytoy" else ""
        speed = f"{start:.3f} | {again} | {batch / step:.0f} | {batch / whole:.3f} | {share}"
        rows.append(f"| {name} | {speed} | {ratio(seconds[stock], seconds[name]):.2f} | {same} of {batch} |")
    return rows


def _second_question(engine: BatchingEngine, request: Request, repeats: int) -> str:
    """Seconds to the first token of an answer to another question about an image."""
    other = replace(request, messages=[{"role": "user", "content": "<image>Which language is it? "}])
    engine.model.remember_images(1)
    engine.generate([request])
    seconds = timed({"": functools.partial(engine.generate, [other])}, repeats)[0][""]
    engine.model.remember_images(0)
    return f"{median(seconds):.3f}"


def _least_seconds(model: VaryForConditionalGeneration) -> float:
    """Seconds to read the decoder's weights once, by the speed of a copy within the memory."""
    decoder = model.language_model
    unread = 0 if model.config.text_config.tie_word_embeddings else decoder.get_input_embeddings().weight.nbytes
    size = sum(each.nbytes for each in decoder.parameters()) - unread
    source = torch.ones(1 << 28, device=model.device)
    target = torch.empty_like(source)
    seconds = timed({"copy": lambda: target.copy_(source)}, 5)[0]["copy"]
    return size / (2 * source.nbytes / min(seconds))
