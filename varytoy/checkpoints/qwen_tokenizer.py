"""Convert Qwen's rank file (``qwen.tiktoken``) to a fast tokenizer."""

import base64
from pathlib import Path

from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from varytoy.checkpoints.maps import WeightsError
from varytoy.processing.tokenizer import IMAGE_TOKENS, chat_tokenizer

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
    *("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"),
    *IMAGE_TOKENS,
)
"""In the order of their ids, which follow the ranks: 151643 to 151859 for the published file."""
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class _Converter(TikTokenConverter):
    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        return read_ranks(Path(tiktoken_url))


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read a rank file: a line ``BASE64 RANK`` for each token. Raises WeightsError naming the first invalid line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise WeightsError(f"{path}:{number}: no line of a rank file (a token in base64 and its rank)") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise WeightsError(f"{path}: ranks must run from 0 without gaps, over all bytes at least; found {len(ranks)}")
    return ranks


def tokenizer_from_ranks(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of Qwen and Vary-toy, special tokens after the ranks.

    Raises:
        WeightsError: the file is not a rank file.
    """
    backend = _Converter(str(path), pattern=_WORDS).converted()
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return chat_tokenizer(backend)
