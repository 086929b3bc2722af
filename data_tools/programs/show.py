"""``show`` and ``stats``: look at samples."""

import itertools
from pathlib import Path

from PIL import ImageDraw

from data_tools.distributions import draw, measure
from data_tools.mixture import sample_paths
from data_tools.program import Program, register
from varytoy import NANO
from varytoy.data.sample import SampleError
from varytoy.data.samples import read_samples
from varytoy.extras import require
from varytoy.options import positive
from varytoy.processing.marked import marked
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS
from varytoy.tasks.base import draw_regions, object_regions


@register
class Show(Program):
    name = "show"
    help = "draw a sample with its boxes, and print its text with the tokens that are trained"

    def options(self, parser):
        parser.add_argument("samples", type=Path, help="folder, .jsonl file or shard")
        parser.add_argument("number", type=positive, help="of the sample, from 1")
        parser.add_argument("--out", type=Path, metavar="FILE", help="picture to write (default: none)")
        parser.add_argument("--model", default="", metavar="FOLDER", help="whose tokens are shown (default: nano)")

    def run(self, options):
        """Text in ⟦ ⟧ is what a model is trained to write."""
        sample = next(itertools.islice(read_samples(options.samples), options.number - 1, None), None)
        if sample is None:
            raise ValueError(f"{options.samples} has fewer than {options.number} samples")
        images, view = sample.open_images(), TASKS[sample.task].view
        sizes = ", ".join(f"{image.width}x{image.height}" for image in images) or "none"
        print(f"{sample.id} ({sample.task}), images: {sizes}, {sample.where}")
        pictures = bool(images) and view == "picture"
        processor = VaryProcessor.from_pretrained(options.model or Path(NANO, "pictures" if pictures else ""))
        plans = [processor.image_processor.plan(image.size, view) for image in images]
        print(marked(*processor.encode(list(sample.messages), plans, True), processor))
        if options.out:
            if not images:
                raise ValueError(f"sample {options.number} of {options.samples} has no image to draw")
            size, lines = images[0].size, sample.annotations.text_lines
            shown = draw_regions(images[0], object_regions(sample.boxes, size))
            for line in lines:
                ImageDraw.Draw(shown).rectangle(line.to_pixels(*size), outline="#d1242f")
            shown.save(options.out)
            print(f"{len(sample.boxes)} boxes and {len(lines)} lines drawn in {options.out}")


@register
class Stats(Program):
    name = "stats"
    help = "draw the distributions of tasks, lengths, image sizes and languages"

    def options(self, parser):
        parser.add_argument("samples", type=Path, help="folder, .jsonl file, shard, or a mixture (.yaml)")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write, e.g. stats.png")
        parser.add_argument("--limit", type=positive, help="number of samples to read of each source")

    def run(self, options):
        require("data", "matplotlib", "py3langid", by="python -m data_tools stats")
        bad: list[SampleError] = []
        measured = {}
        for path in sample_paths(options.samples):
            measured[path] = measure(itertools.islice(read_samples(path, on_error=bad.append), options.limit))
            print(f"{path}: {measured[path].summary()}")
        if not any(each.lengths for each in measured.values()):
            raise ValueError(f"{options.samples} has no samples")
        draw(measured, options.out)
        print(f"drawn in {options.out}" + (f"; {len(bad)} samples are not valid" if bad else ""))
