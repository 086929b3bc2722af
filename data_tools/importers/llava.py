"""``llava``: LLaVA's JSON, a list of ``{"id", "image", "conversations": [{"from", "value"}]}``: LLaVA-Instruct of 80K
and 150K, and the mixture of 665K. ``blip558k``: captions in the same form."""

import re

from data_tools.importers.base import INVALID, Dropped, Grouped, Importer, evaluation_options, read_json_list
from data_tools.importers.entities import clean
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.tasks import TASKS

_FORM = "LLaVA's JSON, one list of conversations"
_SIDE = r"\s*(?:[01]?\.\d+|[01])\s*"
_BOX = re.compile(rf"\[(?=[^\]]*\.){_SIDE}(?:,{_SIDE}){{3}}\]")
"""A box as the mixture of 665K writes it, 0 to 1."""


@register
class Llava(Importer):
    name = "llava"
    help = "import LLaVA's conversations from a JSON list"
    licence = "CC-BY-NC-4.0 (LLaVA-Instruct)"
    takes = "llava_instruct_80k.json, llava_instruct_150k.json, llava_v1_5_mix665k.json"

    def options(self, parser):
        super().options(parser)
        help = "leave out conversations with boxes from 0 to 1, which are not as this family writes them"
        parser.add_argument("--without-boxes", action="store_true", help=help)

    def groups(self, options):
        return Grouped(read_json_list(options.annotations, _FORM), "image")

    def rows(self, entry, options):
        """The conversation, with a single image in front of its turn, where LLaVA's own training puts it."""
        turns = entry.record["conversations"]
        if options.without_boxes and any(_BOX.search(turn["value"]) for turn in turns):
            raise Dropped("box from 0 to 1", quiet=True)
        placed = [_image_first(turn) for turn in turns]
        yield {**entry.record, "conversations": placed}


def _image_first(turn: dict) -> dict:
    text = turn["value"]
    if turn["from"] != "human" or text.count(IMAGE_PLACEHOLDER) != 1:
        return turn
    return {**turn, "value": f"{IMAGE_PLACEHOLDER}\n{text.replace(IMAGE_PLACEHOLDER, '').strip()}"}


@register
class Blip558k(Importer):
    name = "blip558k"
    help = "import the captions that LLaVA is pretrained on (BLIP's, of LAION, CC and SBU)"
    licence = "as LAION, CC3M and SBU state; captions by BLIP"
    takes = "blip_laion_cc_sbu_558k.json"

    def options(self, parser):
        super().options(parser)
        evaluation_options(parser, "standard prompts only")

    def groups(self, options):
        return ([entry] for entry in read_json_list(options.annotations, _FORM))

    def rows(self, entry, options):
        """The caption with a prompt of the family, not LLaVA's."""
        record = entry.record
        captions = [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
        if len(captions) != 1:
            raise Dropped(INVALID, f"{len(captions)} answers in place of one caption")
        caption = clean(captions[0])
        rng = None if options.evaluate else generator(options.seed, "blip558k", record["id"])
        row = question_row("caption", TASKS["caption"].prompt("", rng), caption, annotations={"references": [caption]})
        yield {**row, "id": record["id"], "images": [record["image"]]}
