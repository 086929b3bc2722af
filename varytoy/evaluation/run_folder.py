"""The folder of an evaluation: settings, and one JSON line for each case, kept when it is interrupted."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from varytoy.evaluation.case import Case, Prediction
from varytoy.folder_lock import LOCK

SETTINGS, PREDICTIONS = "run.json", "predictions.jsonl"


class RunFolder:
    """Answers are appended as they come. A folder that has some is resumed, if it was made with the same settings.

    Args:
        settings: what the answers depend on.

    Raises:
        ValueError: the folder holds an evaluation with other settings, or other files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self.file = folder, folder / PREDICTIONS
        self.done: dict[str, Prediction] = {}
        written = folder / SETTINGS
        if written.is_file():
            self._check(json.loads(written.read_text(encoding="utf-8")), settings)
            self._read()
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _check(self, there: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        for name in dict.fromkeys((*settings, *there)):
            if there.get(name) != settings.get(name):
                raise ValueError(
                    f"--out: {self.folder} was made with {name} {there.get(name)!r}, not {settings.get(name)!r}; "
                    "name a new folder"
                )

    def _read(self) -> None:
        """Answers that are there. A line that a kill cut short is dropped; failures are asked again."""
        if not self.file.is_file():
            return
        lines = self.file.read_bytes().split(b"\n")
        rows = [self._row(number, line) for number, line in enumerate(lines[:-1], 1)]
        kept = [row for row in rows if not row["error"]]
        if len(kept) < len(rows) or lines[-1]:
            replace_lines(self.file, kept)
        self.done = {row["id"]: Prediction.from_json(row) for row in kept}

    def _row(self, number: int, line: bytes) -> dict:
        try:
            row = json.loads(line)
            Prediction.from_json(row)
            return {**row, "id": row["id"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.file} line {number} is damaged ({error!r}): delete the line, and its case is asked again"
            ) from None

    def add(self, case: Case, prediction: Prediction) -> None:
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(_row(case, prediction), ensure_ascii=False) + "\n")
        self.done[case.id] = prediction

    def finish(self, cases: Sequence[Case], scores: Mapping[str, Sequence[float]]) -> None:
        """Write the lines once more, in the order of the cases and with their scores."""
        rows = []
        for number, case in enumerate(cases):
            own = {name: round(float(values[number]), 4) for name, values in scores.items()}
            own = {name: value for name, value in own.items() if value == value}
            rows.append({**_row(case, self.done[case.id]), "scores": own})
        replace_lines(self.file, rows)


def check_folder(folder: Path | None) -> None:
    """Raises ValueError for a folder with other files than those of an evaluation."""
    if folder is None or not folder.exists() or (folder / SETTINGS).is_file():
        return
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"--out: {folder} holds other files; name a new folder")


def _row(case: Case, prediction: Prediction) -> dict:
    row = {"id": case.id, "group": case.group, "task": case.task, "file": case.file.name, "page": case.page}
    return {**row, "prompt": case.prompt, "references": list(case.references), **prediction.to_json()}


def replace_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines in the place of a file, whole or not at all."""
    fresh = file.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(fresh, file)
