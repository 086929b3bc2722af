"""Pictures and documents with their text in files of the same name."""

from pathlib import Path

from varytoy.data.documents import DocumentError, open_pages
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import text
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import PICTURES, read_text, with_answers


class _Texts(Suite):
    suffixes: tuple[str, ...] = PICTURES

    def cases(self, folder, options):
        pairs = with_answers(folder, self.suffixes, ".txt", self.layout)
        return [self.case(file, read_text(answer).strip()) for file, answer in pairs]

    def case(self, file: Path, truth: str) -> Case:
        return Case(file.stem, "ocr", file, references=(truth,))

    def metrics(self, options):
        return reading_metrics()


def reading_metrics():
    """For the text of pages and blocks."""
    return [text.normalised_edit_distance(), text.character_error_rate(), text.word_error_rate(), text.word_f1()]


@register
class Blocks(_Texts):
    name = "blocks"
    help = "pictures of single blocks of text (edit distance, error rates)"
    layout = "NAME.png (or .jpg, …) with NAME.txt, in UTF-8"
    single_block = True


@register
class Pages(_Texts):
    name = "pages"
    help = "pages of documents, as pictures or PDFs of one page (edit distance, error rates)"
    layout = "NAME.pdf or NAME.png (or .jpg, …) with NAME.txt, in UTF-8"
    suffixes = (".pdf", *PICTURES)

    def case(self, file, truth):
        try:
            count = next(iter(open_pages(file, [1]))).page_count
        except DocumentError as error:
            raise SuiteError(f"{file}: {error}") from error
        if count > 1:
            raise SuiteError(f"{file} has {count} pages: give each a file of its own with its text")
        return super().case(file, truth)
