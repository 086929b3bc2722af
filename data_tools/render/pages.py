"""Pages: whole documents in one to three columns, as text or as markdown."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data_tools.assets import languages
from data_tools.assets.packages import SourceError
from data_tools.program import share, span
from data_tools.render.composer import Composer
from data_tools.render.degrade import degrade
from data_tools.render.document import Document
from data_tools.render.glyphs import MissingLetter
from data_tools.render.kind import Kind, register
from data_tools.render.layout import lay_out
from data_tools.render.markdown import to_markdown
from data_tools.render.regions import asked_for, part_of
from data_tools.render.sheet import Sheet
from data_tools.render.texts import Mapped, typographic
from data_tools.render.themes import Theme, alphabet, random_theme
from data_tools.writer import generator, question_row
from varytoy.data.boxes import Box
from varytoy.extras import require
from varytoy.options import positive
from varytoy.tasks import TASKS

PAPERS = {"a4": (1.0, 1.4142), "letter": (1.0, 1.2941), "square": (1.0, 1.0), "slide": (1.7778, 1.0)}
"""Name -> width and height, in any unit."""
_MIXED = ("a4", "a4", "a4", "letter", "letter", "square", "slide")
_TRIES, _LEAST_WORDS = 12, 25


@dataclass(frozen=True)
class PageOptions:
    """What to render; ``size``: pixels of the longer side; ``lines``, ``columns``: ranges."""

    size: int = 1024
    paper: str = "mixed"
    lines: tuple[int, int] = (18, 55)
    columns: tuple[int, int] = (1, 3)
    languages: tuple[str, ...] = (languages.ENGLISH,)
    degrade: float = 0.4
    task: str = "either"
    formulas: bool = True
    inverted: float = 0.06
    typographic: float = 0.0
    """Share of the pages whose quotes and apostrophes are typographic (\u201c \u201d \u2018 \u2019)."""


class PageRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, source: Path, seed: int, split: str = "train", options: PageOptions | None = None):
        self.source, self.seed, self.split = source, seed, split
        self.options = options or PageOptions()
        self._letters: dict[str, str] = {}
        for language in self.options.languages:
            languages.fonts(source, split, language)  # raises if they are missing
            self._letters[language] = alphabet(languages.paragraphs(source, split, language))
        try:
            self._code = languages.code(source, split)
        except SourceError:
            self._code = ()

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "pages", self.split, index)
        task = self.options.task if self.options.task not in ("either",) else rng.choice(("ocr", "markdown"))
        language = rng.choice(self.options.languages)
        sheet, document, theme = self.compose(rng, language, formulas=self.options.formulas and task == "markdown")
        image, boxes = sheet.draw()
        image, boxes = degrade(image, boxes, rng, self.options.degrade, theme.paper)
        metadata = {
            "language": language,
            "lines": len(sheet.lines),
            "columns": theme.columns,
            "font": theme.body[0].family,
            "letter_size": round(theme.size, 1),
        }
        rows = []
        for name in ("ocr", "markdown") if task == "both" else (task,):
            annotations = sheet.annotations(boxes)
            answer = sheet.text()
            if name == "markdown":
                annotations["plain_text"] = answer
                answer = to_markdown(document)
            elif name == "spot":
                answer = TASKS[name].answer(_lines_of(annotations))
            prompt = TASKS["ocr" if name == "region" else name].prompt("", rng if rng.random() < 0.5 else None)
            part = part_of(_lines_of(annotations), rng) if name == "region" else None
            if part:
                box, answer = part
                metadata["kind"], prompt, image = asked_for(box, image, rng)
            name = "ocr" if name == "region" else name
            row = question_row(name, prompt, answer, annotations=annotations, metadata=metadata)
            suffix = f"-{name}" if task == "both" else ""
            rows.append({"id": f"pages-{self.split}-{self.seed}-{index}{suffix}"} | row)
        return image, rows

    def compose(self, rng: random.Random, language: str, formulas: bool) -> tuple[Sheet, Document, Theme]:
        """A page, what it shows, and how it looks."""
        chosen = self.options
        paper = PAPERS[rng.choice(_MIXED) if chosen.paper == "mixed" else chosen.paper]
        size = tuple(round(chosen.size * side / max(paper)) for side in paper)
        texts: Sequence[str] = languages.prose_paragraphs(self.source, self.split, language)
        if chosen.typographic and rng.random() < chosen.typographic:
            texts = Mapped(texts, typographic)
        for _ in range(_TRIES):
            theme = random_theme(
                rng,
                self.source,
                self.split,
                language,
                self._letters[language],
                size,
                chosen.lines,
                chosen.columns,
                chosen.inverted,
            )
            emphasis = (theme.has_bold, theme.has_italic)
            try:
                composer = Composer(rng, texts, language, theme.covers, self._code, formulas, emphasis)
                header, footer = composer.running()
                notes = composer.notes()
                sheet, document = lay_out(composer.blocks(), theme, size, header, footer, notes)
            except MissingLetter:  # the fonts have those of few texts
                continue
            if len(sheet.words) >= _LEAST_WORDS:
                return sheet, document, theme
        raise ValueError("no page has room for a word: ask for more lines, or fewer columns")


def _lines_of(annotations: dict) -> list[Box]:
    """The lines of a page's annotations, with their texts as labels."""
    sides = annotations.get("line_boxes", ())
    boxes = zip(*(iter(sides),) * 4, strict=True)
    return [Box(text, box) for text, box in zip(annotations.get("lines", ()), boxes, strict=True)]


@register
class Pages(Kind):
    name = "pages"
    help = "document pages in one to three columns (OCR and markdown)"
    image_format = "jpeg"

    def options(self, parser):
        defaults = PageOptions()
        parser.add_argument("--size", type=positive, default=defaults.size, help="pixels of the longer side")
        help = f"shape of the page (default: {defaults.paper})"
        parser.add_argument("--paper", choices=("mixed", *PAPERS), default=defaults.paper, help=help)
        parser.add_argument("--lines", type=span, default=defaults.lines, help="lines of a column, e.g. 45 or 18-55")
        parser.add_argument("--columns", type=span, default=defaults.columns, help="e.g. 1 or 1-3")
        parser.add_argument("--degrade", type=share, default=defaults.degrade, help="strength of the scan, 0 to 1")
        help = "of the texts; several are mixed (default: en)"
        parser.add_argument(
            "--language", nargs="+", choices=languages.LANGUAGES, default=list(defaults.languages), help=help
        )
        help = "ocr, markdown, either of them for each page (default), both, spot, or region: a part by box or by frame"
        tasks = ("ocr", "markdown", "either", "both", "spot", "region")
        parser.add_argument("--task", choices=tasks, default="either", help=help)
        parser.add_argument("--no-formulas", action="store_true", help="no formulas, which need Matplotlib")
        parser.add_argument("--inverted", type=share, default=defaults.inverted, help="share of light text on dark")
        help = "share of pages with typographic quotes and apostrophes (default: 0)"
        parser.add_argument("--typographic", type=share, default=defaults.typographic, help=help)

    def renderer(self, options):
        if not options.no_formulas:
            require("train", "matplotlib", by="formulas on pages (leave them out with --no-formulas)")
        chosen = PageOptions(
            options.size,
            options.paper,
            options.lines,
            options.columns,
            tuple(options.language),
            options.degrade,
            options.task,
            not options.no_formulas,
            options.inverted,
            options.typographic,
        )
        return PageRenderer(options.source, options.seed, options.split, chosen)

    def sources(self, options):
        found = {
            name: kind for each in options.language for name, kind in languages.origins(each, options.split).items()
        }
        return found | languages.code_origins()
