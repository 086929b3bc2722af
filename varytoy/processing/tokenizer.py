"""The small character tokenizer of models trained from scratch, and the image tokens of the other tokenizers."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from varytoy.data.spots import CLOSE, OPEN, locations

IMAGE_TOKENS = ("<img>", "</img>", "<imgpad>")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS)


def add_image_tokens(tokenizer: PreTrainedTokenizerBase, image_token_id: int, size: int) -> None:
    """Add the image tokens to a stock tokenizer, at the ids of the published models.

    Args:
        image_token_id: id of ``<imgpad>``. The other two come before it (Qwen: 151857-151859), or after it where
            ``size`` leaves room there (OPT: 50266-50268). Reserved tokens fill the gap before them.
        size: length of the model's vocabulary.

    Raises:
        ValueError: the tokenizer has ``<imgpad>`` at another id, or is too long: it belongs to another model.
    """
    start, stop, pad = IMAGE_TOKENS
    vocabulary = tokenizer.get_vocab()
    if pad not in vocabulary:
        after = image_token_id + 2 < size
        image_tokens = [pad, start, stop] if after else [start, stop, pad]
        first = image_token_id if after else image_token_id - 2
        if len(tokenizer) > first:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, but the model's image tokens begin at {first}"
            )
        reserved = (token for number in itertools.count() if (token := f"<|extra_{number}|>") not in vocabulary)
        tokenizer.add_tokens(list(itertools.islice(reserved, first - len(tokenizer))), special_tokens=True)
        tokenizer.add_tokens(image_tokens, special_tokens=True)
    pad_id = tokenizer.convert_tokens_to_ids(pad)
    if pad_id != image_token_id:
        raise ValueError(f"the tokenizer has {pad} at {pad_id}, the model at {image_token_id}")


def character_tokenizer(characters: Iterable[str], size: int, places: int = 0) -> PreTrainedTokenizerFast:
    """One token per character, other characters as UTF-8 bytes; nothing is unknown.

    Args:
        characters: those that get a token of their own.
        size: length of the vocabulary; the rest is filled with reserved tokens.
        places: number of place tokens ``<y_0>``, ``<y_1>``… and of ``<x_0>``…, which have the highest ids.

    Raises:
        ValueError: the characters, 256 bytes and special tokens do not fit into ``size``.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders
    from tokenizers.models import BPE

    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set(characters))]
    place_tokens = [f"<{axis}_{number}>" for axis in "yx" for number in range(places)]
    remaining = size - len(tokens) - len(place_tokens)
    if remaining < 0:
        raise ValueError(f"{len(tokens) + len(place_tokens)} tokens do not fit into a vocabulary of {size}")
    reserved = [*(f"<|extra_{number}|>" for number in range(remaining)), *place_tokens]
    vocabulary = {token: number for number, token in enumerate([*tokens, *reserved])}
    backend = Tokenizer(BPE(vocabulary, merges=[], byte_fallback=True, unk_token="<0x00>"))
    steps = [decoders.ByteFallback(), decoders.Fuse()]
    if places:  # place tokens are never part of the decoded text
        steps.insert(0, decoders.Replace(Regex("<[yx]_[0-9]+>"), ""))
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*SPECIAL, *reserved]])
    return chat_tokenizer(backend)


def add_locations(tokenizer: PreTrainedTokenizerBase, bins: int) -> None:
    """Add a token for each location that spotting can name in ``bins`` bins of an image's width and height
    (``varytoy.data.spots``), and for the marks of a box. They are part of the decoded text.

    Raises:
        ValueError: the tokenizer has some already, or place tokens, which have the same names and are not part of the
            text.
    """
    from tokenizers import AddedToken

    names = [OPEN, CLOSE, *(f"<{axis}_{place}>" for axis in "xy" for place in locations(bins))]
    known = tokenizer.get_vocab().keys() & names
    if known:
        raise ValueError(f"this tokenizer has place tokens or location tokens, such as {min(known)}: take another")
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in names])


_WORDS = r" ?\[?[0-9]+[,\]]?| ?[^\W\d_]+| ?[^\w\s]+|\s|."
"""What word pieces do not cross: sides of boxes with their brackets, words, marks."""


def word_piece_tokenizer(
    texts: Iterable[str], characters: Iterable[str], base: int, size: int, places: int = 0
) -> PreTrainedTokenizerFast:
    """``character_tokenizer`` with word pieces behind its tokens, whose ids stay: byte pair encoding of ``texts``.

    A piece is a word or part of one, a number of a box, or a mark; it may begin with the space before it.

    Args:
        base: tokens of the character tokenizer.
        size: length of the vocabulary.
    """
    from tokenizers import Regex, Tokenizer, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    known = set(characters)
    characters = sorted(known)
    learned = Tokenizer(BPE())
    split = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    learned.pre_tokenizer = split
    trainer = BpeTrainer(vocab_size=len(characters) + size - base, initial_alphabet=characters, show_progress=False)
    learned.train_from_iterator(("".join(each for each in text if each in known) for text in texts), trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    tokenizer = character_tokenizer(characters, base, places)
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tree["model"]["vocab"]
    for pair in merges[: size - base]:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    tree["model"]["merges"] = [list(pair) for pair in merges[: size - base]]
    backend = Tokenizer.from_str(json.dumps(tree))
    backend.pre_tokenizer = split
    return chat_tokenizer(backend)


_OFTEN = 5
"""Occurrences from which a character gets a token of its own; rarer ones are written in bytes."""


def extended_tokenizer(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer with more pieces behind its tokens, whose ids stay: characters of ``texts`` that it has no
    token for, if they occur five times, and byte pair encoding of these characters' runs.

    Args:
        size: length of the vocabulary.

    Raises:
        ValueError: it is no larger than the tokenizer's.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tree["model"]["vocab"]
    room = size - len(tokenizer)
    if room <= 0:
        raise ValueError(f"a vocabulary of {size} has no room behind the {len(tokenizer)} tokens: give a larger size")
    texts = list(texts)
    counts = Counter(each for text in texts for each in text if each not in vocabulary)
    new = [character for character, count in counts.most_common(max(room, 0)) if count >= _OFTEN]
    learned = Tokenizer(BPE())
    trainer = BpeTrainer(vocab_size=room, initial_alphabet=new, limit_alphabet=len(new), show_progress=False)
    kept = set(new)
    learned.train_from_iterator(
        ("".join(run) for text in texts for inside, run in itertools.groupby(text, kept.__contains__) if inside),
        trainer,
    )
    merges = json.loads(learned.to_str())["model"]["merges"][: room - len(new)]
    next_id = len(tokenizer)
    for piece in [*new, *("".join(pair) for pair in merges)]:
        if piece not in vocabulary:  # two merges may give the same piece
            vocabulary[piece] = next_id
            next_id += 1
    tree["model"]["merges"] += merges
    return chat_tokenizer(Tokenizer.from_str(json.dumps(tree)))


def chat_tokenizer(backend) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer of the tokenizers library for transformers, with ChatML's end-of-turn and padding tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
