"""Drafts of answers: the decoder checks many tokens of a draft in one pass, and writes on where it disagrees.

The answer is that of the decoder alone: a draft's token is taken only where the decoder would have written it. Drafts
come from a head for letters, from words that are known (varytoy.inference.known_words), and from what was written
before (prompt lookup).
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from varytoy.models.letters import FRAMES, LetterHead
from varytoy.processing.processor import VaryProcessor


class PlacedWord(NamedTuple):
    """A word of an image, and the middle of its first letter, in pixels."""

    text: str
    x: float
    y: float


_NEAR = 0.25
"""Letters of one line differ less in height, in rows of tokens."""
_SURE = 0.9
"""Score from which a letter stands, though another stands in the next frame."""
_AHEAD, _BACK, _GRAM = 24, 8, 3
"""Tokens of a draft, ahead and back, among which the place is looked for where the decoder goes on, and by how many."""


def read_letters(head: LetterHead, features: Tensor) -> list[list[tuple[str, bool, float, float]]]:
    """Lines from top to bottom of letters from left to right: (character, whether it begins a word, x, y), x and y in
    tokens. Features [h, w, D] of one image, without padding."""
    reading = head(features[None])
    scores, best = reading.symbols[0].float().softmax(-1).max(-1)
    scores = scores * (best > 0)
    weaker = _weaker(scores, best)
    rows, columns = ((best > 0) & ~weaker).nonzero(as_tuple=True)
    heights = rows + reading.heights[0, rows, columns].float()
    found = zip(
        heights.tolist(),
        columns.tolist(),
        best[rows, columns].tolist(),
        (reading.begins[0, rows, columns] > 0).tolist(),
        scores[rows, columns].tolist(),
        strict=True,
    )
    lines: list[list[tuple[float, int, int, bool, float]]] = []
    for letter in sorted(found):
        if not lines or letter[0] - lines[-1][-1][0] >= _NEAR:
            lines.append([])
        lines[-1].append(letter)
    return [_letters(line, head.characters) for line in lines]


def _weaker(scores: Tensor, best: Tensor) -> Tensor:
    """Frames [h, w] beside one with a higher score, and the same character or in doubt: a letter is seen in up to
    three."""
    weaker = (scores < _SURE) & (scores < F.max_pool1d(scores[:, None], 3, 1, 1)[:, 0])
    weaker[:, 1:] |= (best[:, 1:] == best[:, :-1]) & (scores[:, 1:] < scores[:, :-1])
    weaker[:, :-1] |= (best[:, :-1] == best[:, 1:]) & (scores[:, :-1] <= scores[:, 1:])
    return weaker


def _letters(line: list[tuple[float, int, int, bool, float]], characters: str) -> list[tuple[str, bool, float, float]]:
    """The letters of a line; of two in neighbouring frames, which two rows of tokens saw, the surer."""
    kept: list[tuple[float, int, int, bool, float]] = []
    for letter in sorted(line, key=lambda each: each[1]):
        if kept and (letter[1] == kept[-1][1] or (letter[1] - kept[-1][1] == 1 and letter[2] == kept[-1][2])):
            kept[-1] = max(kept[-1], letter, key=lambda each: each[4])
        else:
            kept.append(letter)
    middle = sorted(letter[0] for letter in kept)[len(kept) // 2]
    return [(characters[symbol - 1], begins, (x + 0.5) / FRAMES, middle) for _, x, symbol, begins, _ in kept]


def draft(processor: VaryProcessor, head: LetterHead, features: Tensor) -> list[int]:
    """The tokens of an answer that is an image's text, from its features [h, w, D]; with place tokens, if the model
    has them."""
    down, across = processor.image_processor.stride
    pieces: list[str] = []
    for number, line in enumerate(read_letters(head, features)):
        for position, (character, begins, x, y) in enumerate(line):
            if position == 0 or begins:
                pieces += ["\n"] if number and position == 0 else [" "] if position else []
                if processor.places:
                    pieces += [processor.place("y", y * down)] if position == 0 else []
                    pieces.append(processor.place("x", x * across))
            pieces.append(character)
    tokens = _vocabulary(processor.tokenizer)
    return [tokens[str(piece)] for piece in pieces if str(piece) in tokens] + [processor.tokenizer.eos_token_id]


def draft_words(processor: VaryProcessor, lines: Sequence[Sequence[PlacedWord]]) -> list[int]:
    """As ``draft``, of words that are known."""
    tokenizer = processor.tokenizer
    lines = [line for line in lines if line]
    if not processor.places:
        text = "\n".join(" ".join(word.text for word in line) for line in lines)
        ids = tokenizer.encode(unicodedata.normalize("NFKC", text), add_special_tokens=False)
        return [*ids, tokenizer.eos_token_id]
    tokens, ids = _vocabulary(tokenizer), []
    for number, line in enumerate(lines):
        for position, word in enumerate(line):
            if number or position:
                ids.append(tokens.get(" " if position else "\n"))
            ids += [tokens.get(str(processor.place("y", line[0].y)))] if position == 0 else []
            ids.append(tokens.get(str(processor.place("x", word.x))))
            ids += tokenizer.encode(unicodedata.normalize("NFKC", word.text), add_special_tokens=False)
    unknown = {None, tokenizer.unk_token_id}
    return [token for token in ids if token not in unknown] + [tokenizer.eos_token_id]


class Lookup:
    """Prompt lookup: the tokens that followed the last ones where these stood before, in the prompt or the answer."""

    def __init__(self, prompt: Sequence[int]):
        self.ids, self.prompt = list(prompt), len(prompt)
        self._after: dict[tuple[int, ...], int] = {}
        self._note(_GRAM, len(self.ids))

    def follow(self, written: Sequence[int]) -> list[int]:
        """What may follow an answer; nothing where its last tokens are new. The answer may have been shortened."""
        at = len(self.ids) - self.prompt
        while at and (at > len(written) or self.ids[-1] != written[at - 1]):
            self.ids.pop()
            at -= 1
        before = len(self.ids)
        self.ids += written[at:]
        self._note(max(before, _GRAM), len(self.ids))
        found = self._after.get(tuple(self.ids[-_GRAM:]))
        return [] if found is None or found >= len(self.ids) else self.ids[found : found + _AHEAD]

    def _note(self, start: int, stop: int) -> None:
        for place in range(start, stop):
            self._after[tuple(self.ids[place - _GRAM : place])] = place


def space_tokens(processor: VaryProcessor) -> frozenset[int]:
    """The ids of a space and of a line break."""
    vocabulary = _vocabulary(processor.tokenizer)
    return frozenset(vocabulary[name] for name in (" ", "\n") if name in vocabulary)


@lru_cache(4)
def _vocabulary(tokenizer) -> dict[str, int]:
    return tokenizer.get_vocab()


def go_on(
    draft: Sequence[int], at: int, written: Sequence[int], places: frozenset[int], spaces: frozenset[int] = frozenset()
) -> int:
    """Where a draft goes on after the decoder wrote ``written``, whose last token the draft may have at ``at``.

    Args:
        places: ids of the place tokens, which tell where the decoder is.
        spaces: ids of white space.
    """
    token = written[-1]
    if at < len(draft) and draft[at] == token:
        return at + 1
    if token in places:
        ahead = draft[at : at + _AHEAD]
        if token in ahead:
            return at + list(ahead).index(token) + 1
        return at + (at < len(draft) and draft[at] in places)
    follows = draft[at] if at < len(draft) else None
    if token in spaces:  # the draft has no word ending here, or another kind of space
        return at + (follows in spaces)
    if follows in spaces:  # it has, and the decoder has not
        rest = next((k for k in range(at, min(at + 4, len(draft))) if draft[k] == token), None)
        if rest is not None:
            return rest + 1
    tail = list(written[-_GRAM:])
    if len(tail) == _GRAM:
        for start in range(max(at - _BACK, 0), min(at + _AHEAD, len(draft)) - _GRAM + 1):
            if list(draft[start : start + _GRAM]) == tail:
                return start + _GRAM
    if at + 1 < len(draft) and draft[at + 1] == token:
        return at + 2  # the draft has one too many
    if 0 < at <= len(draft) and draft[at - 1] == token:
        return at  # it lacked one, before this
    return at if at < len(draft) and draft[at] in places else at + 1
