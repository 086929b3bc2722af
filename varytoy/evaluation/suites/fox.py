"""Fox: dense pages in English and Chinese, read whole, by regions, lines and coloured boxes."""

from pathlib import Path

from varytoy.data.questions import first_file
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import fox
from varytoy.evaluation.suite import Suite, register
from varytoy.evaluation.suites.base import (
    checked,
    find,
    images_option,
    parts_option,
    read_list,
    with_pictures,
)

PARTS = {
    "en-page": ("en_page_ocr.json", ("en_pdf_png",)),
    "cn-page": ("cn_page_ocr.json", ("cn_pdf_png",)),
    "en-box": ("en_box_ocr.json", ("en_pdf_png",)),
    "cn-box": ("cn_box_ocr.json", ("cn_pdf_png",)),
    "en-line": ("en_line_ocr.json", ("en_pdf_png", "cn_pdf_png")),  # Fox's README names each other's folder
    "cn-line": ("cn_line_ocr.json", ("cn_pdf_png", "en_pdf_png")),
    "en-colour": ("en_onbox_ocr.json", ("en_pdf_png_onbox",)),
    "cn-colour": ("cn_onbox_ocr.json", ("cn_pdf_png_onbox",)),
}
"""Part -> its file, and the folders of its pictures."""


@register
class Fox(Suite):
    """Whole pages are the task ``ocr`` with its own prompt. Regions, lines and colours are asked in Fox's words, which
    hold the place, as the task ``chat``. Its translations, summaries, captions and several pages are left out."""

    name = "fox"
    help = "Fox's dense pages in English and Chinese (edit distance, F1, BLEU); groups: en-page, cn-page, …"
    layout = "en_page_ocr.json and en_pdf_png/, cn_page_ocr.json and cn_pdf_png/, … (Fox's focus_benchmark_test)"

    def options(self, parser):
        images_option(parser, "en_pdf_png/ and the others")
        parts_option(parser, "--parts", list(PARTS), "what is read (default: en-page and cn-page, if there)")
        help = "how pages are scored: fox-compat as the published figures, strict with empty answers as failures"
        parser.add_argument("--protocol", choices=fox.PROTOCOLS, default=fox.PROTOCOLS[0], help=help)

    def cases(self, folder, options):
        inside = ("", "focus_benchmark_test")
        parts = options.parts
        if not parts:
            find(folder, [PARTS[part][0] for part in ("en-page", "cn-page")], self.layout, inside)
            parts = [part for part in ("en-page", "cn-page") if self._has(folder, inside, PARTS[part][0])]
        cases: list[Case] = []
        for part in parts:
            name, folders = PARTS[part]
            file = find(folder, (name,), self.layout, inside)
            for number, (where, record) in enumerate(read_list(file, self.layout), 1):
                images = options.images or file.parent
                with checked(where, self.layout):
                    cases.append(_case(part, number, record, images, folders))
        return with_pictures(cases, "--images the folder that holds en_pdf_png/ and the others")

    @staticmethod
    def _has(folder: Path, inside: tuple[str, ...], name: str) -> bool:
        return any((folder / each / name).is_file() for each in inside)

    def metrics(self, options):
        return fox.page_scores(options.protocol)


def _case(part: str, number: int, record: dict, folder: Path, folders: tuple[str, ...]) -> Case:
    name = record["image"]
    if not isinstance(name, str):
        raise TypeError("image must be one file name")
    question, answer = (turn["value"] for turn in record["conversations"][:2])
    prompt = question.replace("<image>", "").strip()
    task = "ocr" if part.endswith("page") else "chat"
    if not isinstance(answer, str):
        raise TypeError(f"the answer {str(answer)[:80]!r} is not a text")
    if task == "chat" and not prompt:
        raise ValueError("a question without words")
    file = folder / first_file(folder, *(f"{each}/{name}" for each in folders))
    return Case(f"{part}-{number}", task, file, 1, "" if task == "ocr" else prompt, (answer,), group=part)
