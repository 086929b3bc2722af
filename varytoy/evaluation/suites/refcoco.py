"""RefCOCO, RefCOCO+ and RefCOCOg: phrases for one object of a photograph of COCO's train2014."""

from pathlib import Path

from varytoy.data.boxes import Box
from varytoy.data.coco_file import corners, read_large_coco
from varytoy.data.pictures import turned
from varytoy.data.questions import first_file
from varytoy.data.refcoco import Reference, file_names, read_refs, references
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import boxes
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import checked, find, folder_of, images_option, with_pictures

FILES = ("refs(unc).p", "refs(umd).p", "refs(google).p")


@register
class RefCoco(Suite):
    """Each sentence is a case, as in the papers."""

    name = "refcoco"
    help = "RefCOCO's, RefCOCO+'s or RefCOCOg's phrases (accuracy at IoU 0.5); groups: val, testA, testB, test"
    layout = "refs(unc).p or refs(umd).p, instances.json, and train2014/"

    def options(self, parser):
        images_option(parser, "train2014/, COCO's photographs")
        parser.add_argument("--refs", metavar="NAME", help=f"file of the phrases (default: {FILES[0]} or {FILES[1]})")
        parser.add_argument("--split", nargs="+", help="val, testA, testB, test, train (default: all but train)")

    def cases(self, folder, options):
        file = find(folder, (options.refs,) if options.refs else FILES, self.layout)
        instances = find(folder, ("instances.json",), self.layout)
        try:
            refs, source = read_refs(file), read_large_coco(instances)
        except ValueError as error:
            raise SuiteError(str(error)) from error
        cases, splits = [], set()
        for where, ref in references(file, refs, source):
            if isinstance(ref, ValueError):
                raise SuiteError(f"{where}: {ref}; give {self.layout}")
            splits.add(ref.split)
            if ref.split in options.split if options.split else ref.split != "train":
                cases += self._of(where, ref, folder_of(options, folder))
        unknown = sorted(set(options.split or []) - splits)
        if unknown:
            raise SuiteError(f"{file} has no split {unknown[0]}: give --split {' '.join(sorted(splits))}")
        with_pictures(cases, "--images the folder that holds COCO's train2014/")
        for picture in dict.fromkeys((case.file, case.facts["size"]) for case in cases):
            if turned(*picture):
                raise SuiteError(f"{picture[0]} is turned by its EXIF, and its boxes are not: remove its orientation")
        return cases

    def _of(self, where: str, ref: Reference, folder: Path) -> list[Case]:
        with checked(where, self.layout):
            if ref.image is None or ref.box is None:
                raise ValueError(f"instances.json lacks the image or the box of reference {ref.number}")
            if any(side != side for side in ref.box):
                raise ValueError(f"the box of reference {ref.number} in instances.json is not four numbers")
            name, width, height = ref.image
            names = [f"{part}{each}" for part in ("", "train2014/", "train2017/") for each in file_names(name)]
            picture = folder / first_file(folder, names[2], *names)
            box = Box.from_pixels("", corners(ref.box), width, height)
            phrases = [" ".join(phrase.split()) for phrase in ref.phrases]
            if not all(phrases):
                raise ValueError("a phrase without words")
            return [
                Case(
                    f"{ref.number}-{place}",
                    "ground",
                    picture,
                    prompt=phrase,
                    boxes=(Box(phrase, box.xyxy),),
                    group=ref.split,
                    facts={"size": (width, height)},
                )
                for place, phrase in enumerate(phrases)
            ]

    def metrics(self, options):
        return [boxes.grounding_accuracy(), boxes.grounding_accuracy(0.7)]
