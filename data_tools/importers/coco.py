"""``coco``: COCO's objects as detection and grounding; ``coco-captions``: its captions."""

from collections import defaultdict
from collections.abc import Iterator

from data_tools.importers.base import (
    Dropped,
    Entry,
    Groups,
    Importer,
    evaluation_options,
    folder_of,
    read_json,
)
from data_tools.importers.entities import clean
from data_tools.importers.objects import GROUP, Labelled, check_turn, numbered, object_options, object_rows
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.coco_file import CocoFile, corners, read_coco
from varytoy.data.questions import first_file
from varytoy.extras import require
from varytoy.tasks import TASKS


@register
class Coco(Importer):
    name = "coco"
    help = "import COCO's objects, or others in its form, as detection and grounding"
    licence = "annotations CC-BY-4.0; photographs as Flickr's users state"
    takes = "instances_train2017.json"

    def options(self, parser):
        super().options(parser)
        object_options(parser)

    def read(self, options) -> CocoFile:
        """Raises ValueError, OSError."""
        require("data", "pycocotools", by="python -m data_tools coco")
        return read_coco(options.annotations)

    def groups(self, options):
        source = self.read(options)

        def make() -> Iterator[list[Entry]]:
            for bad in source.bad:
                yield [Entry(bad.where, Dropped(bad.kind, bad.reason))]
            for image, (name, width, height) in source.images.items():
                objects = [
                    Labelled(f"annotation {number}", source.classes.get(kind), corners(box), GROUP * crowd, kind)
                    for number, kind, box, crowd in source.boxes(image)
                ]
                yield [Entry(f"{options.annotations} image {image}", (image, name, width, height, objects))]

        return Groups(len(source.bad) + len(source.images), make)

    def file_names(self, name: str) -> list[str]:
        """Where an image may be in the folder."""
        return [name]

    def rows(self, entry, options):
        image, name, width, height, objects = entry.record
        folder = folder_of(options)
        name = first_file(folder, *self.file_names(name))
        check_turn(folder / name, (width, height))
        rng = None if options.evaluate else generator(options.seed, self.name, image)
        yield from numbered(object_rows(objects, width, height, rng), image, name)


@register
class CocoCaptions(Importer):
    name = "coco-captions"
    help = "import COCO's captions"
    licence = "captions CC-BY-4.0; photographs as Flickr's users state"
    takes = "captions_train2017.json"

    def options(self, parser):
        super().options(parser)
        evaluation_options(parser)

    def groups(self, options):
        form = "COCO's captions (images, annotations)"
        tree = read_json(options.annotations, form)
        captions: dict[int, list[str]] = defaultdict(list)
        bad: list[list[Entry]] = []
        try:
            names = {int(image["id"]): str(image["file_name"]) for image in tree["images"]}
            annotations = enumerate(tree["annotations"], 1)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{options.annotations} does not hold {form}: {error}") from error
        for number, annotation in annotations:
            try:
                captions[int(annotation["image_id"])].append(clean(annotation["caption"]))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                where = f"{options.annotations} annotation {number}"
                bad.append([Entry(where, Dropped("not a caption", f"no image_id and caption ({error!r})"))])
        return bad + [
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
