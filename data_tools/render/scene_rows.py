"""Samples of one scene, in English: detection, grounding, caption, questions and answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_tools.render.colours import CONFUSABLE, PAINTS
from data_tools.render.pictures import picture_classes
from data_tools.writer import question_row
from varytoy.data.boxes import Box
from varytoy.tasks import TASKS

APART = 0.1
"""Centres must differ by this share of the image for "left", "above" and similar words."""
BIGGER = 1.6
"""Minimum ratio of box areas for "bigger" and "smaller"."""
QUESTIONS = 3
"""Maximum number of questions about a scene."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_PLURALS = {"fish": "fish", "sheep": "sheep", "tomato": "tomatoes"}


@dataclass(frozen=True)
class Thing:
    """A pasted cut-out: class, measured colour word or None, xyxy in pixels, and whether it is held out of training."""

    name: str
    colour: str | None
    box: tuple[int, int, int, int]
    held_out: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> int:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Scene:
    """Pixels, things ordered left to right then top to bottom, the caption's words about the background."""

    width: int
    height: int
    things: tuple[Thing, ...]
    background: str = ""
    background_held_out: bool = False

    @property
    def names(self) -> list[str]:
        """Class names in order of first appearance."""
        return list(dict.fromkeys(thing.name for thing in self.things))

    def named(self, name: str) -> list[Thing]:
        return [thing for thing in self.things if thing.name == name]

    def box(self, thing: Thing) -> Box:
        return Box.from_pixels(thing.name, thing.box, self.width, self.height)

    def metadata(self) -> dict:
        """Which parts are held out of training."""
        unseen = sorted({thing.name for thing in self.things if thing.held_out})
        return ({"held_out": unseen} if unseen else {}) | (
            {"held_out_background": True} if self.background_held_out else {}
        )


def scene_rows(scene: Scene, classes: Sequence[str], name: str, rng: random.Random) -> list[dict]:
    """All rows of a scene: detect, ground (two where there are things), caption, vqa (up to QUESTIONS).

    ``classes``: all names that a scene may contain; absent ones are asked for too.
    """
    entries = [_detect(scene, classes, rng), *_ground(scene, rng), _caption(scene, rng)]
    entries += _questions(scene, classes, rng)
    return [entry.row(f"{name}-{number}", scene) for number, entry in enumerate(entries)]


@dataclass(frozen=True)
class _Entry:
    """A row without the path of its image."""

    task: str
    prompt: str
    answer: str
    boxes: Sequence[Box] = ()
    annotations: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)

    def row(self, name: str, scene: Scene) -> dict:
        metadata = self.metadata | scene.metadata()
        row = question_row(self.task, self.prompt, self.answer, self.boxes, self.annotations, metadata)
        return {"id": name, **row}


# ---- words ----


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    if name in _PLURALS:
        return _PLURALS[name]
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "sh", "ch", "x", "z")) else "s")


def listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ---- rows ----


def _detect(scene: Scene, classes: Sequence[str], rng: random.Random) -> _Entry:
    """All objects; or, one time in four, one to three named classes, which may be absent."""
    chosen: list[str] = []
    things = list(scene.things)
    if rng.random() < 0.25:
        present = rng.sample(scene.names, min(len(scene.names), rng.randint(0, 2)))
        absent = [_absent(scene, classes, rng)] if not present or rng.random() < 0.3 else []
        chosen = present + [name for name in absent if name]
        rng.shuffle(chosen)
        things = [thing for thing in things if thing.name in chosen] if chosen else things
    boxes = [scene.box(thing) for thing in things]
    task = TASKS["detect"]
    annotations = {"classes": chosen} if chosen else {}
    return _Entry("detect", task.prompt(", ".join(chosen), rng), task.answer(boxes), boxes, annotations)


def _ground(scene: Scene, rng: random.Random) -> list[_Entry]:
    """Two things by a phrase; those that share their class with another come first, three times in four."""
    crowded = [thing for thing in scene.things if len(scene.named(thing.name)) > 1]
    alone = [thing for thing in scene.things if thing not in crowded]
    rng.shuffle(crowded)
    rng.shuffle(alone)
    entries: list[_Entry] = []
    for thing in crowded + alone if rng.random() < 0.75 else alone + crowded:
        choices = phrases(scene, thing)
        if choices and len(entries) < 2:
            kinds = sorted({kind for _, kind in choices})
            kind = "colour" if "colour" in kinds and rng.random() < 0.5 else rng.choice(kinds)
            phrase = rng.choice([phrase for phrase, its_kind in choices if its_kind == kind])
            box, task = scene.box(thing), TASKS["ground"]
            metadata = {"phrase": phrase, "kind": kind}
            prompt = task.prompt(phrase, rng)
            entries.append(_Entry("ground", prompt, task.answer(box), [box], metadata=metadata))
    return entries


