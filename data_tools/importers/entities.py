"""``entities``: photographs with captions, and boxes of the phrases in them, as JSON lines (Flickr30k Entities as
``{"id", "captions": [{"text"}], "entities": [{"type", "phrases", "boxes"}]}``, boxes 0-1000).

Each photograph gives captions, phrases to ground, the boxes of people, animals and vehicles, and questions made of its
captions and phrases: is there a thing, how many people, which colour, doing what. With ``--chinese`` also captions in
Chinese, from ``captions_zh`` (texts).
"""

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data_tools.importers.base import INVALID, Dropped, Entry, Importer, evaluation_options, read_json_lines
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.boxes import SCALE, Box
from varytoy.data.boxes import iou as overlap
from varytoy.options import positive
from varytoy.tasks import TASKS
from varytoy.tasks.language import Caption

COLOURS = "red blue green yellow black white orange pink purple brown gray tan".split()
PEOPLE = set("man men woman women boy boys girl girls child children person people kid kids guy lady player".split())
THINGS = ("people", "animals", "vehicles")
_NO_NOUNS = set(
    "other another them him her it one two three front top background side something each himself herself left right "
    "distance back middle camera they".split()
)
_NO_VERBS = set(
    "something building clothing thing during wearing looking being string evening morning ceiling railing swing "
    "spring king ring wing nothing using having following including surrounding crossing wedding earring parking "
    "bowling".split()
)
_BARE = 0.25
"""Share of the training questions that do not ask for a short answer."""
_SAME = 0.7
"""Overlap from which two boxes are of one thing."""


@dataclass
class Words:
    """Nouns and verbs of the whole file that are frequent enough to be asked for; nouns as often as they occur."""

    nouns: list[str] = field(default_factory=list)
    verbs: set[str] = field(default_factory=set)


@register
class Entities(Importer):
    name = "entities"
    help = "import photographs with captions, phrases and boxes (Flickr30k Entities as JSON lines)"
    licence = "research and education (Flickr30k Entities)"
    takes = "photographs as JSON lines"
    suffix = ".webp"

    def options(self, parser):
        super().options(parser)
        parser.add_argument("--suffix", default=self.suffix, help=f"of the images' names (default: {self.suffix})")
        evaluation_options(parser)
        parser.add_argument("--chinese", action="store_true", help="also the captions in Chinese (captions_zh)")
        parser.add_argument(
            "--presence", type=positive, help="ask for at most so many things that are there (default: all)"
        )

    def photos(self, options: argparse.Namespace) -> list[Entry]:
        """Records with ``id``, ``captions`` and ``entities``, as JSON lines have them, and ``dropped`` boxes. Raises as
        ``groups``."""
        return [_photo(entry) for entry in read_json_lines(options.annotations)]

    def groups(self, options):
        photos = self.photos(options)
        self._words = find_words([photo.record for photo in photos if not isinstance(photo.record, Dropped)])
        return [[photo] for photo in photos]

    def rows(self, entry, options):
        photo = entry.record
        yield from photo.get("dropped", ())
        rng = generator(options.seed, "entities", photo["id"])
        paraphrase = None if options.evaluate else rng
        for number, row in enumerate(photo_rows(photo, self._words, rng, paraphrase, options)):
            row["id"] = f"{photo['id']}-{number}"
            row["images"] = [f"{photo['id']}{options.suffix}"]
            yield row


def _photo(entry: Entry) -> Entry:
    """The record with what is read of it, which is of the form."""
    if isinstance(entry.record, Dropped):
        return entry
    try:
        photo = entry.record
        captions = [{"text": _text(caption["text"])} for caption in photo["captions"]]
        entities = [
            {
                "type": _text(each["type"]),
                "phrases": [_text(phrase) for phrase in each["phrases"]],
                "boxes": [Box("", tuple(map(int, box))).xyxy for box in each["boxes"]],
            }
            for each in photo["entities"]
        ]
        chinese = [_text(text) for text in photo.get("captions_zh", ())]
        record = {"id": str(photo["id"]), "captions": captions, "captions_zh": chinese, "entities": entities}
        return Entry(entry.where, record)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        return Entry(entry.where, Dropped(INVALID, f"no photograph with id, captions and entities ({reason})"))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:80]!r} is not text")
    return value


def find_words(photos: Sequence[dict]) -> Words:
    nouns: Counter = Counter()
    verbs: Counter = Counter()
    for photo in photos:
        heads = set(map(_head, _phrases(photo)))
        nouns.update(heads - _NO_NOUNS - set(COLOURS) - {""})
        verbs.update(word for text in _captions(photo) for word in _words(text) if _is_verb(word))
    least = max(2, round(len(photos) / 230))  # 25 of 5,676
    return Words(
        [noun for noun, count in sorted(nouns.items()) if count >= least for _ in range(count)],
        {verb for verb, count in verbs.items() if count >= max(2, round(len(photos) / 380))},
    )


