"""What is wrong with a notation."""

LONGEST = 100_000
"""Characters of a text that is drawn; answers of models are shorter."""


class NotationError(ValueError):
    """The notation is broken; the message is a sentence with the place, from 1."""


def short(text: str, most: int = 60) -> str:
    """The beginning of a long text, for a sentence about it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_length(text: str, what: str) -> None:
    """Raises NotationError for an empty or endless text."""
    if not text.strip():
        raise NotationError(f"{what} is empty")
    if len(text) > LONGEST:
        raise NotationError(f"{what} has {len(text):,} characters; at most {LONGEST:,} are drawn")
