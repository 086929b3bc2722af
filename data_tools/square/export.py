"""Kept questions as samples: short answers, answers with their reasons, and conversations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from data_tools.output import MANIFEST, SAMPLES
from data_tools.square.items import Item, Page
from data_tools.writer import generator
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.data.samples import digest, parse_sample
from varytoy.evaluation.run_folder import replace_lines
from varytoy.tasks import TASKS

FORMS = ("short", "reason", "turns")
WITH_REASON = "First answer the question and then give the reason."
"""Behind a question, for an answer in one line and its reason in the next."""


def rows(items: Sequence[Item], forms: Sequence[str], pages: Mapping[str, Page], seed: int) -> Iterator[dict]:
    """Sample rows of the questions that are kept, page by page, with the page's text (``annotations.plain_text``).

    Args:
        forms: of ``FORMS``: a sample for each short answer, for each answer with its reason, or for all questions about
            a page in turns.
    """
    kept = [item for item in items if not item.dropped]
    for page, group in groupby(kept, lambda item: item.page):
        asked, rng = list(group), generator(seed, "forms", page)
        image, text = pages[page].image, clean(pages[page].text)
        known = {"plain_text": text} if text else {}
        about = {"annotations": known} if known else {}
        for item in asked:
            question, answer = clean(item.question), clean(item.answer)
            more = {"metadata": {"square": item.id, "kind": item.kind} if item.kind else {"square": item.id}}
            if "short" in forms:
                prompt = TASKS["vqa"].prompt(question, rng)
                right = {"references": [clean(each) for each in item.answers or [item.answer]]}
                yield sample_row(item.id, "vqa", [(prompt, answer)], image) | {"annotations": known | right} | more
            if "reason" in forms and item.reason:
                turn = (f"{question} {WITH_REASON}", f"{answer}\n{clean(item.reason)}")
                yield sample_row(f"{item.id}-reason", "chat", [turn], image) | about | more
        if "turns" in forms:
            turns = [(clean(item.question), clean(item.answer)) for item in asked]
            yield sample_row(f"{page}-turns", "chat", turns, image) | about


def sample_row(name: str, task: str, turns: Sequence[tuple[str, str]], image: str) -> dict:
    """A sample of turns (prompt, answer) about an image."""
    messages = []
    for prompt, answer in turns:
        before = "" if messages else f"{IMAGE_PLACEHOLDER}\n"
        messages += [{"role": "user", "content": before + prompt}, {"role": "assistant", "content": answer}]
    return {"id": name, "task": task, "messages": messages, "images": [image]}


def clean(text: str) -> str:
    """A model's words, without the placeholder of images."""
    return text.replace(IMAGE_PLACEHOLDER, "image")


def write(folder: Path, samples: Sequence[dict], about: Mapping) -> None:
    """``samples.jsonl`` and ``manifest.json``."""
    for row in samples:
        parse_sample(row, folder, row["id"])
    replace_lines(folder / SAMPLES, samples)
    manifest = {**about, "samples": len(samples), "sha256": {SAMPLES: digest([folder / SAMPLES])}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
