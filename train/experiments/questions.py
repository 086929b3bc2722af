"""``python -m train.experiments.questions``: does question data help a small model, and does filtering it help more?

Rendered receipts, forms, tables and charts are asked by the scripted model of ``data_tools square``, which errs in 30 %
of its answers. The model gets a page's text in place of its picture. All models begin with one that has only learned to
find and repeat parts of such texts, and train for the same number of steps: on all questions, on those that the filters
keep, on these with their reasons too, on the pages' own answers, and on the kept questions about a half to a sixteenth
of the pages. They are asked about pages with other layouts, fonts and values. Finished parts are not repeated.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

import varytoy
from data_tools.output import SAMPLES
from data_tools.square import export
from data_tools.square.agree import compare
from data_tools.square.backends.scripted import Scripted
from data_tools.square.items import Item, Page
from data_tools.square.pages import take_in
from data_tools.square.stages import Questions
from data_tools.writer import generator
from train.experiments.study import call, resuming
from train.published import save
from train.rendering import render
from train.run_folder import write_aside
from train.square import RENDERED, asked
from varytoy.data.answer import Answer
from varytoy.data.spots import CELL, parse_spots, text_in_rows
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metrics.questions import anls, relaxed_accuracy
from varytoy.evaluation.provenance import provenance
from varytoy.evaluation.run_folder import replace_lines
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.options import positive
from varytoy.tasks import TASKS

RECIPES = Path(__file__).with_name("recipes")
UNSEEN = {
    "receipts": ("layout", ("columns",)),
    "forms": ("layout", ("plain, 2 columns", "line, 2 columns", "box, 2 columns")),
    "tables": ("rules", ("striped",)),
    "charts": ("form", ("horizontal",)),
}
"""What the test pages look like, and no training page: key of the metadata, values."""
MISTAKES = "wrong=0.25"
"""With the questions that have no answer or no meaning, 30 % of the answers are wrong."""
FEWER = (16, 8, 4, 2)
"""Of every so many pages the kept questions about one are an arm of its own, for the law of the number of questions."""
ARMS = ("all", "kept", "reasons", "true", *(f"kept-{part}" for part in FEWER))
_LONGEST = 600
"""Characters of a page's text."""
COLUMNS = (
    ("printed", "documents, ANLS"),
    ("printed", "charts, relaxed accuracy"),
    ("printed", "right"),
    ("read", "documents, ANLS"),
    ("read", "right"),
)
"""Text that the model gets, and figure, of the table."""
WHAT = "Answers about unseen rendered pages: with and without question data, filtered or not, of three seeds."
_ASKED = 8
"""Questions a page."""
_PARTS = 6
"""Of each page, to copy."""


def pages(folder: Path, source: Path, name: str, split: str, count: int, seed: int) -> list[Page]:
    """Pages of a kind with a known truth and a text of at most ``_LONGEST`` characters: for the split ``test`` of the
    layouts in ``UNSEEN``, for ``train`` of the others."""
    out = folder / f"{name}-{split}-{seed}"
    rendered, (key, values) = out / "rendered", UNSEEN[name]
    if not (rendered / "wanted.jsonl").is_file():
        more = count * (5 if split == "test" else 2)
        if render(RENDERED[name], rendered, more, seed, split, source):
            raise SystemExit(2)
        wanted = [
            row
            for row in map(json.loads, (rendered / SAMPLES).read_text(encoding="utf-8").splitlines())
            if "truth" in row["metadata"] and (row["metadata"][key] in values) == (split == "test")
        ]
        replace_lines(rendered / "wanted.jsonl", wanted)
    found = take_in(rendered / "wanted.jsonl", out / "pages", 1280, print)
    return [page for page in found if len(page.text) <= _LONGEST][:count]


def of_templates(pages: Sequence[Page], seed: int) -> list[Item]:
    """Questions that the pages can answer, with their own answers."""
    questions = Questions(_ASKED, seed, templates=True)
    return [item for page in pages for item in questions.of_template(page) if item.kind != "unanswerable"]


