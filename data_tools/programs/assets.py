"""``fetch`` and ``licences``: the packages with fonts, texts and images."""

from pathlib import Path

from data_tools.assets import image_nets, languages, sources
from data_tools.program import Program, register
from data_tools.render import pictures
from varytoy.extras import require

_PARTS = {"english": sources, "languages": languages, "pictures": pictures, "image-nets": image_nets}


@register
class Fetch(Program):
    name = "fetch"
    help = "download the packages with fonts, texts and images"

    def options(self, parser):
        parser.add_argument(
            "--out", type=Path, default=Path("data/sources"), metavar="DIR", help="default: data/sources"
        )
        help = "fetch only these, into a folder that may hold others"
        parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help=help)
        parser.add_argument("--share-alike", action="store_true", help="also backgrounds under CC-BY-SA and GPL")

    def run(self, options):
        if "pictures" in options.only:
            require("train", "resvg_py", by="python -m data_tools fetch")
        for part in options.only:
            if part == "pictures":
                pictures.fetch(options.out, options.share_alike)
            else:
                _PARTS[part].fetch(options.out)


@register
class Licences(Program):
    name = "licences"
    help = "list the packages and their licences"

    def run(self, options):
        print(sources.licences())
        print(languages.licences())
        print(pictures.licences())
        print(image_nets.licences())
