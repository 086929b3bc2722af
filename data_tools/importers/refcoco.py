"""``refcoco``: RefCOCO, RefCOCO+ and RefCOCOg: phrases of people for one object of a photograph, as grounding."""

from pathlib import Path

from data_tools.importers.base import Dropped, Entry, Importer, folder_of
from data_tools.importers.objects import check_turn, object_options, placed
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.boxes import Box
from varytoy.data.coco_file import INVALID, corners, read_coco
from varytoy.data.questions import first_file
from varytoy.data.refcoco import file_names, read_refs, references
from varytoy.extras import require
from varytoy.tasks import TASKS


@register
class RefCoco(Importer):
    name = "refcoco"
    help = "import the phrases of RefCOCO, RefCOCO+ or RefCOCOg as grounding"
    licence = "Apache-2.0 (refer); photographs as Flickr's users state"
    takes = "refs(unc).p, refs(umd).p or refs(google).p"
    images = "images, COCO's train2014 or train2017"

    def options(self, parser):
        super().options(parser)
        help = "objects and images (default: instances.json beside the annotations)"
        parser.add_argument("--instances", type=Path, metavar="FILE", help=help)
        parser.add_argument("--split", choices=("train", "val", "test", "testA", "testB"), default="train")
        object_options(parser)

    def groups(self, options):
        require("data", "pycocotools", by="python -m data_tools refcoco")
        refs = read_refs(options.annotations)
        source = read_coco(options.instances or options.annotations.parent / "instances.json")
        groups: dict[object, list[Entry]] = {}
        splits = set()
        for where, ref in references(options.annotations, refs, source):
            if isinstance(ref, ValueError):
                groups.setdefault(where, []).append(Entry(where, Dropped(INVALID, str(ref))))
                continue
            splits.add(ref.split)
            if ref.split == options.split:
                groups.setdefault(ref.image[0] if ref.image else where, []).append(Entry(where, ref))
        if refs and options.split not in splits:
            found = ", ".join(sorted(splits))
            raise ValueError(f"{options.annotations} has no split {options.split}: give --split {found}")
        return list(groups.values())

    def rows(self, entry, options):
        ref = entry.record
        if ref.image is None or ref.box is None:
            raise Dropped("phrase without its image or box", f"instances.json lacks those of reference {ref.number}")
        name, width, height = ref.image
        folder = folder_of(options)
        name = first_file(folder, *file_names(name))
        check_turn(folder / name, (width, height))
        rng = None if options.evaluate else generator(options.seed, self.name, ref.number)
        box = placed("phrase", corners(ref.box), width, height)
        for place, phrase in enumerate(ref.phrases):
            phrase = " ".join(phrase.split())
            truth = Box(phrase, box.xyxy)
            prompt, answer = TASKS["ground"].prompt(phrase, rng), TASKS["ground"].answer(truth)
            yield {**question_row("ground", prompt, answer, [truth]), "id": f"{ref.number}-{place}", "images": [name]}