def write_arms(folder: Path, source: Path, count: int, seed: int) -> dict[str, Path]:
    """The samples of each arm, and of ``copies``, which all begin with; made if they are not there.

    Args:
        count: pages of each kind.
    """
    files = {arm: folder / f"{arm}.jsonl" for arm in ("copies", *ARMS)}
    if all(file.is_file() for file in files.values()):
        return files
    rows: dict[str, list[dict]] = {arm: [] for arm in files}
    backend, wrong, total = Scripted.parse(MISTAKES), 0, 0
    for name in RENDERED:
        own = pages(folder, source, name, "train", count, seed)
        place, known = Path(f"{name}-train-{seed}/pages"), {page.id: page for page in own}
        items = [item for item in asked(backend, folder / place, own, Questions(_ASKED, seed)) if item.answer]
        right = [backend.is_right(known[item.page], seed, item.question, item.answer) for item in items]
        wrong, total = wrong + right.count(False), total + len(right)
        kept = [item for item in items if not item.dropped]
        everything = [replace(item, dropped="") for item in items]
        arms = {
            "all": export.rows(everything, ("short",), known, seed),
            "kept": export.rows(kept, ("short",), known, seed),
            "reasons": export.rows(kept, ("short", "reason"), known, seed),
            "true": export.rows(of_templates(own, seed), ("short",), known, seed),
            "copies": copies(own, seed),
        }
        for arm in rows.keys() & arms:
            for row in arms[arm]:
                images = [str(place / image) for image in row["images"]]
                rows[arm].append(row | {"id": f"{name}-{row['id']}", "images": images})
    for part in FEWER:
        some = set(list(dict.fromkeys(row["images"][0] for row in rows["kept"]))[::part])
        rows[f"kept-{part}"] = [row for row in rows["kept"] if row["images"][0] in some]
    print(f"{total:,} questions, {wrong / max(total, 1):.1%} of the answers wrong")
    for arm, file in files.items():
        replace_lines(file, rows[arm])
    return files


def copies(pages: Sequence[Page], seed: int) -> Iterator[dict]:
    """Samples that ask to repeat parts of pages and to find what stands in them, which no question data is needed for:
    copying is learned from short texts first. Samples about one part follow each other."""
    for number in range(_PARTS):
        for page in pages:
            rng, lines = generator(seed, "copies", page.id, number), page.text.split("\n")
            long = number % 3 == 2
            count = len(lines) if long else rng.randint(3, 7)
            start = rng.randrange(max(len(lines) - count, 0) + 1)
            own = lines[start : start + count]
            text = "\n".join(own)
            turns = [] if long else [("Repeat the text.", text)]
            cells = [line.split(CELL, 1) for line in own if CELL in line]
            for name, rest in rng.sample(cells, min(len(cells), 6 if long else 2)):
                turns.append((f'What stands after "{name}"?', rest))
            for line in rng.choices(own, k=4 if long else 1):
                words = line.split()
                if len(words) > 2:
                    at = rng.randrange(1, len(words) - 1)
                    turns.append((f"Go on: {' '.join(words[max(at - 2, 0) : at])}", " ".join(words[at:])))
            for place, turn in enumerate(turns):
                name = f"{page.id}-copy-{number}-{place}"
                yield export.sample_row(name, "chat", [turn], page.image) | {"annotations": {"plain_text": text}}


def unseen(folder: Path, source: Path, count: int, seed: int) -> list[dict]:
    """Questions about unseen pages, each with the page's ``printed`` text and the text as nano ``read`` it (empty for
    charts, which it cannot read); made if they are not there."""
    file = folder / "test.jsonl"
    if not file.is_file():
        reader, rows = Reader.from_pretrained(str(varytoy.NANO), "cpu"), []
        for name in RENDERED:
            own = pages(folder, source, name, "test", count, seed)
            read = {}
            for page in tqdm(own if name != "charts" else (), desc=f"reading {name}"):
                answer = reader.ask(str(folder / f"{name}-test-{seed}" / "pages" / page.image), task="spot")
                read[page.id] = text_in_rows(parse_spots(answer.text).lines)
            texts = {page.id: page.text for page in own}
            for item in of_templates(own, seed):
                about = {"of": name, "kind": item.kind, "question": item.question, "answers": item.answers}
                rows.append(about | {"printed": texts[item.page], "read": read.get(item.page, "")})
        replace_lines(file, rows)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def answers(model: str, rows: Sequence[Mapping], text: str) -> list[str]:
    """What a model answers to test questions from their ``printed`` or ``read`` text."""
    engine = Reader.from_pretrained(model, "cpu").engine
    requests = []
    for number, row in enumerate(rows):
        question = TASKS["vqa"].prompt(row["question"], random.Random(number))
        message = {"role": "user", "content": f"{row[text]}\n\n{question}"}
        requests.append(Request([message], max_new_tokens=40))
    found: list[Answer] = []
    for start in tqdm(range(0, len(requests), 16), desc=f"{model}, {text}"):
        found += engine.generate(requests[start : start + 16])
    return [answer.text for answer in found]


