"""``image-net``: a pretrained tower of timm or open_clip for ``model.init`` of a recipe."""

import json
from pathlib import Path

from data_tools.assets.pretrained import write_tower
from data_tools.program import Program, register


@register
class ImageNet(Program):
    name = "image-net"
    help = "fetch a pretrained tower of timm or open_clip from the hub, or convert a file of one"

    def options(self, parser):
        parser.add_argument("library", choices=("timm", "open_clip"))
        parser.add_argument("net", help="NAME or NAME.TAG of timm, NAME:TAG of open_clip")
        parser.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="folder for model.safetensors and origin.json"
        )
        parser.add_argument("--weights", type=Path, help="a file in the library's own layout, in place of a download")

    def run(self, options):
        if options.out.exists():
            raise FileExistsError(f"{options.out} exists: name a new folder")
        note = write_tower(options.library, options.net, options.out, options.weights)
        for key in ("source", "licence", "clip_config", "image_processor"):
            print(f"{key}: {json.dumps(note[key])}")