def phrases(scene: Scene, thing: Thing) -> list[tuple[str, str]]:
    """(phrase, kind) that refer to this thing only; kind is name, colour, place or size."""
    others = [other for other in scene.named(thing.name) if other is not thing]
    if not others:
        return [(f"the {thing.name}", "name")]
    pairs = [(f"the {thing.colour} {thing.name}", "colour")] if _colour_is_unique(thing, others) else []
    for axis, low, high in ((0, "left", "right"), (1, "top", "bottom")):
        gap = APART * (scene.width, scene.height)[axis]
        here, there = thing.centre[axis], [other.centre[axis] for other in others]
        word = low if here + gap <= min(there) else high if here - gap >= max(there) else ""
        if word:
            edge = f"the {word}{'most' if axis == 0 and len(others) > 1 else ''} {thing.name}"
            pairs += [(edge, "place"), (f"the {thing.name} {'on' if axis == 0 else 'at'} the {word}", "place")]
    ending = "er" if len(others) == 1 else "est"
    if all(thing.area >= BIGGER * other.area for other in others):
        pairs.append((f"the {'bigg' + ending} {thing.name}", "size"))
    if all(other.area >= BIGGER * thing.area for other in others):
        pairs.append((f"the {'small' + ending} {thing.name}", "size"))
    return pairs


def _colour_is_unique(thing: Thing, others: Sequence[Thing]) -> bool:
    return thing.colour is not None and all(other.colour and distinct(thing.colour, other.colour) for other in others)


def distinct(first: str, second: str) -> bool:
    """Whether two colour words are reliably told apart."""
    return first != second and frozenset((first, second)) not in CONFUSABLE


def _caption(scene: Scene, rng: random.Random) -> _Entry:
    annotations = {"object_names": scene.names}
    return _Entry("caption", TASKS["caption"].prompt("", rng), caption(scene), annotations=annotations)


def caption(scene: Scene) -> str:
    """``Two cats, a red car and a bus on grass.``; colours only of classes that come in any colour."""
    if not scene.things:
        return "An empty background."
    parts = []
    for name in scene.names:
        same = scene.named(name)
        colours = {thing.colour for thing in same}
        kind = picture_classes().get(name)
        colour = colours.pop() if len(colours) == 1 and kind and kind.colour == "paint" else None
        words = f"{colour} " if colour else ""
        parts.append(article(words + name) if len(same) == 1 else f"{NUMBERS[len(same)]} {words}{plural(name)}")
    text = " ".join([listing(parts), scene.background]).strip()
    return f"{text[0].upper()}{text[1:]}."


# ---- questions ----


def _questions(scene: Scene, classes: Sequence[str], rng: random.Random) -> list[_Entry]:
    """QUESTIONS different ones, or fewer if the scene allows no more."""
    kinds = [_presence, _count, _colour, _side, _extreme, _has_colour, _which]
    weights = [3, 3, 2, 2, 1, 1, 1]
    entries: dict[str, _Entry] = {}
    for _ in range(12):
        question_answer = rng.choices(kinds, weights)[0](scene, classes, rng)
        if question_answer and len(entries) < QUESTIONS:
            question, answer, kind = question_answer
            prompt = TASKS["vqa"].prompt(question, rng)
            entries.setdefault(question, _Entry("vqa", prompt, answer, metadata={"kind": kind}))
    return list(entries.values())


def _absent(scene: Scene, classes: Sequence[str], rng: random.Random) -> str:
    return rng.choice([name for name in classes if name not in scene.names] or [""])


def _presence(scene, classes, rng):
    """The answer is yes half of the time; present and absent classes are drawn from the same list."""
    yes = rng.random() < 0.5
    if yes and not scene.things:
        return None
    name = rng.choice(scene.names) if yes else _absent(scene, classes, rng)
    form = rng.choice(("Is there {} in the image?", "Can you see {}?", "Does the picture show {}?"))
    return (form.format(article(name)), "yes" if yes else "no", "presence") if name else None


