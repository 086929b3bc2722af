"""A bad sample never ends a run: it is counted and reported with the reason."""

import multiprocessing
from collections.abc import Callable

from PIL import Image

from varytoy.data.sample import Sample, SampleError
from varytoy.errors import first_line


class BadSamples:
    """Counts bad samples over all worker processes and reports the first ones; they are not replaced.

    A sample counts once, but with worker processes, which restart in each epoch, once per epoch.
    """

    def __init__(self, report: Callable[[str], None] = print, most: int = 10):
        self.report, self.most = report, most
        self._count = multiprocessing.Value("i", 0)
        self._reported: set[str] = set()

    def __call__(self, error: Exception) -> None:
        if str(error) in self._reported:  # the same sample in another epoch
            return
        self._reported.add(str(error))
        with self._count.get_lock():
            self._count.value += 1
            number = self._count.value
        if number <= self.most:
            self.report(f"bad sample {number}: {error}")

    @property
    def count(self) -> int:
        return self._count.value


def fault(sample: Sample, error: Exception) -> SampleError:
    """The error of one sample, with its id and folder."""
    if isinstance(error, SampleError):
        return error
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return SampleError(f"sample '{sample.id}' of {sample.folder}: {name}{first_line(error)}")


def open_sample(sample: Sample) -> list[Image.Image]:
    """The images of a sample. Raises SampleError, whatever is wrong with them."""
    try:
        return sample.open_images()
    except Exception as error:  # Pillow raises any type for a damaged file; one sample must not end a run
        raise fault(sample, error) from error
