"""The small character tokenizer of the models that are trained from nothing."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")


def character_tokenizer(characters: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """One token a character, any other character as its UTF-8 bytes; nothing is unknown.

    Args:
        characters: those that get a token of their own.
        size: length of the vocabulary; the rest is filled with reserved tokens.

    Raises:
        ValueError: the characters, 256 bytes and special tokens do not fit into ``size``.
    """
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE

    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set(characters))]
    if len(tokens) > size:
        raise ValueError(f"{len(tokens)} tokens do not fit into a vocabulary of {size}")
    reserved = [f"<|extra_{number}|>" for number in range(size - len(tokens))]
    vocabulary = {token: number for number, token in enumerate([*tokens, *reserved])}
    backend = Tokenizer(BPE(vocabulary, merges=[], byte_fallback=True, unk_token="<0x00>"))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*SPECIAL, *reserved]])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
