"""Sheet music as SVG by Verovio: **kern on standard input, a JSON list of SVG pages on standard output.

It is a program of its own, which imports nothing of ours: Verovio ends its process on some broken music.
"""

import json
import sys

OPTIONS = {
    "inputFrom": "humdrum",
    "adjustPageHeight": True,
    "adjustPageWidth": True,
    "footer": "none",
    "header": "none",
    "breaks": "auto",
    "pageWidth": 2100,
    "pageHeight": 60000,
    "pageMarginTop": 60,
    "pageMarginBottom": 60,
    "pageMarginLeft": 60,
    "pageMarginRight": 60,
    "xmlIdSeed": 1,
    "svgRemoveXlink": True,
}
"""The size of a page is in tenths of a millimetre; the same seed gives the same names in the SVG."""


def engrave(kern: str, options: dict | None = None) -> list[str]:
    """Pages of SVG; none where Verovio cannot read the music."""
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setOptions(OPTIONS | (options or {}))
    if not toolkit.loadData(kern):
        return []
    return [toolkit.renderToSVG(number) for number in range(1, toolkit.getPageCount() + 1)]


if __name__ == "__main__":
    pages = engrave(sys.stdin.buffer.read().decode("utf-8"))
    sys.stdout.buffer.write(json.dumps(pages).encode())
