"""Samples into batches: mixing, encoding, counting of bad samples, batches of like size."""

import itertools
import random
import signal
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from train.data.bad_samples import BadSamples, fault, open_sample
from train.data.feature_cache import FeatureStore
from train.objectives.locations import looks, with_corners, with_places
from train.recipe import DataSettings
from varytoy.data.boxes import SCALE
from varytoy.data.samples import IMAGE_PLACEHOLDER, Sample, SampleError, image_size, read_samples
from varytoy.processing.plan import ImagePlan
from varytoy.processing.processor import IGNORED, Special, VaryProcessor, content_pieces
from varytoy.tasks import TASKS


class SampleDataset(Dataset):
    """Samples of all sources in one deterministic order; an item is the sample with its open images, or None if bad.

    Attributes:
        counts: samples taken from each source.
        spans: of each sample, in which part of an epoch it comes, as start and length. Copies of one (``share`` above
            1) come one after another: together in a batch they would teach no more than one.
    """

    def __init__(self, sources: Sequence[DataSettings], seed: int, bad: BadSamples):
        self.bad = bad
        self.samples: list[Sample] = []
        self.counts: list[int] = []
        self.spans: list[tuple[float, float]] = []
        parts: list[list[Sample]] = []
        for number, source in enumerate(sources):
            found = [
                sample
                for sample in read_samples(source.path, on_error=bad)
                if (not source.tasks or sample.task in source.tasks)
                and (not source.longest or len(sample.answer) <= source.longest)
            ]
            if source.turns > 1:
                found = converse(found, source.turns, random.Random(f"turns:{seed}:{number}"))
            if not found:
                raise SampleError(f"{source.path}: no usable samples" + (f" of {source.tasks}" if source.tasks else ""))
            parts.append(found)
        pairs = list(zip(sources, parts, strict=True))
        fresh = sum(source.share * len(part) for source, part in pairs if not source.replay)
        replayed = sum(source.replay for source in sources)
        for number, (source, part) in enumerate(pairs):
            share = source.replay / (1 - replayed) * fresh / len(part) if source.replay else source.share
            chosen = _share(part, share, random.Random(f"{seed}:{number}"))
            if not chosen:
                raise SampleError(f"{source.path}: {len(part)} samples, and a share of {share:.2g} of them is none")
            self.counts.append(len(chosen))
            self.samples += chosen
            rounds = len(chosen) / len(part)
            for place in range(len(chosen)):
                before = place // len(part)
                self.spans.append((before / rounds, min(rounds - before, 1) / rounds))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list] | None:
        sample = self.samples[index]
        _leave_interrupts_to_the_run()
        try:
            return sample, open_sample(sample)
        except SampleError as error:
            self.bad(error)
            return None

    def labels(self) -> list[str]:
        """The names of all boxes, sorted."""
        return sorted({box.label for sample in self.samples for box in sample.boxes})

    def shapes(self, stride: tuple[int, int]) -> list[tuple[int, int]]:
        """Half the token rows, and the tokens, of each sample: what should be alike in a batch, so that neither pixels
        nor tokens are mostly padding. Only image headers are read."""
        found = []
        for sample in self.samples:
            rows = tokens = 0
            for path in sample.image_paths():
                try:
                    width, height = image_size(path)
                except SampleError:
                    continue  # counted when the sample is used
                high, wide = -(-height // stride[0]), -(-width // stride[1])
                rows, tokens = max(rows, high), tokens + high * wide
            found.append((rows // 2, tokens + sum(len(message.get("content", "")) for message in sample.messages)))
        return found


def _leave_interrupts_to_the_run() -> None:
    """In a worker process: Ctrl-C goes to all processes, and the run itself ends its workers."""
    if get_worker_info() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _share(samples: list[Sample], share: float, rng: random.Random) -> list[Sample]:
    whole, part = divmod(share, 1)
    return samples * int(whole) + rng.sample(samples, round(part * len(samples)))


@dataclass
class _Item:
    """A sample as it enters a batch: ``messages`` may hold place tokens, ``spots`` has what ``looks`` finds for each
    answer, ``encoded`` its ids and labels."""

    sample: Sample
    images: list
    plans: list[ImagePlan]
    messages: list[dict]
    spots: list[list[tuple[int, float, float]]] = field(default_factory=list)
    encoded: tuple[list[int], list[int]] = ((), ())


class Collator:
    """Samples -> tensors. With ``characters``, CTC targets of the printed text of each image as well."""

    def __init__(
        self,
        processor: VaryProcessor,
        max_length: int,
        bad: BadSamples,
        *,
        characters: str = "",
        frames: int = 0,
        clip: tuple[int, int] | None = None,
        guide: bool = False,
        objects: Sequence[str] = (),
        token_corruption: float = 0.0,
        names: bool = False,
        features: FeatureStore | None = None,
    ):
        """``frames``: CTC frames a token where letters are taught by their place, else 0; ``guide``: also say where to
        look for each token of an answer; ``objects``: names that the object heads know; ``token_corruption``: mean
        share of the answers' tokens that the model sees wrongly;
        ``clip``: the CLIP branch's rows and columns of tokens, None without it; ``names``: with the samples' ids;
        ``features``: take the towers' features from here, in place of pixels."""
        self.processor, self.max_length, self.bad, self.clip = processor, max_length, bad, clip
        self.frames, self.guide, self.token_corruption, self.names = frames, guide, token_corruption, names
        self.features = features
        self.objects = {name: number for number, name in enumerate(objects, 1)}
        self.image_token = processor.tokenizer.convert_tokens_to_ids("<imgpad>")
        self.symbols = {character: number for number, character in enumerate(characters, 1)}

    def __call__(self, items: Sequence[tuple[Sample, list] | None]) -> dict[str, Tensor]:
        pairs = [item for item in items if item is not None]
        try:
            return self._batch(pairs)
        except Exception:  # of any kind: whose fault it is shows alone, and one sample must not end a run
            good = [pair for pair in pairs if self._good_alone(pair)]
            if len(good) == len(pairs):
                raise
            return self._batch(good)

    def _good_alone(self, pair: tuple[Sample, list]) -> bool:
        """Whether a batch can be made of one sample; counts it as bad if not."""
        try:
            self._batch([pair])
        except Exception as error:
            self.bad(fault(pair[0], error))
            return False
        return True

    def _batch(self, pairs: Sequence[tuple[Sample, list]]) -> dict[str, Tensor]:
        items = [self._item(*pair) for pair in pairs]
        items = [item for item in items if self._fits(item)]
        if not items:  # all are counted as bad; the model takes no loss from this
            return {
                "input_ids": torch.tensor([[self.processor.tokenizer.pad_token_id]]),
                "labels": torch.full((1, 1), IGNORED),
            }
        if self.features is None:
            pairs = [pair for item in items for pair in zip(item.images, item.plans, strict=True)]
            batch = dict(self.processor.batch([item.encoded for item in items], pairs, True))
        else:
            batch = self._with_features(items)
        batch.pop("attention_mask")  # padding stands at the right, where a causal decoder never looks
        if not self.clip:
            batch.pop("clip_pixel_values", None)
        pictures = [(item.sample, plan) for item in items for plan in item.plans]
        if self.symbols and self.frames and pictures:
            batch["letter_targets"] = self._letters(pictures, batch)
        elif self.symbols and pictures:
            targets = [self._target(sample) for sample, _ in pictures]
            batch["ctc_lengths"] = torch.tensor([len(target) for target in targets])
            batch["ctc_targets"] = torch.tensor([symbol for target in targets for symbol in target], dtype=torch.long)
        if self.objects and pictures:
            batch |= self._object_targets(pictures, batch)
        if self.guide and pictures:
            rows = zip(items, batch["input_ids"], batch["labels"], strict=True)
            batch["letter_places"] = torch.stack([self._places(item, ids, labels) for item, ids, labels in rows])
        if self.token_corruption:
            # Drawn from the batch itself: a run that is resumed sees the same.
            dice = torch.Generator().manual_seed(zlib.crc32("\n".join(item.sample.id for item in items).encode()))
            batch["input_ids"] = self._corrupt(batch["input_ids"], batch["labels"], dice)
        if self.names:
            batch["names"] = [item.sample.id for item in items]
        return batch

    def _with_features(self, items: Sequence[_Item]) -> dict[str, Tensor]:
        """Tokens and labels, with features of all pictures in place of their pixels."""
        found = [self.features.get(self.features.key(path)) for item in items for path in item.sample.image_paths()]
        names = found[0] if found else ()
        batch = self.processor.pad([item.encoded for item in items], True)
        return batch | {f"{name}_features": torch.stack([row[name] for row in found]) for name in names}

    def _item(self, sample: Sample, images: list) -> _Item:
        """Where the model has place tokens, the answers' lines, words and boxes begin with theirs."""
        plans = [self.processor.image_processor.plan(image.size, view_of(sample)) for image in images]
        item = _Item(sample, images, plans, list(sample.messages))
        if len(images) == 1 and (self.guide or self.processor.places):
            for number, message in enumerate(sample.messages):
                if message["role"] == "assistant":
                    answer, spots = message["content"], looks(sample, message["content"], images[0].size)
                    item.spots.append(spots)
                    if self.processor.places:
                        put = with_places if sample.facts.get("at") else with_corners
                        content = put(self.processor, answer, spots, plans[0].scaled)
                        item.messages[number] = {**message, "content": content}
        item.encoded = self.processor.encode(item.messages, plans, True)
        return item

    def _fits(self, item: _Item) -> bool:
        """Whether the sample is no longer than ``max_length`` tokens; a longer one is counted as bad."""
        length = len(item.encoded[0])
        if length > self.max_length:
            self.bad(SampleError(f"{item.sample.name}: {length} tokens, over train.max_length={self.max_length}"))
        return length <= self.max_length

    def _corrupt(self, ids: Tensor, labels: Tensor, dice: torch.Generator) -> Tensor:
        """ids [B, T] with some of the answers' tokens exchanged for others of the batch; some answers more than others.
        What ends a message stays."""
        written = (labels != IGNORED) & ~torch.isin(ids, torch.tensor(self.processor.tokenizer.all_special_ids))
        if not bool(written.any()):
            return ids
        share = torch.rand(ids.shape[0], 1, generator=dice) * 2 * self.token_corruption
        chosen = written & (torch.rand(ids.shape, generator=dice) < share)
        others = ids[written]
        return ids.masked_scatter(chosen, others[torch.randint(len(others), (int(chosen.sum()),), generator=dice)])

    def _places(self, item: _Item, ids: Tensor, labels: Tensor) -> Tensor:
        """Where to look before each token of the answers is written, [T]: the position in ``ids`` of the image token
        that shows it, at the position whose next token it is; else -100."""
        places = torch.full_like(ids, IGNORED)
        if not item.spots:
            return places
        first, plan = int((ids == self.image_token).nonzero()[0]), item.plans[0]
        taught = labels != IGNORED
        starts = (taught & ~taught.roll(1)).nonzero().flatten().tolist()
        answers = [message["content"] for message in item.messages if message["role"] == "assistant"]
        for start, answer, spots in zip(starts, answers, item.spots, strict=True):
            token_of = self._tokens(answer)
            for character, x, y in spots:
                for token in token_of.get(character, ()):
                    places[start + token - 1] = first + plan.token_at(x, y)
        return places

    def _tokens(self, answer: str | Sequence[str]) -> dict[int, list[int]]:
        """The tokens of each character of the answer, and with them the place tokens before it."""
        found: dict[int, list[int]] = {}
        character = token = 0
        for piece in content_pieces(answer):
            if isinstance(piece, Special):
                found.setdefault(character, []).append(token)
                token += 1
                continue
            encoded = self.processor.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
            for number, (begin, _) in enumerate(encoded["offset_mapping"]):
                found.setdefault(character + begin, []).append(token + number)
            character, token = character + len(piece), token + len(encoded["input_ids"])
        return found

    def _object_targets(self, pictures: Sequence[tuple[Sample, ImagePlan]], batch: dict) -> dict[str, Tensor]:
        """For the heads of both branches; nothing where no picture's objects are known."""
        down, across = self.processor.image_processor.stride
        height, width = batch["pixel_values"].shape[-2:]
        grids = [plan.grid for _, plan in pictures]
        found = {"object_targets": self._things(pictures, grids, (height // down, width // across))}
        if not bool((found["object_targets"] >= 0).any()):
            return {}
        if self.clip:
            found["clip_object_targets"] = self._things(pictures, [self.clip] * len(pictures), self.clip)
        return found

    def _things(self, pictures: Sequence[tuple[Sample, ImagePlan]], grids: Sequence, whole: tuple[int, int]) -> Tensor:
        """What stands at each token of ``grids`` (rows, columns), and of which object the first and the last corner
        is there, [I, *whole, 3]: the number of the object, 0 for none, -100 where that is not known (near the edges of
        a box, beside a corner, padding, pictures without boxes)."""
        targets = torch.full((len(pictures), *whole, 3), IGNORED)
        for target, (sample, _), (height, width) in zip(targets, pictures, grids, strict=True):
            if not _complete(sample):
                continue
            x = (torch.arange(width) + 0.5)[None] / width * SCALE
            y = (torch.arange(height) + 0.5)[:, None] / height * SCALE
            grid = target[:height, :width]
            grid.fill_(0)
            for shrink, inner in ((0.0, False), (0.15, True)):
                for box in sample.boxes:
                    x1, y1, x2, y2 = box.xyxy
                    dx, dy = shrink * (x2 - x1), shrink * (y2 - y1)
                    inside = (x > x1 + dx) & (x < x2 - dx) & (y > y1 + dy) & (y < y2 - dy)
                    grid[..., 0][inside] = self.objects.get(box.label, IGNORED) if inner else IGNORED
            corners = [
                (number, _token_at(x, y, height, width), self.objects.get(box.label, IGNORED))
                for box in sample.boxes
                for number, (x, y) in enumerate((box.xyxy[:2], box.xyxy[2:]), 1)
            ]
            for number, (row, column), _ in corners:
                grid[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, number] = IGNORED
            for number, (row, column), label in corners:
                grid[row, column, number] = label
        return targets

    def _letters(self, pictures: Sequence[tuple[Sample, ImagePlan]], batch: dict[str, Tensor]) -> Tensor:
        """What each frame shows, [I, h, w * frames]: a symbol at a letter's middle, -100 beside it, else 0 (blank)."""
        down, across = self.processor.image_processor.stride
        height, width = batch["pixel_values"].shape[-2:]
        targets = torch.full((len(pictures), height // down, width // across * self.frames), IGNORED)
        for target, (sample, plan) in zip(targets, pictures, strict=True):
            places = sample.facts.get("at", [])
            if not places and sample.answer:
                continue
            grid = target[: plan.grid.rows, : plan.grid.columns * self.frames]
            grid.fill_(0)
            points = zip(places[0::2], places[1::2], strict=True)
            cells = [plan.cell(x / plan.size[0], y / plan.size[1], across=self.frames) for x, y in points]
            for row, column in cells:
                grid[row, max(column - 1, 0) : column + 2] = IGNORED
            for letter, (row, column) in zip(sample.facts.get("letters", ""), cells, strict=True):
                grid[row, column] = self.symbols.get(letter, IGNORED)
        return targets

    def _target(self, sample: Sample) -> list[int]:
        """Symbols of the printed text, line breaks left out; empty for samples that are not about reading."""
        if sample.task not in ("ocr", "markdown") or len(sample.images) != 1:
            return []
        text = sample.facts.get("printed", sample.answer)
        return [self.symbols[character] for character in text if character in self.symbols]


def _token_at(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """Row and column of a place (0-1000) in a grid of tokens."""
    return min(int(y * height / SCALE), height - 1), min(int(x * width / SCALE), width - 1)


def converse(samples: Sequence[Sample], turns: int, rng: random.Random) -> list[Sample]:
    """Neighbours with the same picture become conversations of up to ``turns`` samples.

    Their order is shuffled, but what tells most about the picture stands last, or the rest could be read off it.
    """
    made = []
    for _, group in itertools.groupby(samples, key=lambda sample: (sample.folder, sample.images)):
        group = list(group)
        if len(group[0].images) != 1:
            made += group
            continue
        rng.shuffle(group)
        parts = [group[start : start + turns] for start in range(0, len(group), turns)]
        made += [_conversation(sorted(part, key=lambda sample: _TELLING.get(sample.task, 0))) for part in parts]
    return made


_TELLING = {"caption": 1, "detect": 2}


def _conversation(samples: Sequence[Sample]) -> Sample:
    """One sample of several about one picture; one alone stays as it is."""
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
    whole = [sample for sample in samples if _complete(sample)]
    facts = {"everything": bool(whole)}
    return Sample(messages, first.images, first.id, first.task, whole[0].boxes if whole else [], facts, first.folder)


def _complete(sample: Sample) -> bool:
    """Whether the sample's boxes are those of all objects in the picture."""
    return sample.facts.get("everything", sample.task == "detect" and not sample.facts.get("asked"))


class SizeSampler(Sampler[int]):
    """Shuffled batches of like-shaped samples: batches of a window are cut from its samples sorted by shape. ``spans``:
    as SampleDataset's."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        spans: Sequence[tuple[float, float]],
        batch: int,
        seed: int,
        window: int = 64,
    ):
        self.sizes, self.spans, self.batch = list(sizes), list(spans), batch
        self.seed, self.window, self.epoch = seed, window, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        rng = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.sizes)))
        rng.shuffle(order)
        when = {index: rank / len(order) for rank, index in enumerate(order)}
        order.sort(key=lambda index: self.spans[index][0] + self.spans[index][1] * when[index])
        once = round(min(length for _, length in self.spans) * len(order))  # samples until the first copy comes
        step = self.batch * max(min(self.window, once // self.batch), 1)
        batches = []
        for start in range(0, len(order), step):
            part = sorted(order[start : start + step], key=self.sizes.__getitem__)
            batches += [part[place : place + self.batch] for place in range(0, len(part), self.batch)]
        last = [batch for batch in batches if len(batch) < self.batch]
        batches = [batch for batch in batches if len(batch) == self.batch]
        rng.shuffle(batches)
        for batch in batches + last:
            yield from batch


def view_of(sample: Sample) -> str:
    return TASKS[sample.task].view if sample.task in TASKS else "picture"
