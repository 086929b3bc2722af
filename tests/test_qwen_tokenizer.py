"""Qwen's own rank file as a fast tokenizer: tiktoken's ids, the published special tokens, the published prompt."""

import pydoc_data.topics
import random
import unicodedata
from pathlib import Path

import pytest
import tiktoken
from conftest import noise
from originals import RANKS

from varytoy.checkpoints import WeightsError
from varytoy.checkpoints.qwen_tokenizer import _WORDS, SPECIAL, read_ranks, tokenizer_from_ranks
from varytoy.processing.images import CLIP_MEAN, CLIP_STD
from varytoy.processing.processor import VaryProcessor

PROMPT = (
    "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail.<|im_end|>"
    "<|im_start|>user\n<img>{image}</img>\nProvide the OCR results of this image.<|im_end|><|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def ranks() -> Path:
    return RANKS


@pytest.fixture(scope="module")
def tokenizer(ranks):
    return tokenizer_from_ranks(ranks)


def texts() -> list[str]:
    """Some MB: English, code, Chinese, Korean, emoji, combining marks, unassigned characters, white space."""
    rng = random.Random(0)

    def some(first: int, last: int, count: int) -> str:
        return "".join(chr(rng.randint(first, last)) for _ in range(count))

    library = Path(random.__file__).parent
    found = list(pydoc_data.topics.topics.values())
    found += [path.read_text(encoding="utf-8") for path in sorted(library.glob("[a-h]*.py"))]
    for _ in range(200):
        found.append(some(0x4E00, 0x9FFF, 1000) + some(0xAC00, 0xD7A3, 200) + "e\u0301" + some(0x300, 0x36F, 20))
        found.append(some(1, 0x2FF, 500) + some(0x1F300, 0x1FAFF, 100) + some(0x10000, 0x2FFFF, 50))
        found.append("".join(rng.choice(" \n\r\t'sSé0123456789aZ,.;\u3000\u00a0\ue000") for _ in range(300)))
    return found


def test_it_agrees_with_tiktoken(ranks, tokenizer):
    numbers = read_ranks(ranks)
    special = {token: len(numbers) + place for place, token in enumerate(SPECIAL)}
    original = tiktoken.Encoding("qwen", pat_str=_WORDS, mergeable_ranks=numbers, special_tokens=special)
    size = 0
    for text in texts():
        size += len(text.encode())
        wanted = original.encode(unicodedata.normalize("NFC", text), disallowed_special=())
        assert tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) == wanted
        assert tokenizer.decode(wanted) == original.decode(wanted)
    assert size > 2_500_000


def test_the_published_ids_and_prompt(tokenizer):
    wanted = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|extra_204|>": 151850}
    wanted |= {"<img>": 151857, "</img>": 151858, "<imgpad>": 151859}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in wanted} == wanted and len(tokenizer) == 151860
    processor = VaryProcessor.preset("vary-toy", tokenizer)
    assert (processor.image_processor.mean, processor.image_processor.std) == (CLIP_MEAN, CLIP_STD)
    batch = processor("Provide the OCR results of this image.", [noise(60, 40)])
    assert tokenizer.decode(batch["input_ids"][0]) == PROMPT.format(image="<imgpad>" * 256)
    words = processor("a <|im_end|> <img> b", [noise(60, 40)])["input_ids"][0].tolist()
    assert (words.count(151645), words.count(151857)) == (2, 1)  # those of the template


@pytest.mark.parametrize(
    ("line", "named"), [("no base64 here", r"x\.tiktoken:257\b"), ("IQ== 300", r"x\.tiktoken: .*\b256\b")]
)
def test_a_file_of_other_things_is_said(tmp_path, ranks, line, named):
    kept = ranks.read_text().splitlines()[:256]
    (tmp_path / "x.tiktoken").write_text("\n".join([*kept, line]))
    with pytest.raises(WeightsError, match=named):
        tokenizer_from_ranks(tmp_path / "x.tiktoken")
