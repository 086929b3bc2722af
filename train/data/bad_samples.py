"""What one sample does never ends a run: it is counted, and named with what is wrong with it."""

import multiprocessing
from collections.abc import Callable

from PIL import Image

from varytoy.data.sample import Sample, SampleError
from varytoy.errors import first_line


class BadSamples:
    """Counts bad samples over all worker processes and reports the first ones; it never replaces one.

    A sample counts once, but with worker processes, which begin anew in each epoch, once an epoch.
    """

    def __init__(self, report: Callable[[str], None] = print, most: int = 10):
        self.report, self.most = report, most
        self._count = multiprocessing.Value("i", 0)
        self._said: set[str] = set()

    def __call__(self, error: Exception) -> None:
        if str(error) in self._said:  # the same sample in another epoch
            return
        self._said.add(str(error))
        with self._count.get_lock():
            self._count.value += 1
            number = self._count.value
        if number <= self.most:
            self.report(f"bad sample {number}: {error}")

    @property
    def count(self) -> int:
        return self._count.value


def fault(sample: Sample, error: Exception) -> SampleError:
    """What is wrong with one sample, with its name and that of its folder."""
    if isinstance(error, SampleError):
        return error
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return SampleError(f"sample '{sample.id}' of {sample.folder}: {name}{first_line(error)}")


def open_sample(sample: Sample) -> list[Image.Image]:
    """The images of a sample. Raises SampleError, whatever is wrong with them."""
    try:
        return sample.open_images()
    except Exception as error:  # Pillow raises any kind for a damaged file; one sample must not end a run
        raise fault(sample, error) from error
