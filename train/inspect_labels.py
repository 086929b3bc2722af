"""``python -m train inspect RECIPE``: print samples as the model sees them, with supervised text marked."""

import re
from itertools import groupby

from torch import Tensor

from train.recipe import Recipe
from train.run import Run
from varytoy.processing.processor import IGNORED, VaryProcessor

OPEN, CLOSE = "⟦", "⟧"


def inspect(recipe: Recipe, count: int = 3) -> str:
    """The first ``count`` samples of each source as text; text in ⟦ ⟧ is supervised.

    Raises:
        RecipeError, SampleError: no tokenizer, no samples.
    """
    lines: list[str] = []
    run = Run(recipe, lines.append)
    data, processor, collator = run.data, run.processor, run.collator(with_model=False)
    start = 0
    for source, number in zip(recipe.data, data.counts, strict=True):
        lines.append(f"{number:,} samples from {source.path}")
        for index in range(start, min(start + count, start + number)):
            item = data[index]
            if item is None:
                continue
            batch = collator([item])
            supervised = int((batch["labels"] != IGNORED).sum())
            sizes = ", ".join(f"{image.width}x{image.height}" for image in item[1]) or "none"
            lines.append(
                f"\n--- {item[0].id} ({item[0].task}), pictures: {sizes}; {batch['input_ids'].shape[1]} tokens, "
                f"{supervised} supervised"
            )
            if supervised:
                lines.append(marked(batch["input_ids"][0], batch["labels"][0], processor))
        start += number
    return "\n".join(lines)


def marked(ids: Tensor, labels: Tensor, processor: VaryProcessor) -> str:
    """One row as text, supervised text in ⟦ ⟧, runs of image tokens as ``<imgpad>x256``."""
    pieces = []
    for supervised, run in groupby(zip(ids.tolist(), labels.tolist(), strict=True), lambda pair: pair[1] != IGNORED):
        text = processor.tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        pieces.append(f"{OPEN}{text}{CLOSE}" if supervised else text)
    return re.sub(r"(?:<imgpad>\s*)+", lambda match: f"<imgpad>x{match[0].count('<imgpad>')}", "".join(pieces))
