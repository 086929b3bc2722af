"""The small character tokenizer of the models that are trained from nothing, and the image tokens of the others."""

import itertools
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

IMAGE_TOKENS = ("<img>", "</img>", "<imgpad>")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS)


def add_image_tokens(tokenizer: PreTrainedTokenizerBase, image_token_id: int, size: int) -> None:
    """Give a family's stock tokenizer the image tokens, at the ids that the published models have.

    Args:
        image_token_id: id of ``<imgpad>``. The other two stand before it (Qwen: 151857-151859), or behind it where
            ``size`` leaves room there (OPT: 50266-50268). Reserved tokens fill the gap before them.
        size: length of the model's vocabulary.

    Raises:
        ValueError: the tokenizer has ``<imgpad>`` elsewhere, or is too long: it belongs to another model.
    """
    start, stop, pad = IMAGE_TOKENS
    known = tokenizer.get_vocab()
    if pad not in known:
        behind = image_token_id + 2 < size
        wanted = [pad, start, stop] if behind else [start, stop, pad]
        first = image_token_id if behind else image_token_id - 2
        if len(tokenizer) > first:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, but the model's image tokens begin at {first}"
            )
        reserved = (token for number in itertools.count() if (token := f"<|extra_{number}|>") not in known)
        tokenizer.add_tokens(list(itertools.islice(reserved, first - len(tokenizer))), special_tokens=True)
        tokenizer.add_tokens(wanted, special_tokens=True)
    found = tokenizer.convert_tokens_to_ids(pad)
    if found != image_token_id:
        raise ValueError(f"the tokenizer has {pad} at {found}, the model at {image_token_id}")


def character_tokenizer(characters: Iterable[str], size: int, places: int = 0) -> PreTrainedTokenizerFast:
    """One token a character, any other character as its UTF-8 bytes; nothing is unknown.

    Args:
        characters: those that get a token of their own.
        size: length of the vocabulary; what is left is filled with reserved tokens.
        places: number of the place tokens ``<y_0>``, ``<y_1>``… and of ``<x_0>``…, which are the last of all.

    Raises:
        ValueError: the characters, 256 bytes and special tokens do not fit into ``size``.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders
    from tokenizers.models import BPE

    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set(characters))]
    marks = [f"<{axis}_{number}>" for axis in "yx" for number in range(places)]
    left = size - len(tokens) - len(marks)
    if left < 0:
        raise ValueError(f"{len(tokens) + len(marks)} tokens do not fit into a vocabulary of {size}")
    reserved = [*(f"<|extra_{number}|>" for number in range(left)), *marks]
    vocabulary = {token: number for number, token in enumerate([*tokens, *reserved])}
    backend = Tokenizer(BPE(vocabulary, merges=[], byte_fallback=True, unk_token="<0x00>"))
    # Places are the model's notes to itself and no text, whoever decodes it.
    backend.decoder = decoders.Sequence(
        [decoders.Replace(Regex("<[yx]_[0-9]+>"), ""), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*SPECIAL, *reserved]])
    return chat_tokenizer(backend)


def chat_tokenizer(backend) -> PreTrainedTokenizerFast:
    """A tokenizer of the tokenizers library as transformers', with ChatML's ends of turns and padding."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
