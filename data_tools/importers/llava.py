"""``llava``: LLaVA's JSON, a list of ``{"id", "image", "conversations": [{"from", "value"}]}``."""

from data_tools.importers.base import Entry, Importer, grouped, read_json
from data_tools.program import register


@register
class Llava(Importer):
    name = "llava"
    help = "import LLaVA's conversations from a JSON list"
    licence = "CC-BY-NC-4.0 (LLaVA-Instruct)"

    def groups(self, options):
        form = "LLaVA's JSON, one list of conversations"
        rows = read_json(options.annotations, form)
        if not isinstance(rows, list):
            raise ValueError(f"{options.annotations} is not a list: give {form}")
        return grouped(
            (Entry(f"{options.annotations} entry {number}", row) for number, row in enumerate(rows, 1)), "image"
        )

    def rows(self, entry, options):
        yield entry.record
