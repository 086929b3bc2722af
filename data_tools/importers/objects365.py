"""``objects365``: Objects365 v2, COCO's form with two million images in folders ``patch0`` to ``patch50``."""

from pathlib import PurePosixPath

from data_tools.importers.coco import Coco
from data_tools.importers.objects import in_lower_case
from data_tools.program import register
from varytoy.data.coco_file import read_large_coco

MISSPELT = {
    "Bakset": "Basket",
    "Ballon": "Balloon",
    "Billards": "Billiards",
    "Buttefly": "Butterfly",
    "Campel": "Camel",
    "Dinning Table": "Dining Table",
    "Extention Cord": "Extension Cord",
    "Hamimelon": "Hami Melon",
    "Hotair ballon": "Hot Air Balloon",
    "Moniter/TV": "Monitor/TV",
    "Mushroon": "Mushroom",
    "Noddles": "Noodles",
    "Table Teniis paddle": "Table Tennis paddle",
    "Tape Measur/ Ruler": "Tape Measure/Ruler",
}
"""Names of its classes that are misspelt. Others are odd, such as French and Canned, and stay."""


@register
class Objects365(Coco):
    name = "objects365"
    help = "import Objects365's objects as detection and grounding"
    licence = "annotations CC-BY-4.0 (Objects365); photographs as Flickr's users state"
    takes = "zhiyuan_objv2_train.json or zhiyuan_objv2_val.json"

    def read(self, options):
        found = read_large_coco(options.annotations)
        found.classes = {kind: in_lower_case(MISSPELT.get(name, name)) for kind, name in found.classes.items()}
        return found

    def file_names(self, name):
        """The file says ``images/v2/patch16/objects365_v2_00908726.jpg``; unpacked, patches lie in the folder or in
        ``train`` and ``val``."""
        *_, patch, last = ("", *PurePosixPath(name).parts)
        return [name, *(str(PurePosixPath(part, patch, last)) for part in ("", "train", "val", "images")), last]
