"""Self-critical sequence training (arXiv 1612.00563): captions that the model samples are rewarded by their CIDEr-D,
minus the mean of the other samples of the same image (arXiv 2003.09971)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from train.data.packing import segment_mask
from train.objectives import base
from varytoy.data.sample import Sample
from varytoy.processing.processor import IGNORED
from varytoy.tasks.cider import CiderD


@base.register
class SelfCritical(base.Objective):
    """Targets: ``self_critical.prompts`` [R, L], padded left with -100, and ``self_critical.groups`` [R, 2]: row of the
    batch and number of its references. For samples with one image each, and captions with ``references``."""

    name = "self_critical"

    @dataclass
    class Settings(base.Settings):
        samples: Annotated[int, Ge(2)] = 5
        """Captions that are sampled for each image."""
        max_new_tokens: Annotated[int, Gt(0)] = 28

    def __init__(self, settings):
        super().__init__(settings)
        self.references: list[list[str]] = []
        self.numbers: dict[tuple[str, ...], int] = {}
        self.scorer = CiderD(())

    def read_data(self, data):
        for sample in data.samples:
            for part in filter(_is_caption, _parts(sample)):
                references = tuple(part.annotations.references)
                if references not in self.numbers:
                    self.numbers[references] = len(self.references)
                    self.references.append(list(references))
        self.scorer = CiderD(self.references)

    def targets(self, items, batch, processor):
        if not items or any(len(item.images) != 1 for item in items):
            return {}
        prompts, groups = [], []
        for row, item in enumerate(items):
            caption = next((part for part in _parts(item.sample) if _is_caption(part)), None)
            if caption is not None:
                prompts.append(processor.encode(caption.messages[:-1], item.plans, False)[0])
                groups.append((row, self.numbers[tuple(caption.annotations.references)]))
        if not prompts:
            return {}
        padded = torch.full((len(prompts), max(map(len, prompts))), IGNORED)
        for row, prompt in zip(padded, prompts, strict=True):
            row[len(row) - len(prompt) :] = torch.tensor(prompt)
        return {"self_critical.prompts": padded, "self_critical.groups": torch.tensor(groups)}

    def losses(self, model, head, state):
        prompts, groups = state.targets["self_critical.prompts"], state.targets["self_critical.groups"]
        count, tokenizer = self.settings.samples, self.tokenizer
        image_rows = state.image_rows.view(len(state.labels), -1, state.image_rows.shape[-1])[groups[:, 0]]
        mask = prompts != IGNORED
        prompts = prompts.masked_fill(~mask, tokenizer.pad_token_id)
        embedded = model.fuse(prompts, image_rows.flatten(0, 1))
        with torch.no_grad():
            sampled = model.language_model.generate(
                inputs_embeds=embedded.detach().repeat_interleave(count, 0),
                attention_mask=mask.long().repeat_interleave(count, 0),
                do_sample=True,
                top_k=0,
                max_new_tokens=self.settings.max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        advantage, reward = self._advantage(sampled, groups, tokenizer)
        written = sampled != tokenizer.pad_token_id
        hidden = self._states(model, embedded, mask, sampled, written)
        logits = F.linear(hidden[written], model.get_output_embeddings().weight).float()
        chosen = -F.cross_entropy(logits, sampled[written], reduction="none")
        weights = advantage[:, None].expand(written.shape)[written]
        return {"self_critical": -(chosen * weights).sum() / written.sum(), "reward": reward}  # the second for the log

    def _states(self, model, embedded: Tensor, mask: Tensor, sampled: Tensor, written: Tensor) -> Tensor:
        """The state that predicts each token of the samples [R * samples, S, D]. The samples of an image share its
        prompt in one row and do not see each other (train.data.packing)."""
        count, length = self.settings.samples, sampled.shape[1]
        answers = model.get_input_embeddings()(sampled).view(len(embedded), count * length, -1)
        numbers = torch.arange(1, count + 1, device=sampled.device).repeat_interleave(length)
        own = torch.where(written.view(len(embedded), -1), numbers, -1)
        segments = torch.cat([torch.where(mask, 0, -1), own], 1)
        places = (mask.cumsum(1) - 1).clamp(0)
        after = places[:, -1:] + 1 + torch.arange(length, device=sampled.device).repeat(count)
        states = model.language_model.base_model(
            inputs_embeds=torch.cat([embedded, answers], 1),
            attention_mask=segment_mask(segments, embedded.dtype),
            position_ids=torch.cat([places, after], 1),
            use_cache=False,
        ).last_hidden_state
        prompt = embedded.shape[1]
        last = states[:, prompt - 1 : prompt].repeat_interleave(count, 0)
        return torch.cat([last, states[:, prompt:].reshape(len(sampled), length, -1)[:, :-1]], 1)

    def _advantage(self, sampled: Tensor, groups: Tensor, tokenizer) -> tuple[Tensor, Tensor]:
        """Each sample's CIDEr-D minus the mean of its image's other samples [R * samples], and the mean CIDEr-D."""
        count = self.settings.samples
        texts: Sequence[str] = tokenizer.batch_decode(sampled, skip_special_tokens=True)
        numbers = groups[:, 1].tolist()
        scores = [self.scorer.score(text, self.references[numbers[index // count]]) for index, text in enumerate(texts)]
        rewards = torch.tensor(scores, device=sampled.device).view(-1, count)
        others = (rewards.sum(1, keepdim=True) - rewards) / (count - 1)
        return (rewards - others).flatten(), rewards.mean()


def _parts(sample: Sample) -> Sequence[Sample]:
    return getattr(sample, "parts", (sample,))


def _is_caption(sample: Sample) -> bool:
    return sample.task == "caption" and bool(sample.annotations.references)
