"""Interface of the systems that are measured."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from varytoy.errors import first_line
from varytoy.evaluation.case import Case, Prediction


class System:
    """Something that answers cases.

    Attributes:
        name: in tables and files.
        version: of the program or package behind it.
        tasks: names of the tasks that it can do; None for all.
        device: where its model runs; None for the CPU, or elsewhere.
    """

    name: str
    version: str = ""
    tasks: tuple[str, ...] | None = None
    device: Any = None

    def answers(self, cases: Sequence[Case]) -> Iterator[Prediction]:
        """An answer to each case, in order. A case that fails gives a prediction with an ``error``."""
        for case in cases:
            start = time.perf_counter()
            try:
                prediction = self.answer(case, case.part(case.open()))
            except Exception as error:  # of any kind: one case must not end the evaluation
                prediction = failed(case, error)
            prediction.seconds = time.perf_counter() - start
            yield prediction

    def answer(self, case: Case, image: Image.Image) -> Prediction:
        """The answer to one case, for systems that take one at a time. ``image``: the part that is asked about."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the system holds."""


def failed(case: Case, error: Exception) -> Prediction:
    """The prediction of a case that raised an error."""
    said = first_line(error) or type(error).__name__
    return Prediction(stop_reason="error", error=said if case.file.name in said else f"{case.file.name}: {said}")
