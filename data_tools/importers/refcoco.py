"""``refcoco``: RefCOCO, RefCOCO+ and RefCOCOg: phrases of people for one object of a photograph, as grounding."""

from pathlib import Path

from data_tools.importers.base import INVALID, Dropped, Entry, Importer, first_file, folder_of
from data_tools.importers.coco import corners
from data_tools.importers.coco_file import read_coco
from data_tools.importers.objects import check_turn, object_options, placed
from data_tools.importers.plain_pickle import read_plain_pickle
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.boxes import Box
from varytoy.extras import require
from varytoy.tasks import TASKS

_FORM = "RefCOCO's refs(unc).p or RefCOCOg's refs(umd).p"


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
        refs = read_plain_pickle(options.annotations, _FORM)
        if not isinstance(refs, list):
            raise ValueError(f"{options.annotations} is not a list: give {_FORM}")
        source = read_coco(options.instances or options.annotations.parent / "instances.json")
        boxes = {number: box for image in source.images for number, _, box, _ in source.boxes(image)}
        groups: dict[object, list[Entry]] = {}
        splits = set()
        for number, ref in enumerate(refs, 1):
            where = f"{options.annotations} entry {number}"
            try:
                if not isinstance(ref["split"], str) or type(ref["image_id"]) is not int:
                    raise TypeError("split must be a text and image_id a whole number")
                splits.add(ref["split"])
                if ref["split"] != options.split:
                    continue
                image, phrases = ref["image_id"], [sentence["sent"] for sentence in ref["sentences"]]
                if type(ref["ref_id"]) is not int or not all(isinstance(phrase, str) for phrase in phrases):
                    raise TypeError("ref_id must be a whole number and each sent a text")
                record = (ref["ref_id"], source.images.get(image), boxes.get(ref["ann_id"]), phrases)
                groups.setdefault(image, []).append(Entry(where, record))
            except (KeyError, TypeError, AttributeError) as error:
                reason = f"no key {error}" if isinstance(error, KeyError) else error
                groups.setdefault(where, []).append(Entry(where, Dropped(INVALID, str(reason))))
        if refs and options.split not in splits:
            found = ", ".join(sorted(splits))
            raise ValueError(f"{options.annotations} has no split {options.split}: give --split {found}")
        return list(groups.values())

    def rows(self, entry, options):
        number, image, sides, phrases = entry.record
        if image is None or sides is None:
            raise Dropped("phrase without its image or box", f"instances.json lacks those of reference {number}")
        name, width, height = image
        folder = folder_of(options)
        name = first_file(folder, name, name.rpartition("_")[2])  # train2017's names lack COCO_train2014_
        check_turn(folder / name, (width, height))
        rng = None if options.evaluate else generator(options.seed, self.name, number)
        box = placed("phrase", corners(sides), width, height)
        for place, phrase in enumerate(phrases):
            phrase = " ".join(phrase.split())
            truth = Box(phrase, box.xyxy)
            prompt, answer = TASKS["ground"].prompt(phrase, rng), TASKS["ground"].answer(truth)
            yield {**question_row("ground", prompt, answer, [truth]), "id": f"{number}-{place}", "images": [name]}
