"""``coco-captions``: COCO's captions, as JSON: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id",
"caption"}]}``."""

import json
from collections import defaultdict

from data_tools.importers.base import Importer, evaluation_options
from data_tools.importers.entities import clean
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.tasks import TASKS


@register
class CocoCaptions(Importer):
    name = "coco-captions"
    help = "import COCO's captions"

    def options(self, parser):
        super().options(parser)
        evaluation_options(parser)

    def rows(self, options):
        """A sample for each caption, with all captions of its image as ``references``."""
        try:
            tree = json.loads(options.file.read_text(encoding="utf-8"))
            names = {int(image["id"]): str(image["file_name"]) for image in tree["images"]}
            captions: dict[int, list[str]] = defaultdict(list)
            for annotation in tree["annotations"]:
                captions[int(annotation["image_id"])].append(clean(annotation["caption"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{options.file} has no captions of COCO's form (images, annotations): {error}") from error
        for image, group in sorted(captions.items()):
            rng = generator(options.seed, "coco", image)
            for number, caption in enumerate(group[:1] if options.evaluate else group):
                prompt = TASKS["caption"].prompt("", None if options.evaluate else rng)
                row = question_row("caption", prompt, caption, annotations={"references": group})
                yield {**row, "id": f"{image}-{number}", "images": [names.get(image, f"{image:012d}.jpg")]}
