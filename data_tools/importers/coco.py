"""``coco-captions``: COCO's captions, as JSON: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id",
"caption"}]}``."""

from collections import defaultdict

from data_tools.importers.base import Entry, Importer, evaluation_options, read_json
from data_tools.importers.entities import clean
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.tasks import TASKS


@register
class CocoCaptions(Importer):
    name = "coco-captions"
    help = "import COCO's captions"
    licence = "captions CC-BY-4.0; photographs as Flickr's users state"

    def options(self, parser):
        super().options(parser)
        evaluation_options(parser)

    def groups(self, options):
        form = "COCO's captions (images, annotations)"
        tree = read_json(options.annotations, form)
        captions: dict[int, list[str]] = defaultdict(list)
        try:
            names = {int(image["id"]): str(image["file_name"]) for image in tree["images"]}
            for annotation in tree["annotations"]:
                captions[int(annotation["image_id"])].append(clean(annotation["caption"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{options.annotations} does not hold {form}: {error}") from error
        return [
            [Entry(f"{options.annotations} image {image}", (image, names.get(image, f"{image:012d}.jpg"), group))]
            for image, group in sorted(captions.items())
        ]

    def rows(self, entry, options):
        """A sample for each caption, with all captions of its image as ``references``."""
        image, name, group = entry.record
        rng = generator(options.seed, "coco", image)
        for number, caption in enumerate(group[:1] if options.evaluate else group):
            prompt = TASKS["caption"].prompt("", None if options.evaluate else rng)
            row = question_row("caption", prompt, caption, annotations={"references": group})
            yield {**row, "id": f"{image}-{number}", "images": [name]}
