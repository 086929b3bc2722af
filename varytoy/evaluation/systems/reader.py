"""A varytoy checkpoint, or another that ``Reader`` opens."""

import threading
import time
from collections.abc import Iterator, Sequence

import torch

import varytoy
from varytoy.data.answer import Answer, Region
from varytoy.data.boxes import Box
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.systems.base import System, failed
from varytoy.inference.many import TOGETHER, in_order
from varytoy.inference.reader import Reader


class ReaderSystem(System):
    """A Reader, asked as its users ask it: pages are read line by line.

    Args:
        together: cases that are worked on at once. Their ``seconds`` are those of each, with what it waited for the
            others in its batches.
    """

    version = varytoy.__version__

    def __init__(self, reader: Reader, together: int = TOGETHER, max_new_tokens: int = 1024):
        self.reader, self.together, self.max_new_tokens = reader, together, max_new_tokens
        self.name = reader.name or "reader"
        self.device = torch.device(reader.precision.device) if reader.precision else None

    def answers(self, cases: Sequence[Case]) -> Iterator[Prediction]:
        cancel = threading.Event()
        shared = self.reader.shared(fair=False) if self.together > 1 else self.reader

        def answer(case: Case) -> Prediction:
            start = time.perf_counter()
            try:
                image = case.open()
                options = {"max_new_tokens": self.max_new_tokens, "cancel": cancel}
                options |= {} if case.place is None else {"place": case.place_in(image)}
                said = shared.ask(image, case.task, case.prompt, **options)
                found = prediction_of(said, image.size)
            except Exception as error:  # of any kind: one case must not end the evaluation
                found = failed(case, error)
            found.seconds = time.perf_counter() - start
            return found

        try:
            yield from in_order(answer, iter(cases), self.together, cancel)
        finally:
            if shared is not self.reader:
                shared.close()

    def close(self):
        self.reader.close()


def prediction_of(answer: Answer, size: tuple[int, int]) -> Prediction:
    """The prediction of an answer about an image of ``size`` pixels: its objects, or its lines of text."""
    boxes = tuple(_box(region, size) for region in answer.objects or answer.lines)
    text = answer.text if answer.markup is None else answer.markup
    return Prediction(text, boxes, confidence=answer.confidence, stop_reason=answer.stop_reason)


def _box(region: Region, size: tuple[int, int]) -> Box:
    return Box.from_pixels(region.label or region.text, region.box, *size)