def photo_rows(
    photo: dict, words: Words, rng: random.Random, paraphrase: random.Random | None, options: argparse.Namespace
) -> Iterator[dict]:
    """The samples of a photograph, without id and image. ``paraphrase``: chooses among the prompts of a task."""
    evaluate = options.evaluate
    captions = [clean(text) for text in _captions(photo)]
    for caption in captions[:1] if evaluate else captions:
        yield question_row(
            "caption", TASKS["caption"].prompt("", paraphrase), caption, annotations={"references": captions}
        )
    if options.chinese:
        yield from _chinese_captions(photo["captions_zh"], paraphrase, evaluate)
    things = []
    for entity in photo["entities"]:
        boxes = [tuple(box) for box in entity["boxes"]]
        if entity["type"] in THINGS:
            things += [Box(entity["type"], box) for box in boxes]
        whole = _union(boxes)
        if whole is None:
            continue
        for phrase in dict.fromkeys(entity["phrases"]):
            box, metadata = Box(phrase, whole), {"type": entity["type"], "boxes": len(boxes)}
            prompt, answer = TASKS["ground"].prompt(phrase, paraphrase), TASKS["ground"].answer(box)
            yield question_row("ground", prompt, answer, [box], metadata=metadata)
    things = _distinct(sorted(things, key=lambda box: (THINGS.index(box.label), box.xyxy)))
    if things:
        yield _detection(things, None if evaluate else rng)
    for kind, question, answers in questions(photo, words, rng, options.presence):
        annotations = {"references": answers}
        bare = paraphrase is not None and rng.random() < _BARE  # as people ask in a chat
        prompt = question if bare else TASKS["vqa"].prompt(question, paraphrase)
        answer = answers[0] if evaluate else rng.choice(answers)
        yield question_row("vqa", prompt, answer, annotations=annotations, metadata={"kind": kind})


def _chinese_captions(captions: Sequence[str], paraphrase: random.Random | None, evaluate: bool) -> Iterator[dict]:
    prompts = Caption.chinese_prompts
    for text in captions[:1] if evaluate else captions:
        prompt = paraphrase.choice(prompts) if paraphrase else prompts[0]
        annotations = {"references": list(captions)}
        yield question_row("caption", prompt, text, annotations=annotations, metadata={"kind": "Chinese"})


def _detection(things: Sequence[Box], rng: random.Random | None) -> dict:
    """The boxes of all things, by kind; with ``rng`` half of the time of some kinds only, which may be none."""
    classes, prompt = list(THINGS), TASKS["detect"].prompt(", ".join(THINGS))
    if rng is not None:
        some = rng.random() < 0.5
        classes = rng.sample(THINGS, rng.randint(1, len(THINGS))) if some else classes
        prompt = TASKS["detect"].prompt(", ".join(classes) if some else "", rng)
    boxes = [box for kind in classes for box in things if box.label == kind]
    annotations = {"classes": classes, "all_objects": False}
    return question_row("detect", prompt, TASKS["detect"].answer(boxes), boxes, annotations)


def questions(
    photo: dict, words: Words, rng: random.Random, presence: int | None = None
) -> Iterator[tuple[str, str, list[str]]]:
    """(kind, question, right answers). As many things that are not there are asked for as things that are, at most
    ``presence`` of each."""
    phrases = _phrases(photo)
    said = {word for text in (*_captions(photo), *phrases) for word in _words(text)}
    nouns = set(words.nouns)
    present = sorted(set(map(_head, phrases)) & nouns)
    if presence is not None and len(present) > presence:
        present = rng.sample(present, presence)
    for noun in present:
        yield "presence", f"Is there a {noun}?", ["yes"]
    for noun in _absent(said, words.nouns, len(present), rng):
        yield "presence", f"Is there a {noun}?", ["no"]
    people = [
        Box("", tuple(box)) for entity in photo["entities"] if entity["type"] == "people" for box in entity["boxes"]
    ]
    count = len(_distinct(sorted(people, key=lambda box: box.xyxy)))
    if count or not said & PEOPLE:
        yield "count", "How many people are there?", [str(count) if count < 5 else "many"]
    colours: dict[str, set[str]] = defaultdict(set)
    for entity in photo["entities"]:
        for phrase in entity["phrases"]:
            *before, noun = [word.replace("grey", "gray") for word in _words(phrase)] or [""]
            named = [word for word in before if word in COLOURS]
            if len(named) == 1 and noun in nouns:
                colours[noun].add(named[0])
    for noun, named in colours.items():
        yield "colour", f"What color is the {noun}?", sorted(named)
    doing = []
    for text in _captions(photo):
        verb = next((word for word in _words(text)[1:] if word in words.verbs), None)
        doing += [verb] if verb else []
    if doing:
        who = "dog" if "dog" in said and not said & PEOPLE else "person"
        yield "doing", f"What is the {who} doing?", [verb for verb, _ in Counter(doing).most_common()]


def _absent(said: set[str], nouns: Sequence[str], count: int, rng: random.Random) -> list[str]:
    chosen: list[str] = []
    for _ in range(50 * count):
        noun = rng.choice(nouns)
        forms = {noun, f"{noun}s", noun.rstrip("s")}
        if len(chosen) < count and not forms & said and not (noun in PEOPLE and said & PEOPLE) and noun not in chosen:
            chosen.append(noun)
    return chosen


def clean(text: str) -> str:
    """``A dog runs .`` -> ``A dog runs.``"""
    text = re.sub(r"\s+([.,!?;:'])", r"\1", " ".join(text.split())).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _captions(photo: dict) -> list[str]:
    return [caption["text"] for caption in photo["captions"]]


def _phrases(photo: dict) -> list[str]:
    return [phrase for entity in photo["entities"] for phrase in entity["phrases"]]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _head(phrase: str) -> str:
    return (_words(phrase) or [""])[-1]


def _is_verb(word: str) -> bool:
    return word.endswith("ing") and len(word) > 4 and word not in _NO_VERBS


def _union(boxes: Sequence[tuple]) -> tuple[int, int, int, int] | None:
    """The box around all; None for none or a sliver."""
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    whole = (min(left), min(top), min(max(right), SCALE), min(max(bottom), SCALE))
    return whole if min(whole[2] - whole[0], whole[3] - whole[1]) >= 5 else None


def _distinct(boxes: Sequence[Box]) -> list[Box]:
    """Without those that overlap an earlier one of the same label nearly whole."""
    kept: list[Box] = []
    for box in boxes:
        if not any(other.label == box.label and overlap(other.xyxy, box.xyxy) > _SAME for other in kept):
            kept.append(box)
    return kept
