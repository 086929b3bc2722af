"""Samples into batches: mixing, encoding, counting of bad samples, batches of like size."""

import multiprocessing
import random
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from train.recipe import DataSettings
from varytoy.processing import IGNORED, VaryProcessor
from varytoy.samples import Sample, SampleError, read_samples
from varytoy.tasks import TASKS


class BadSamples:
    """Counts bad samples over all worker processes and reports the first ones; it never replaces one."""

    def __init__(self, report: Callable[[str], None] = print, most: int = 10):
        self.report, self.most = report, most
        self._count = multiprocessing.Value("i", 0)

    def __call__(self, error: Exception) -> None:
        with self._count.get_lock():
            self._count.value += 1
            number = self._count.value
        if number <= self.most:
            self.report(f"bad sample {number}: {error}")

    @property
    def count(self) -> int:
        return self._count.value


class SampleDataset(Dataset):
    """Samples of all sources in one deterministic order; an item is the sample with its open images, or None if bad."""

    def __init__(self, sources: Sequence[DataSettings], seed: int, bad: BadSamples):
        self.bad = bad
        self.samples: list[Sample] = []
        self.counts: dict[str, int] = {}
        for number, source in enumerate(sources):
            found = [
                sample
                for sample in read_samples(source.path, on_error=bad)
                if (not source.tasks or sample.task in source.tasks)
                and (not source.longest or len(sample.answer) <= source.longest)
            ]
            chosen = _share(found, source.share, random.Random(f"{seed}:{number}"))
            if not chosen:
                raise SampleError(f"{source.path}: no usable samples" + (f" of {source.tasks}" if source.tasks else ""))
            self.counts[source.path] = len(chosen)
            self.samples += chosen

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list] | None:
        sample = self.samples[index]
        try:
            return sample, sample.open_images()
        except SampleError as error:
            self.bad(error)
            return None

    def shapes(self, stride: tuple[int, int]) -> list[tuple[int, int]]:
        """Half the token rows, and the tokens, of each sample: what should be alike in a batch, so that neither pixels
        nor tokens are mostly padding. Only image headers are read."""
        found = []
        for sample in self.samples:
            rows = tokens = 0
            for path in sample.image_paths():
                try:
                    with Image.open(path) as image:
                        high, wide = -(-image.height // stride[0]), -(-image.width // stride[1])
                        rows, tokens = max(rows, high), tokens + high * wide
                except (OSError, ValueError, SyntaxError):  # Pillow raises the last for a damaged PNG chunk
                    continue  # counted when the sample is used
            found.append((rows // 2, tokens + len(sample.answer)))
        return found


def _share(samples: list[Sample], share: float, rng: random.Random) -> list[Sample]:
    whole, part = divmod(share, 1)
    return samples * int(whole) + rng.sample(samples, round(part * len(samples)))


class Collator:
    """Samples -> tensors. With ``characters``, CTC targets of the printed text of each image as well."""

    def __init__(
        self,
        processor: VaryProcessor,
        max_length: int,
        bad: BadSamples,
        characters: str = "",
        frames: int = 0,
        clip: bool = True,
    ):
        """``frames``: CTC frames a token where letters are taught by their place, else 0."""
        self.processor, self.max_length, self.bad, self.clip = processor, max_length, bad, clip
        self.frames = frames
        self.symbols = {character: number for number, character in enumerate(characters, 1)}

    def __call__(self, items: Sequence[tuple[Sample, list] | None]) -> dict[str, Tensor]:
        items = [item for item in items if item is not None and self._fits(*item)]
        if not items:
            raise SampleError("every sample of a batch is bad: mend the data (see the reports above)")
        batch = self.processor(
            [sample.messages for sample, _ in items],
            [images for _, images in items],
            [_view(sample) for sample, _ in items],
            train=True,
        )
        if not self.clip:
            batch.pop("clip_pixel_values", None)
        if self.symbols and "pixel_values" in batch:
            targets = [self._target(sample) for sample, images in items for _ in images]
            if self.frames:
                pictures = [(sample, image) for sample, images in items for image in images]
                batch["letter_targets"] = self._letters(pictures, batch)
            batch["ctc_lengths"] = torch.tensor([len(target) for target in targets])
            batch["ctc_targets"] = torch.tensor([symbol for target in targets for symbol in target], dtype=torch.long)
        return dict(batch)

    def _fits(self, sample: Sample, images: list) -> bool:
        """Whether the sample is no longer than ``max_length`` tokens; a longer one is counted as bad."""
        tokens = [self.processor.image_processor.tokens(image.size, _view(sample)) for image in images]
        length = len(self.processor.encode(sample.messages, tokens, True)[0])
        if length > self.max_length:
            self.bad(SampleError(f"sample '{sample.id}': {length} tokens, over train.max_length={self.max_length}"))
        return length <= self.max_length

    def _letters(self, pictures: Sequence[tuple[Sample, Image.Image]], batch: dict[str, Tensor]) -> Tensor:
        """What each frame shows, [I, h, w * frames]: a symbol at a letter's middle, -100 beside it, else 0 (blank)."""
        down, across = self.processor.image_processor.stride
        height, width = batch["pixel_values"].shape[-2:]
        targets = torch.full((len(pictures), height // down, width // across * self.frames), IGNORED)
        for target, (sample, image), (tall, wide) in zip(targets, pictures, batch["image_sizes"].tolist(), strict=True):
            places = sample.facts.get("at", [])
            if not places and sample.answer:
                continue
            scaled = self.processor.image_processor.scaled_size(image.size, _view(sample))
            x_scale, y_scale = scaled[0] / image.width * self.frames / across, scaled[1] / image.height / down
            grid = target[: tall // down, : wide // across * self.frames]
            grid.fill_(0)
            rows = [min(max(int(y * y_scale), 0), grid.shape[0] - 1) for y in places[1::2]]
            columns = [min(max(int(x * x_scale), 0), grid.shape[1] - 1) for x in places[0::2]]
            for row, column in zip(rows, columns, strict=True):
                grid[row, max(column - 1, 0) : column + 2] = IGNORED
            for letter, row, column in zip(sample.facts.get("letters", ""), rows, columns, strict=True):
                grid[row, column] = self.symbols.get(letter, IGNORED)
        return targets

    def _target(self, sample: Sample) -> list[int]:
        """Symbols of the printed text, line breaks left out; empty for samples that are not about reading."""
        if sample.task not in ("ocr", "markdown") or len(sample.images) != 1:
            return []
        text = sample.facts.get("printed", sample.answer)
        return [self.symbols[character] for character in text if character in self.symbols]


class SizeSampler(Sampler[int]):
    """Shuffled batches of like-shaped samples: batches of a window are cut from its samples sorted by shape."""

    def __init__(self, sizes: Sequence[tuple[int, int]], batch: int, seed: int, window: int = 64):
        self.sizes, self.batch, self.seed, self.window, self.epoch = list(sizes), batch, seed, window, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        rng = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.sizes)))
        rng.shuffle(order)
        step = self.batch * self.window
        batches = []
        for start in range(0, len(order), step):
            part = sorted(order[start : start + step], key=self.sizes.__getitem__)
            batches += [part[place : place + self.batch] for place in range(0, len(part), self.batch)]
        last = [batch for batch in batches if len(batch) < self.batch]
        batches = [batch for batch in batches if len(batch) == self.batch]
        rng.shuffle(batches)
        for batch in batches + last:
            yield from batch


def _view(sample: Sample) -> str:
    return TASKS[sample.task].view if sample.task in TASKS else "picture"
