"""``llava``: LLaVA's JSON, a list of ``{"id", "image", "conversations": [{"from", "value"}]}``."""

import json

from data_tools.importers.base import Importer
from data_tools.program import register


@register
class Llava(Importer):
    name = "llava"
    help = "import LLaVA's conversations from a JSON list"

    def rows(self, options):
        try:
            rows = json.loads(options.file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{options.file} is not JSON: {error}") from error
        if not isinstance(rows, list):
            raise ValueError(f"{options.file} is not a list: LLaVA's files are one JSON list of conversations")
        yield from rows