def _count(scene, classes, rng):
    """One in five has the answer 0; larger numbers are preferred, so that "1" is not a safe guess."""
    if rng.random() < 0.2:
        return "How many objects are there?", str(len(scene.things)), "count"
    by_number: dict[int, list[str]] = {}
    for name in scene.names:
        by_number.setdefault(len(scene.named(name)), []).append(name)
    if not by_number or rng.random() < 0.2:
        by_number = {0: [_absent(scene, classes, rng)]}
    numbers = sorted(by_number)
    number = rng.choices(numbers, [max(number, 1) for number in numbers])[0]
    name = rng.choice(by_number[number])
    form = rng.choice(("How many {} are there?", "How many {} do you see?"))
    return (form.format(plural(name)), str(number), "count") if name else None


def _unambiguous(scene: Scene, rng: random.Random, coloured: bool = False) -> tuple[str, Thing] | None:
    """A phrase for one thing that ends with its class and does not name its colour, and the thing."""
    things = [thing for thing in scene.things if thing.colour or not coloured]
    rng.shuffle(things)
    for thing in things:
        choices = [words for words, kind in phrases(scene, thing) if kind != "colour" and words.endswith(thing.name)]
        if choices:
            return rng.choice(choices), thing
    return None


def _colour(scene, classes, rng):
    phrase = _unambiguous(scene, rng, coloured=True)
    word = rng.choice(("color", "colour"))
    return phrase and (f"What {word} is {phrase[0]}?", phrase[1].colour, "colour")


def _has_colour(scene, classes, rng):
    """Only for classes that come in any colour: "Is the apple blue?" needs no image."""
    phrase = _unambiguous(scene, rng, coloured=True)
    kind = phrase and picture_classes().get(phrase[1].name)
    if not kind or kind.colour != "paint" or phrase[1].colour not in PAINTS:
        return None
    yes = rng.random() < 0.5
    colour = phrase[1].colour if yes else rng.choice([word for word in PAINTS if distinct(word, phrase[1].colour)])
    return f"Is {phrase[0]} {colour}?", "yes" if yes else "no", "has colour"


def _two(scene: Scene, rng: random.Random) -> tuple[Thing, Thing, int] | None:
    """Two things, each the only one of its class, and an axis (0 across, 1 down) on which they are APART."""
    alone = [thing for thing in scene.things if len(scene.named(thing.name)) == 1]
    if len(alone) < 2:
        return None
    first, second = rng.sample(alone, 2)
    axis = rng.randrange(2)
    gap = abs(first.centre[axis] - second.centre[axis])
    return (first, second, axis) if gap >= APART * (scene.width, scene.height)[axis] else None


_SIDES = (("left of", "right of"), ("above", "below"))


def _side(scene, classes, rng):
    """``Is the cat left of the dog?``, or a choice between the two words; both orders are equally likely."""
    two = _two(scene, rng)
    if not two:
        return None
    first, second, axis = two
    before = first.centre[axis] < second.centre[axis]
    if rng.random() < 0.5:
        side = rng.randrange(2)
        question = f"Is the {first.name} {_SIDES[axis][side]} the {second.name}?"
        return question, "yes" if before == (side == 0) else "no", "place, yes or no"
    if axis == 0:
        question = f"Is the {first.name} to the left or to the right of the {second.name}?"
        return question, "left" if before else "right", "place"
    return f"Is the {first.name} above or below the {second.name}?", "above" if before else "below", "place"


def _extreme(scene, classes, rng):
    """The outermost thing on one side, if it is APART from the next."""
    axis, last = rng.randrange(2), rng.random() < 0.5
    ordered = sorted(scene.things, key=lambda thing: thing.centre[axis], reverse=last)
    gap = APART * (scene.width, scene.height)[axis]
    if len(ordered) < 2 or abs(ordered[0].centre[axis] - ordered[1].centre[axis]) < gap:
        return None
    word = (("leftmost", "rightmost"), ("top", "bottom"))[axis][last]
    return f"Which object is the {word} one?", ordered[0].name, "which"


def _which(scene, classes, rng):
    """``Which object is left of the dog?`` if exactly one is, and all others are APART from the dog."""
    two = _two(scene, rng)
    if not two:
        return None
    _, second, axis = two
    word, sign = _SIDES[axis][0], 1
    if rng.random() < 0.5:
        word, sign = _SIDES[axis][1], -1
    others = [thing for thing in scene.things if thing is not second]
    gap = APART * (scene.width, scene.height)[axis]
    shifts = {thing: sign * (second.centre[axis] - thing.centre[axis]) for thing in others}
    there = [thing for thing, shift in shifts.items() if shift > 0]
    if len(there) != 1 or any(abs(shift) < gap for shift in shifts.values()):
        return None
    return f"Which object is {word} the {second.name}?", there[0].name, "which"
