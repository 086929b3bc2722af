"""``tokenizer``: word pieces for a small model, from samples."""

import argparse
import itertools
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data_tools.program import Program, register
from varytoy.data.boxes import SCALE, format_box, on_grid, text_on_grid
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.data.samples import read_samples
from varytoy.models.config import VaryConfig, read_preset
from varytoy.options import positive
from varytoy.processing.tokenizer import add_locations, extended_tokenizer, word_piece_tokenizer

_BOXES = 1000
"""How often each side is written for the tokenizer: more often than its rarest pieces."""


@register
class PieceTokenizer(Program):
    name = "tokenizer"
    help = "learn word pieces from samples, behind the characters of nano's tokenizer"

    def options(self, parser):
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tokenizer")
        parser.add_argument("samples", type=Path, nargs="+", help="folders of samples")
        parser.add_argument("--size", type=positive, default=2560, help="length of the vocabulary")
        parser.add_argument("--after", type=Path, metavar="DIR", help="put the pieces behind this tokenizer's tokens")
        parser.add_argument(
            "--locations", type=positive, default=0, metavar="BINS", help="a token for each location of spotting"
        )
        parser.add_argument("--bins", type=positive, default=0, help="boxes on this grid, a token for each side")

    def run(self, options):
        if options.out.exists():
            raise FileExistsError(f"{options.out} exists: name a new folder")
        if options.after is not None and options.bins:
            raise ValueError("--bins: the tokenizer of --after has its tokens for boxes already; leave it out")
        chosen = read_preset("nano")["processor"]
        base = VaryConfig.preset("nano").text_config.vocab_size
        texts = (
            message["content"].replace(IMAGE_PLACEHOLDER, "")
            for folder in options.samples
            for sample in read_samples(folder)
            for message in sample.messages
        )
        if options.after is not None:
            tokenizer = extended_tokenizer(_tokenizer(options.after), texts, options.size)
            _save(tokenizer, options)
            return
        if options.bins:
            squares = sorted({format_box(on_grid([side] * 4, options.bins)) for side in range(SCALE)})
            boxes = [f"{square}, {square}" for square in squares]
            texts = itertools.chain((text_on_grid(text, options.bins) for text in texts), boxes * _BOXES)
        places = 0 if options.locations else chosen["places"]
        _save(word_piece_tokenizer(texts, chosen["characters"], base, options.size, places), options)


def _save(tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace) -> None:
    if options.locations:
        add_locations(tokenizer, options.locations)
    tokenizer.save_pretrained(options.out)
    print(f"{len(tokenizer)} tokens in {options.out}")


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(f"--after: no {folder / 'tokenizer.json'}")
    return AutoTokenizer.from_pretrained(folder)
