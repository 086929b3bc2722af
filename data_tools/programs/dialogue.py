"""``dialogue``: text-only conversation, so that a model trained on images still answers text. Made from templates."""

import itertools
import random
from collections.abc import Iterator

from data_tools.output import Unit
from data_tools.program import Program, generation_options, output_of, register
from data_tools.writer import generator
from varytoy.data.samples import parse_sample

_GREETINGS = ("Hello!", "Hi.", "Good morning.", "Hey there!")
_WELCOMES = ("Hello! Give me a picture and I will read it.", "Hello! How can I help?")
_ABOUT = {
    "Who are you?": "I am {name}, a model that reads pictures.",
    "What can you do?": "I read text, find objects, describe pictures and answer questions about them.",
    "Can you see?": "I can look at a picture that you give me.",
    "Are you a person?": "No, I am a language model.",
    "Do you make mistakes?": "Yes. Please check what I read.",
    "Thank you!": "You are welcome.",
    "Goodbye.": "Goodbye!",
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = "apple river stone window garden paper yellow seven bread music winter table orange light metal".split()


def dialogues(count: int, seed: int, name: str = "Vary-toy") -> Iterator[dict]:
    """``count`` sample rows without images, of one to three turns; ``name``: what the model calls itself."""
    for index in range(count):
        rng = generator(seed, "dialogue", index)
        messages = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            question, answer = _turn(rng, name)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield {"id": f"dialogue-{seed}-{index}", "task": "chat", "messages": messages, "images": []}


def _turn(rng: random.Random, name: str) -> tuple[str, str]:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(_GREETINGS), rng.choice(_WELCOMES)
    if kind == 1:
        question, answer = rng.choice(list(_ABOUT.items()))
        return question, answer.format(name=name)
    if kind == 2:
        first, second = rng.randint(0, 10), rng.randint(0, 10)
        return f"What is {first} plus {second}?", str(first + second)
    if kind == 3:
        number = rng.randint(0, 10)
        return f"Write {number} as a word.", _NUMBERS[number]
    word = rng.choice(_WORDS)
    if kind == 4:
        return f"Repeat this word: {word}", word
    return f"Spell the word {word}.", " ".join(word)


@register
class Dialogue(Program):
    name = "dialogue"
    help = "generate text-only conversations"

    def options(self, parser):
        generation_options(parser, "number of conversations")
        parser.add_argument("--name", default="Vary-toy", help="what the model calls itself")

    def run(self, options):
        with output_of(options, {"templates of varytoy": "Apache-2.0"}) as output:
            for row in itertools.islice(dialogues(options.count, options.seed, options.name), output.units, None):
                parse_sample(row, options.out, row["id"])
                output.add(Unit(rows=[row]))
