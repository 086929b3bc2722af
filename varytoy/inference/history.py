"""The turns of a conversation, with their images, as many as the model's context holds."""

from collections.abc import Sequence

from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.engine import Engine
from varytoy.processing.messages import Message
from varytoy.processing.plan import ImagePlan


def fit_history(
    engine: Engine, history: Sequence[Message], prompt: str, plan: ImagePlan, max_new_tokens: int
) -> list[Message]:
    """``history`` and the prompt about an image, the oldest turns left out until an answer has room. More turns are
    tried, twice as many each time, so that a history far longer than the context is not read whole."""
    starts = [number for number, turn in enumerate(history) if turn["role"] == "user"]

    def conversation(kept: int) -> list[Message]:
        """With the last ``kept`` turns of the user and what follows each."""
        turns = [dict(turn) for turn in history[starts[-kept] :]] if kept else []
        turns.append({"role": "user", "content": prompt})
        if IMAGE_PLACEHOLDER not in turns[0]["content"]:
            turns[0]["content"] = f"{IMAGE_PLACEHOLDER}\n{turns[0]['content']}"
        return turns

    kept, step = 0, 1
    while step:
        fits = kept + step <= len(starts)
        if fits:
            length = len(engine.processor.encode(conversation(kept + step), [plan], False)[0])
            fits = length + min(max_new_tokens, 256) <= engine.context
        kept, step = (kept + step, step * 2) if fits else (kept, step // 2)
    return conversation(kept)


def with_placeholders(messages: Sequence[Message], images: int) -> list[Message]:
    """The turns, with the placeholders of all images at the start where there are none.

    Raises:
        ValueError: the last turn is not the user's.
    """
    turns = [dict(turn) for turn in messages]
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("a conversation ends with a turn of the user")
    if not any(IMAGE_PLACEHOLDER in turn["content"] for turn in turns):
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = f"{IMAGE_PLACEHOLDER}\n" * images + first["content"]
    return turns
