"""Samples of all sources in one order: mixing, shares, conversations, counting of bad samples."""

import bisect
import itertools
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset, get_worker_info

from data_tools.mixture import DataSettings, choose, counts, reworded
from train.data.bad_samples import BadSamples, open_sample
from train.data.crop import crop
from train.data.held_out import split
from train.data.mirror import MirroredSample, is_mirrored, with_mirrored
from train.objectives.objects import is_complete
from varytoy.data.boxes import Box, on_grid, text_on_grid
from varytoy.data.sample import IMAGE_PLACEHOLDER, Annotations, Sample, SampleError, image_size
from varytoy.data.samples import read_samples
from varytoy.data.spots import UNANSWERABLE, format_spots, parse_spots, pieces_of, stands_in
from varytoy.processing.plan import ImagePlan
from varytoy.tasks import TASKS


class SampleDataset(Dataset):
    """Samples of all sources in one deterministic order; an item is the sample with its open images, or None if bad.

    Args:
        held_out: share of the pictures of each folder whose samples are not trained on.

    Attributes:
        counts: samples taken from each source.
        held_out: those of each source that are not trained on, as they were read.
        epoch: the Trainer sets it; it seeds random crops.
        spans: for each sample the part of an epoch in which it comes, as start and length. Copies (``share`` above 1)
            are spread out: in the same batch they would add nothing.
    """

    def __init__(self, sources: Sequence[DataSettings], seed: int, bad: BadSamples, held_out: float = 0.0):
        self.bad, self.seed, self.epoch = bad, seed, 0
        self.sources = list(sources)
        self.samples: list[Sample] = []
        self.counts: list[int] = []
        self.spans: list[tuple[float, float]] = []
        parts: list[list[Sample]] = []
        folders: dict[str, tuple[list[Sample], list[Sample]]] = {}  # several sources may take from one
        self.held_out: list[list[Sample]] = []
        for number, source in enumerate(sources):
            if source.path not in folders:
                folders[source.path] = split(list(read_samples(source.path, on_error=bad)), held_out)
            taught, asked = folders[source.path]
            samples = [sample for sample in taught if source.takes(sample)]
            self.held_out.append([sample for sample in asked if source.takes(sample)])
            if source.as_text:
                samples = [sample for sample in samples if sample.annotations.text]
            if source.prompts:
                rng = random.Random(f"prompts:{seed}:{number}")
                samples = [reworded(sample, source.prompts, rng) for sample in samples]
            if source.bins:
                samples = [_on_grid(sample, source.bins) for sample in samples]
            if source.dialect != "lines":
                samples = [_in_dialect(sample, source.dialect) for sample in samples]
            if source.mirror:
                samples = with_mirrored(samples)
            if source.text_piece:
                samples = in_pieces(samples, source.text_piece, seed)
            if source.turns > 1:
                rng = random.Random(f"turns:{seed}:{number}")
                samples = merge_turns(samples, source.turns, rng, source.isolated)
            if source.as_text:
                samples = [as_text(sample) for sample in samples]
            if not samples:
                raise SampleError(f"{source.path}: no usable samples" + (f" of {source.tasks}" if source.tasks else ""))
            parts.append(samples)
        wanted = counts(sources, [len(part) for part in parts])
        for number, (source, part, count) in enumerate(zip(sources, parts, wanted, strict=True)):
            rng = random.Random(f"{seed}:{number}")
            chosen = [part[index] for index in choose(count, len(part), source.cap, rng)]
            if not chosen:
                raise SampleError(f"{source.path}: of its {len(part)} samples an epoch has 0: raise share or replay")
            self.counts.append(len(chosen))
            self.samples += chosen
            different = min(source.cap or len(part), len(part))
            rounds = len(chosen) / different
            for index in range(len(chosen)):
                before = index // different
                self.spans.append((before / rounds, min(rounds - before, 1) / rounds))
        self._ends = list(itertools.accumulate(self.counts))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list] | None:
        sample = self.samples[index]
        _leave_interrupts_to_the_run()
        try:
            images = open_sample(sample)
        except SampleError as error:
            self.bad(error)
            return None
        source = self.sources[bisect.bisect(self._ends, index)]
        if source.crop < 1:
            rng = random.Random(f"crop:{self.seed}:{self.epoch}:{index}")
            return crop(sample, images, rng, source.crop, source.bins)
        return sample, images

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def labels(self) -> list[str]:
        """The names of all boxes, sorted."""
        return sorted({box.label for sample in self.samples for box in sample.boxes})

    def shapes(
        self, stride: tuple[int, int], plan: Callable[[tuple[int, int], str], ImagePlan] | None = None
    ) -> list[tuple[int, int]]:
        """(token rows // 2, tokens) of each sample: similar samples share a batch, so that neither pixels nor
        tokens are mostly padding. Only image headers are read.

        Args:
            plan: gives the grid of an image of a size and view, if the model resizes all images to as many tokens.
        """
        shapes = []
        for sample in self.samples:
            rows = tokens = 0
            for path in sample.image_paths():
                try:
                    width, height = image_size(path)
                except SampleError:
                    continue  # counted when the sample is used
                high, wide = -(-height // stride[0]), -(-width // stride[1])
                if plan is not None:
                    high, wide = plan((width, height), view_of(sample)).grid
                rows, tokens = max(rows, high), tokens + high * wide
            shapes.append((rows // 2, tokens + sum(len(message.get("content", "")) for message in sample.messages)))
        return shapes


def _leave_interrupts_to_the_run() -> None:
    """In a worker process: Ctrl-C goes to all processes, and the run itself ends its workers."""
    if get_worker_info() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_grid(sample: Sample, bins: int) -> Sample:
    messages = [{**message, "content": text_on_grid(message["content"], bins)} for message in sample.messages]
    return replace(sample, messages=messages, boxes=[Box(box.label, on_grid(box.xyxy, bins)) for box in sample.boxes])


def _in_dialect(sample: Sample, dialect: str) -> Sample:
    """A sample of spotting with its answer in a dialect; others as they are."""
    if sample.task != "spot":
        return sample
    *before, last = sample.messages
    answer = format_spots(parse_spots(last["content"]).lines, dialect)
    return replace(sample, messages=[*before, {**last, "content": answer}])


def as_text(sample: Sample) -> Sample:
    """A sample about one image, with the image's text in its place."""
    if isinstance(sample, PackedSample):
        return replace(sample, images=[], parts=[as_text(part) for part in sample.parts])
    first, *rest = sample.messages
    question = first["content"].replace(IMAGE_PLACEHOLDER, "").strip()
    message = {**first, "content": f"{sample.annotations.text}\n\n{question}"}
    return replace(sample, images=[], messages=[message, *rest])


def in_pieces(samples: Sequence[Sample], longest: int, seed: int) -> list[Sample]:
    """See ``DataSettings.text_piece``; all samples about an image get the same piece."""
    found = []
    for sample in samples:
        text = sample.annotations.text
        if len(text) > longest:
            if not stands_in(sample.answer, text) and sample.answer != UNANSWERABLE:
                continue
            piece = random.Random(f"piece:{seed}:{sample.images}").choice(pieces_of(text, longest))
            about = replace(sample.annotations, plain_text=piece, lines=[], line_boxes=[])
            *before, last = sample.messages
            answer = sample.answer if stands_in(sample.answer, piece) else UNANSWERABLE
            sample = replace(sample, annotations=about, messages=[*before, {**last, "content": answer}])
        found.append(sample)
    return found


@dataclass
class PackedSample(Sample):
    """Samples about one image that share its tokens and do not see each other (train.data.packing)."""

    parts: Sequence[Sample] = ()

    def open_images(self):
        return self.parts[0].open_images()


def merge_turns(samples: Sequence[Sample], turns: int, rng: random.Random, isolated: bool = False) -> list[Sample]:
    """Merge consecutive samples of the same image into conversations of up to ``turns`` samples; those with images that
    the model is to make stay as they are.

    Their order is shuffled, but captions and detections come last: other answers could be read off them. With
    ``isolated`` they become PackedSamples.
    """
    merged = []
    for _, group in itertools.groupby(samples, key=lambda sample: (sample.folder, sample.images, is_mirrored(sample))):
        everything = list(group)
        merged += [sample for sample in everything if not _can_merge(sample)]
        group = [sample for sample in everything if _can_merge(sample)]
        rng.shuffle(group)
        parts = [group[start : start + turns] for start in range(0, len(group), turns)]
        for part in parts:
            whole = _conversation(sorted(part, key=lambda sample: _ORDER.get(sample.task, 0)))
            if isolated and len(part) > 1:
                whole = PackedSample(**vars(whole), parts=part)
            merged.append(whole)
    return merged


def _can_merge(sample: Sample) -> bool:
    return len(sample.images) == 1 and not sample.target_images


_ORDER = {"caption": 1, "detect": 2}


def _conversation(samples: Sequence[Sample]) -> Sample:
    """One sample from several about one image; a single one is unchanged."""
    first, *rest = samples
    if not rest:
        return first
    messages = list(first.messages)
    for sample in rest:
        for message in sample.messages:
            if message["role"] == "user":
                message = {**message, "content": message["content"].replace(IMAGE_PLACEHOLDER, "").strip()}
            if message["role"] != "system":
                messages.append(message)
    complete = [sample for sample in samples if is_complete(sample)]
    boxes, annotations = complete[0].boxes if complete else [], Annotations(all_objects=bool(complete))
    kind = MirroredSample if is_mirrored(first) else Sample
    return kind(
        messages, first.images, first.id, first.task, boxes, annotations, folder=first.folder, where=first.where
    )


def view_of(sample: Sample) -> str:
    return TASKS[sample.task].view if sample.task in TASKS else "picture"
