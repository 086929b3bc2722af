"""Letters: a head that reads the vision vocabulary's tokens all at once, letter by letter in its place.

It knows no language and sees a few pixels around each letter, so it errs more than the decoder; what it reads is a
draft that the decoder checks many tokens at a time (varytoy.inference.drafts).
"""

from typing import NamedTuple

from torch import Tensor, nn

FRAMES = 3
"""Positions a token, left to right, that may hold a letter."""


class Reading(NamedTuple):
    """Of each frame [..., h, w * FRAMES].

    Attributes:
        symbols: [..., 1 + S] scores of no letter, and of each character.
        begins: score of the letter beginning a word; above 0: it does.
        heights: the letter's y in tokens, from the top of its row of tokens.
    """

    symbols: Tensor
    begins: Tensor
    heights: Tensor


class LetterHead(nn.Module):
    """A letter is found in the frame of its centre.

    Args:
        width: channels of the vision vocabulary's tokens.
        characters: those that it can read.
    """

    def __init__(self, width: int, characters: str):
        super().__init__()
        self.characters = characters
        self.linear = nn.Linear(width, FRAMES * (len(characters) + 3))

    def forward(self, features: Tensor) -> Reading:
        """Features [..., h, w, D] of the vision vocabulary."""
        found = self.linear(features).unflatten(-1, (FRAMES, -1)).flatten(-3, -2)
        return Reading(found[..., :-2], found[..., -2], found[..., -1])
