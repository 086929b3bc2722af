"""Distributions of samples: tasks, lengths of answers, sizes of images, languages."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from varytoy.data.sample import Sample, SampleError, image_size

_BOXES = ("detect", "ground")
"""Tasks whose answers are boxes, in no language."""
_SHORTEST = 20
"""Letters of an answer from which its language is guessed."""


@dataclass
class Distributions:
    """What is counted over samples.

    Attributes:
        lengths: of the answers, characters.
        sizes: longer sides of the images, pixels.
        languages: of answers with at least 20 letters that are not boxes.
    """

    tasks: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """A line for the terminal."""
        tasks = ", ".join(f"{count:,} {task}" for task, count in self.tasks.most_common())
        longest = f"answers up to {max(self.lengths, default=0):,} characters"
        languages = ", ".join(f"{count:,} {name}" for name, count in self.languages.most_common(5))
        return f"{len(self.lengths):,} samples ({tasks}); {longest}; languages: {languages or 'no answer long enough'}"


def measure(samples: Iterable[Sample]) -> Distributions:
    """Only headers of images are read; those that cannot be read are left out."""
    from py3langid import classify

    found = Distributions()
    for sample in samples:
        found.tasks[sample.task] += 1
        text = sample.annotations.plain_text or sample.answer
        found.lengths.append(len(sample.answer))
        if sample.task not in _BOXES and sum(character.isalpha() for character in text) >= _SHORTEST:
            found.languages[classify(text[:500])[0]] += 1
        for path in sample.image_paths():
            try:
                found.sizes.append(max(image_size(path)))
            except SampleError:
                continue
    return found


def draw(measured: Mapping[str, Distributions], target: Path) -> None:
    """Write a picture with four charts, in a colour for each source. Raises OSError, ValueError."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    found = measured.values()
    for axis, title, values in (
        (axes[0, 0], "tasks", [each.tasks for each in found]),
        (axes[0, 1], "languages of answers", [each.languages for each in found]),
    ):
        names = [name for name, _ in sum(values, Counter()).most_common(10)]
        bottom = np.zeros(len(names))
        for label, counted in zip(measured, values, strict=True):
            heights = np.array([counted[name] for name in names])
            axis.bar(names, heights, bottom=bottom, label=label)
            bottom += heights
        axis.set(title=title, ylabel="samples")
    for axis, title, lists in (
        (axes[1, 0], "length of the answer, characters", [each.lengths for each in found]),
        (axes[1, 1], "longer side of the image, pixels", [each.sizes for each in found]),
    ):
        values = [value for each in lists for value in each]
        edges = np.geomspace(max(min(values, default=1), 1), max(max(values, default=2), 2) * 1.01, 30)
        axis.hist(lists, bins=edges, stacked=True)
        axis.set(title=title, ylabel="samples", xscale="log")
    axes[0, 0].legend(fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
