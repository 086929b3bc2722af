"""Interface of the systems that are measured."""

import time
from collections.abc import Iterator, Sequence

from PIL import Image

from varytoy.evaluation.case import Case, Prediction


class System:
    """Something that answers cases.

    Attributes:
        name: in tables and files.
        version: of the program or package behind it.
        tasks: names of the tasks that it can do; None for all.
    """

    name: str
    version: str = ""
    tasks: tuple[str, ...] | None = None

    def answers(self, cases: Sequence[Case]) -> Iterator[Prediction]:
        """An answer to each case, in order. A case that fails gives a prediction with an ``error``."""
        for case in cases:
            start = time.perf_counter()
            try:
                prediction = self.answer(case, case.open())
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                prediction = Prediction(stop_reason="error", error=f"{case.file.name}: {error}")
            prediction.seconds = time.perf_counter() - start
            yield prediction

    def answer(self, case: Case, image: Image.Image) -> Prediction:
        """The answer to one case, for systems that take one at a time."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the system holds."""
