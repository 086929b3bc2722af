"""``python -m train inspect RECIPE``: print samples as the model sees them, with supervised text marked."""

from train.recipe import Recipe
from train.run import Run
from varytoy.processing.marked import marked
from varytoy.processing.processor import IGNORED


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
                lines.append(marked(batch["input_ids"][0].tolist(), batch["labels"][0].tolist(), processor))
        start += number
    return "\n".join(lines)
