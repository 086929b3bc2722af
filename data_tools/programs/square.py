"""``square``: questions, answers and reasons about pictures, made by a model and filtered."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from data_tools.program import Program, register
from data_tools.square import backends, captions, export
from data_tools.square.asking import Asker, Budget, Stopped
from data_tools.square.items import Page
from data_tools.square.pages import OCR, read_texts, take_in
from data_tools.square.pipeline import Pipeline, check_settings
from data_tools.square.prompts import LATEST, Prompts
from data_tools.square.replies import Replies
from data_tools.square.stages import Questions
from varytoy.evaluation.run_folder import replace_lines
from varytoy.folder_lock import locked
from varytoy.options import positive

_ASKED = (
    "backend",
    "model",
    "ocr",
    "questions",
    "templates",
    "reword",
    "text_only",
    "captions",
    "size",
    "temperature",
    "seed",
)
"""Options that the replies depend on."""


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"'{text}' is not a temperature from 0 to 2")
    return value


@register
class Square(Program):
    name = "square"
    help = "let a model ask and answer questions about pictures, and keep those that pass the filters"

    def options(self, parser):
        parser.add_argument(
            "source", type=Path, help="picture, PDF, folder of them, or samples (folder, .jsonl, shard)"
        )
        parser.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="folder; it is resumed if it has a run"
        )
        parser.add_argument("--backend", required=True, help=f"who is asked: {backends.BACKENDS}")
        parser.add_argument("--model", default="", help="name at the server of openai:URL (default: its first)")
        help = "who reads the text that goes into the prompts; samples: theirs (default: none)"
        parser.add_argument("--ocr", choices=OCR, default="none", help=help)
        parser.add_argument("--questions", type=positive, default=5, metavar="N", help="a page (default: 5)")
        help = "ask rendered pages from what they are known to say; the model only finds other words"
        parser.add_argument("--templates", action="store_true", help=help)
        parser.add_argument("--no-reword", dest="reword", action="store_false", help="leave the templates' words")
        help = "ask by the text alone: answers must stand in it, and no picture is sent (needs --ocr)"
        parser.add_argument("--text-only", action="store_true", help=help)
        parser.add_argument("--size", type=positive, default=1280, help="pixels of a picture's longer side, at most")
        parser.add_argument("--temperature", type=_temperature, default=0.0, help="0 to 2 (default: 0)")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--concurrency", type=positive, default=4, help="requests at once (openai:URL; default: 4)")
        parser.add_argument("--timeout", type=positive, default=120, help="seconds of a request (default: 120)")
        parser.add_argument("--max-requests", type=positive, default=0, metavar="N", help="stop after so many, in all")
        parser.add_argument("--max-tokens", type=positive, default=0, metavar="N", help="stop after so many, in all")
        help = "what becomes of a question: a short answer, an answer with its reason, all of a page in turns"
        parser.add_argument("--forms", nargs="+", choices=export.FORMS, default=["short", "reason"], help=help)
        parser.add_argument("--keep-going", action="store_true", help="ask about dropped questions too")
        help = "in place of questions: describe pictures with their text, kept where --ocr finds what is quoted"
        parser.add_argument("--captions", action="store_true", help=help)

    def run(self, options):
        for name in ("text_only", "captions"):
            if getattr(options, name) and options.ocr == "none":
                raise ValueError(f"--{name.replace('_', '-')} needs the text: add --ocr varytoy, or another reader")
        if options.captions and options.text_only:
            raise ValueError("--captions needs the pictures, which --text-only does not send: give one of them")
        with locked(options.out, "name another --out"):
            return _run(options)


def _run(options) -> int:
    prompts, budget = Prompts.read(LATEST), Budget(options.max_requests, options.max_tokens)
    backend = backends.choose(options.backend, options.model, options.concurrency, float(options.timeout))
    try:
        asked = {name: getattr(options, name) for name in _ASKED} | {"prompts": prompts.version, "model": backend.name}
        check_settings(options.out, {"source": str(options.source), **asked})
        pages = take_in(options.source, options.out, options.size, print)
        read_texts(pages, options.out, options.ocr, print)
        shown = None if options.text_only else options.out
        asker = Asker(backend, prompts, budget, shown, options.temperature, options.seed)
        made = _captions if options.captions else _questions
        samples, found, told = made(options, asker, pages)
    except Stopped as stopped:
        print(f"stopped: {stopped}")
        return 1
    finally:
        backend.close()
    about = {"made by": f"varytoy {version('varytoy')}", "settings": asked, **found}
    about |= {"requests": budget.requests, "tokens": budget.tokens}
    export.write(options.out, samples, about)
    print("\n".join(told))
    print(f"{budget.requests:,} requests, {budget.tokens:,} tokens; {len(samples):,} samples in {options.out}")
    return 0


def _questions(options, asker: Asker, pages: Sequence[Page]) -> tuple[list[dict], dict, list[str]]:
    """Samples, what the manifest says of them, and lines for people."""
    questions = Questions(options.questions, options.seed, options.templates, options.text_only, options.reword)
    items, found = Pipeline(options.out, asker, questions, options.keep_going).run(pages)
    samples = list(export.rows(items, options.forms, {page.id: page for page in pages}, options.seed))
    return samples, {"questions": found.left, "dropped": dict(found.reasons)}, found.lines()


def _captions(options, asker: Asker, pages: Sequence[Page]) -> tuple[list[dict], dict, list[str]]:
    """As ``_questions``."""
    replies = Replies(options.out / f"{captions.STAGE}.jsonl")
    asker.budget.requests, asker.budget.tokens = replies.requests, replies.tokens
    asker.ask([captions.ask(page) for page in pages], replies, captions.STAGE)
    asker.check()
    found = captions.judged(pages, replies)
    replace_lines(options.out / "captions.jsonl", [asdict(each) for each in found])
    kept = [(page, each) for page, each in zip(pages, found, strict=True) if not each.dropped]
    reasons = Counter(each.dropped for each in found if each.dropped)
    told = [f"{len(pages):>8,} pages", f"{len(kept):>8,} captions kept"]
    told += [f"{count:>8,} dropped: {reason}" for reason, count in reasons.most_common()]
    return [captions.row(page, each, options.seed) for page, each in kept], {"dropped": dict(reasons)}, told
