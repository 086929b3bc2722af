"""``audit``: kept and dropped questions of ``square`` on one sheet, for a person to judge."""

import json
import random
from pathlib import Path

from PIL import Image

from data_tools.program import Program, register
from data_tools.square.pages import PAGES
from data_tools.square.pipeline import ITEMS
from data_tools.square.replies import whole_lines
from varytoy.evaluation.contact_sheet import draw
from varytoy.options import positive

_LINES = 9


@register
class Audit(Program):
    name = "audit"
    help = "draw kept and dropped questions of square with their pictures, for a person to judge"

    def options(self, parser):
        parser.add_argument("folder", type=Path, metavar="DIR", help="of data_tools square")
        parser.add_argument("--count", type=positive, default=10, help="kept ones, and as many dropped (default: 10)")
        parser.add_argument("--out", type=Path, metavar="FILE", help="picture to write (default: DIR/audit.png)")
        parser.add_argument("--seed", type=int, default=0)

    def run(self, options):
        if not (options.folder / ITEMS).is_file():
            raise FileNotFoundError(f"{options.folder / ITEMS} is not there: name the folder of a finished square")
        pages = {row["id"]: row for row in map(json.loads, whole_lines(options.folder / PAGES))}
        items, rng, tiles = list(map(json.loads, whole_lines(options.folder / ITEMS))), random.Random(options.seed), []
        for what in ("kept", "dropped"):
            group = [item for item in items if bool(item.get("dropped")) == (what == "dropped")]
            for item in rng.sample(group, min(options.count, len(group))):
                image = Image.open(options.folder / pages[item["page"]]["image"]).convert("RGB")
                said = f"{what}: {item['dropped']}" if what == "dropped" else what
                lines = [f"{item['id']} {said}", f"Q: {item['question']}", f"A: {item.get('answer', '')}"]
                tiles.append((image, [*lines, item.get("reason", "")]))
        target = options.out or options.folder / "audit.png"
        draw(tiles, target, _LINES)
        print(f"{len(tiles)} questions drawn in {target}")
