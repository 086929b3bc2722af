"""OmniDocBench: pages of nine kinds of documents, whose parts are known."""

from typing import Any

from varytoy.data.questions import first_file
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import tables, text
from varytoy.evaluation.suite import Suite, register
from varytoy.evaluation.suites.base import checked, find, folder_of, images_option, read_list, with_pictures
from varytoy.evaluation.suites.markdown import task_option, write_markdown

LEFT_OUT = ("figure", "abandon", "header", "footer", "page_number", "page_footnote", "need_mask", "text_mask")
"""Kinds of parts that are no text of the page, and those that OmniDocBench's scorer ignores."""


@register
class OmniDocBench(Suite):
    """The truth is the page's parts in their order as markdown, formulas in LaTeX, tables in HTML. These metrics
    compare whole pages; OmniDocBench's own match part by part, and its figures come from its program (--markdown)."""

    name = "omnidocbench"
    help = (
        "OmniDocBench's pages as markdown (distances of whole pages; its own scorer with --markdown); groups: sources"
    )
    layout = "OmniDocBench.json, and images/"

    def options(self, parser):
        images_option(parser, "images/")
        task_option(parser)

    def cases(self, folder, options):
        file = find(folder, ("OmniDocBench.json",), self.layout)
        cases = []
        for number, (where, record) in enumerate(read_list(file, self.layout), 1):
            with checked(where, self.layout):
                name = record["page_info"]["image_path"]
                picture = folder_of(options, folder) / first_file(folder_of(options, folder), f"images/{name}", name)
                group = str(record["page_info"].get("page_attribute", {}).get("data_source", ""))
                truth = page_markdown(record["layout_dets"])
                cases.append(Case(f"{number}-{picture.stem}", options.task, picture, references=(truth,), group=group))
        return with_pictures(cases, "--images the folder that holds images/")

    def metrics(self, options):
        return [text.normalised_edit_distance(), tables.teds(), tables.markdown_similarity()]

    def write_markdown(self, folder, cases, predictions):
        """``NAME.md`` for ``images/NAME.jpg``."""
        write_markdown(folder, lambda case: f"{case.file.stem}.md", cases, predictions)


def page_markdown(parts: list[dict[str, Any]]) -> str:
    """The text of a page's ``layout_dets``. Raises what ``checked`` takes."""
    kept = [part for part in parts if part["category_type"] not in LEFT_OUT and not part.get("ignore")]
    ordered = sorted(kept, key=lambda part: (part.get("order") is None, part.get("order") or 0))
    return "\n\n".join(filter(None, map(_markdown, ordered)))


def _markdown(part: dict[str, Any]) -> str:
    kind = part["category_type"]
    if kind == "table":
        return str(part.get("html") or part.get("latex") or "").strip()
    if kind == "equation_isolated":
        formula = str(part.get("latex") or "").strip().strip("$").strip()
        return f"$$\n{formula}\n$$" if formula else ""
    words = str(part.get("text") or "").strip()
    return f"# {words}" if kind == "title" and words else words
