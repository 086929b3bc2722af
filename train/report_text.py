"""A tune report as markdown, JSON and a table for the terminal."""

import json
from dataclasses import asdict
from pathlib import Path

from train.intervals import Interval
from train.report import Pair, Report, TaskResult, draw, rule
from train.run_folder import write_aside, writing

_SHOWN, _LONGEST = 5, 400


def write(found: Report, out: Path) -> None:
    """Write ``report.md``, ``report.json`` and contact sheets. Raises RecipeError if that cannot be done."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    sheets = draw(found, out)
    write_aside(out / "report.md", markdown(found, sheets))
    write_aside(out / "report.json", json.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n")


def table(found: Report) -> str:
    """A markdown table with a row for each task of each set of samples."""
    rows = [
        ["samples", "metric", "n", "base", "tuned", "tuned - base", "", "won : lost"],
        ["---"] * 8,
    ]
    for result in found.results:
        metric = result.metric + (" (less is better)" if result.is_error else "")
        rows.append(
            [
                result.set,
                metric,
                str(len(result.pairs)),
                _interval(result.base),
                _interval(result.tuned),
                _interval(result.difference, "+"),
                _word(result),
                f"{len(result.won)} : {len(result.lost)}",
            ]
        )
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """A markdown table with columns of equal width; the second row is the line below the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _word(result: TaskResult) -> str:
    return "better" if result.is_better else "worse" if result.is_worse else "no difference shown"


def markdown(found: Report, sheets: list[str]) -> str:
    parts = [
        f"# Was tuning {found.run} worth it?",
        f"**{found.sentence}**",
        f"The rule: {rule(found.tolerance)}.",
        table(found),
        "In brackets: 95 % bootstrap intervals, of the difference paired (both models on the same drawn pictures).",
        "## What was compared",
        f"- base: {found.base}\n- tuned: {found.run}\n" + "\n".join(_sources(found)),
    ]
    if found.merge is not None:
        parts += ["## The merge", "\n".join(f"- {line}" for line in found.merge.sentences())]
    for result in found.results:
        for what, pairs in (("won", result.won), ("lost", result.lost)):
            if pairs:
                parts.append(f"## {what.capitalize()}: {result.task}, {result.set} samples ({len(pairs)})")
                parts += [_example(pair) for pair in pairs[:_SHOWN]]
    parts += [f"![{name}]({name})" for name in sheets]
    return "\n\n".join(parts) + "\n"


def _sources(found: Report) -> list[str]:
    lines = []
    for each in found.sets:
        warning = f"; **{each.warning}**" if each.warning else ""
        lines.append(f"- {each.name}: {len(each.samples)} samples of {each.source}{warning}")
    if all(each.name != "old" for each in found.sets):
        lines.append("- old: none, the run replays nothing; --old SAMPLES says what must not be forgotten")
    if found.failed:
        lines.append(f"- {found.failed} samples could not be read, asked or scored and are left out")
    return lines


def _example(pair: Pair) -> str:
    rows = {
        "asked": pair.sample.prompt,
        "right": pair.sample.answer,
        f"base, {pair.scores[0]:.3f}": pair.base,
        f"tuned, {pair.scores[1]:.3f}": pair.tuned,
    }
    longest = max(map(len, rows))
    lines = [f"{name.ljust(longest)} | {_one_line(text)}" for name, text in rows.items()]
    text = "\n".join(lines).replace("```", "'''")
    return f"{pair.sample.where or pair.sample.id}\n\n```text\n{text}\n```"


def _one_line(text: str) -> str:
    text = " / ".join(text.split("\n")) or "(empty)"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def to_json(found: Report) -> dict:
    """All figures, and both models' answers to each sample."""
    return {
        "run": found.run,
        "base": found.base,
        "decision": found.decision,
        "sentence": found.sentence,
        "rule": rule(found.tolerance),
        "samples": {
            each.name: {"count": len(each.samples), "source": each.source, "warning": each.warning}
            for each in found.sets
        },
        "failed": found.failed,
        "merge": None
        if found.merge is None
        else {**asdict(found.merge), "equal": found.merge.is_equal, "nothing": found.merge.is_nothing},
        "results": [_result(result) for result in found.results],
    }


def _result(result: TaskResult) -> dict:
    kept = ("set", "task", "metric", "is_error")
    intervals = {name: asdict(getattr(result, name)) for name in ("base", "tuned", "difference")}
    answers = [
        {
            "id": pair.sample.id,
            "where": pair.sample.where,
            "right": pair.sample.answer,
            "base": pair.base,
            "tuned": pair.tuned,
            "scores": list(pair.scores),
        }
        for pair in result.pairs
    ]
    counts = {"won": len(result.won), "lost": len(result.lost)}
    return {name: getattr(result, name) for name in kept} | intervals | counts | {"answers": answers}
