"""Collator: samples -> the tensors of a batch, with the targets of each objective."""

import zlib
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from train.data.bad_samples import BadSamples, fault
from train.data.dataset import PackedSample, view_of
from train.data.feature_cache import FeatureStore, feature_key
from train.data.item import Item
from train.data.packing import pack, segment_tensors
from train.objectives import Objective
from train.objectives.locations import with_corners, with_places
from varytoy.data.sample import Sample, SampleError
from varytoy.processing.processor import IGNORED, VaryProcessor


class Collator:
    """Samples -> tensors.

    Args:
        objectives: their targets are in the batch, under ``targets``.
        clip: whether the model has a CLIP branch that takes pixels.
        token_corruption: mean fraction of the answers' tokens that are replaced in the input.
        names: add the samples' ids.
        features: the towers' features, used instead of pixels.
    """

    def __init__(
        self,
        processor: VaryProcessor,
        max_length: int,
        bad: BadSamples,
        *,
        objectives: Sequence[Objective] = (),
        clip: bool = False,
        token_corruption: float = 0.0,
        names: bool = False,
        features: FeatureStore | None = None,
    ):
        self.processor, self.max_length, self.bad = processor, max_length, bad
        self.objectives, self.clip = list(objectives), clip
        self.token_corruption, self.names, self.features = token_corruption, names, features

    def __call__(self, items: Sequence[tuple[Sample, list] | None]) -> dict[str, Tensor]:
        pairs = [item for item in items if item is not None]
        try:
            return self._batch(pairs)
        except Exception:  # of any kind: find the faulty sample, which must not end the run
            good = [pair for pair in pairs if self._good_alone(pair)]
            if len(good) == len(pairs):
                raise
            return self._batch(good)

    def _good_alone(self, pair: tuple[Sample, list]) -> bool:
        """Whether a batch can be made of this sample alone; counts it as bad if not."""
        try:
            self._batch([pair])
        except Exception as error:
            self.bad(fault(pair[0], error))
            return False
        return True

    def _batch(self, pairs: Sequence[tuple[Sample, list]]) -> dict[str, Tensor]:
        items = [self._item(*pair) for pair in pairs]
        items = [item for item in items if self._fits(item)]
        if not items:  # all are counted as bad; this batch has no loss
            return {
                "input_ids": torch.tensor([[self.processor.tokenizer.pad_token_id]]),
                "labels": torch.full((1, 1), IGNORED),
            }
        if self.features is None:
            pairs = [pair for item in items for pair in zip(item.images, item.plans, strict=True)]
            batch = dict(self.processor.batch([item.encoded for item in items], pairs, True))
        else:
            batch = self._with_features(items)
        if any(item.segments for item in items):
            batch |= segment_tensors([item.segments for item in items], batch["input_ids"].shape)
        batch.pop("attention_mask")  # padding is on the right, which a causal decoder does not attend to
        if not self.clip:
            batch.pop("clip_pixel_values", None)
        targets: dict[str, Tensor] = {}
        for objective in self.objectives:
            targets |= objective.targets(items, batch, self.processor)
        if targets:
            batch["targets"] = targets
        if self.token_corruption:
            # Seeded by the batch itself, so that a resumed run draws the same.
            rng = torch.Generator().manual_seed(zlib.crc32("\n".join(item.sample.id for item in items).encode()))
            batch["input_ids"] = self._corrupt(batch["input_ids"], batch["labels"], rng)
        if self.names:
            batch["names"] = [item.sample.id for item in items]
        return batch

    def _with_features(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Tokens and labels, with the features of all images instead of pixels."""
        keys = [
            feature_key(self.features.key(path), item.sample) for item in items for path in item.sample.image_paths()
        ]
        rows = [self.features.get(key) for key in keys]
        names = rows[0] if rows else ()
        batch = self.processor.pad([item.encoded for item in items], True)
        return batch | {f"{name}_features": torch.stack([row[name] for row in rows]) for name in names}

    def _item(self, sample: Sample, images: list[Image.Image]) -> Item:
        """If the model has place tokens, they are inserted before the answers' lines, words and boxes."""
        plans = [self.processor.image_processor.plan(image.size, view_of(sample)) for image in images]
        item = Item(sample, images, plans, list(sample.messages))
        if isinstance(sample, PackedSample):
            item.encoded, item.segments = pack([self._item(part, images).encoded for part in sample.parts])
            return item
        if len(images) == 1 and self.processor.places:
            insert = with_places if sample.annotations.letters else with_corners
            answers = [number for number, message in enumerate(sample.messages) if message["role"] == "assistant"]
            for number, spots in zip(answers, item.spots, strict=True):
                message = sample.messages[number]
                content = insert(self.processor, message["content"], spots, plans[0].scaled)
                item.messages[number] = {**message, "content": content}
        item.encoded = self.processor.encode(item.messages, plans, True)
        return item

    def _fits(self, item: Item) -> bool:
        """Whether the sample is no longer than ``max_length`` tokens; a longer one is counted as bad."""
        length = len(item.encoded[0])
        if length > self.max_length:
            self.bad(SampleError(f"{item.sample.name}: {length} tokens, over train.max_length={self.max_length}"))
        return length <= self.max_length

    def _corrupt(self, ids: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        """ids [B, T] with some of the answers' tokens replaced by others of the batch; the fraction varies by answer.
        Special tokens are kept."""
        replaceable = (labels != IGNORED) & ~torch.isin(ids, torch.tensor(self.processor.tokenizer.all_special_ids))
        if not bool(replaceable.any()):
            return ids
        share = torch.rand(ids.shape[0], 1, generator=rng) * 2 * self.token_corruption
        chosen = replaceable & (torch.rand(ids.shape, generator=rng) < share)
        others = ids[replaceable]
        return ids.masked_scatter(chosen, others[torch.randint(len(others), (int(chosen.sum()),), generator=rng)])