def scores(rows: Sequence[Mapping], said: Sequence[str]) -> dict[str, float]:
    """ANLS of the questions about documents, relaxed accuracy of those about charts, and the share of right answers
    (``data_tools.square.agree``) of each kind of page and of question."""
    groups: dict[str, list[float]] = {}
    metrics = {"documents, ANLS": anls(), "charts, relaxed accuracy": relaxed_accuracy()}
    for number, (row, text) in enumerate(zip(rows, said, strict=True)):
        case = Case(str(number), "vqa", Path(), references=tuple(row["answers"]))
        name = "charts, relaxed accuracy" if row["of"] == "charts" else "documents, ANLS"
        groups.setdefault(name, []).append(float(metrics[name].score(Prediction(text), case)))
        right = float(any(compare(text, each).same for each in row["answers"]))
        for group in ("right", f"right, {row['of']}", f"right, {row['kind']}"):
            groups.setdefault(group, []).append(right)
    return {name: sum(values) / len(values) for name, values in sorted(groups.items())}


def trained(folder: Path, data: Path, name: str, start: str, steps: int, seed: int) -> Path:
    """Train a model, if that was not done."""
    out = folder / "runs" / f"{name}-{seed}"
    if not (out / "model.safetensors").is_file():
        words = [f"model.init=[{start}]", f"data.0.path={data}", f"train.seed={seed}", f"train.max_steps={steps}"]
        call("run", str(RECIPES / "questions.yaml"), *words, f"output={out}", *resuming(out))
    return out


def measured(model: Path, rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """``scores`` of a model by the text that it gets; kept in its folder."""
    file = model / "questions.json"
    if not file.is_file():
        known = {"printed": rows, "read": [row for row in rows if row["read"]]}
        values = {text: scores(own, answers(str(model), own, text)) for text, own in known.items()}
        write_aside(file, json.dumps(values, indent=2))
    return json.loads(file.read_text(encoding="utf-8"))


def summary(results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> dict[str, dict]:
    """Of each arm and each of ``COLUMNS`` the mean of the seeds, and the lowest and the highest."""
    found: dict[str, dict] = {}
    for arm, rows in results.items():
        found[arm] = {}
        for text, name in COLUMNS:
            values = [row[text][name] for row in rows if name in row[text]]
            if values:
                about = {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
                found[arm][f"{text}: {name}"] = {key: round(value, 4) for key, value in about.items()}
    return found


def table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown, of what ``summary`` gives."""
    names = [f"{text}: {name}" for text, name in COLUMNS]
    lines = [f"| trained on | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for arm, values in figures.items():
        found = [values.get(name) for name in names]
        cells = [f"{each['mean']:.3f} ({each['low']:.3f}–{each['high']:.3f})" if each else "" for each in found]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def law(data: Mapping[str, Path], results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> list[dict]:
    """Number of questions and score of each training on kept questions: rows for ``python -m train scaling``."""
    rows = []
    for arm in ("kept", *(f"kept-{part}" for part in FEWER)):
        n = len(data[arm].read_text(encoding="utf-8").splitlines())
        rows += [{"n": n, "seed": seed, "score": row["printed"]["right"]} for seed, row in enumerate(results[arm], 1)]
    return rows


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.questions", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/questions"))
    parser.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by data_tools fetch")
    parser.add_argument("--pages", type=positive, default=500, help="of each kind, to train on (default: 500)")
    parser.add_argument("--test-pages", type=positive, default=20, help="of each kind (default: 20)")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--copy-steps", type=positive, default=600, help="of the model that all begin with")
    parser.add_argument("--steps", type=positive, default=240, help="of each model")
    parser.add_argument("--publish", action="store_true", help="write the figures to train/results")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = write_arms(options.folder, options.source, options.pages, 31)
    rows = unseen(options.folder, options.source, options.test_pages, 32)
    begin = f"{varytoy.NANO}/pictures"
    start = trained(options.folder, data["copies"], "copies", begin, options.copy_steps, 0)
    results = {"none": [measured(start, rows)]}
    for seed in range(1, options.seeds + 1):
        for arm in ARMS:
            model = trained(options.folder, data[arm], arm, str(start), options.steps, seed)
            results.setdefault(arm, []).append(measured(model, rows))
            print(f"{arm:<8} seed {seed}: {results[arm][-1]['printed']['right']:.3f} right", flush=True)
    figures = summary(results)
    print(table(figures))
    replace_lines(options.folder / "law.jsonl", law(data, results))
    print(f"the law of their number: python -m train scaling {options.folder / 'law.jsonl'}")
    if options.publish:
        made = provenance("python -m train.experiments.questions", sys.argv[1:] if words is None else words)
        print(f"written to {save('questions', figures | {'questions': len(rows)}, WHAT, 31, made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
