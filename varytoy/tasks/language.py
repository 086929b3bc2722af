"""Captions, questions about an image, and plain conversation."""

from varytoy.data.sample import SampleError
from varytoy.tasks import metrics
from varytoy.tasks.base import Task
from varytoy.tasks.cider import CiderD, cider_d


class Caption(Task):
    name = "caption"
    search = True
    metric = "objects named"
    prompts = (
        "Describe the content of this image in a sentence.",
        "Describe the image with one saying.",
        "What is in this picture?",
        "Write a caption for this image.",
        "What does this image show?",
        "Describe this picture briefly.",
        "Sum up the image in one sentence.",
        "Give a short description of the image.",
        "Caption this image.",
        "Tell me what is in this picture.",
    )
    chinese_prompts = (
        "用一句话描述这张图片。",
        "这张图片里有什么？",
        "请为这张图片写一句说明。",
        "描述一下这张照片。",
        "图中是什么？",
        "请简单描述图片内容。",
        "给这张图配一句话。",
        "说说你在图里看到了什么。",
        "用中文概括这张图片。",
        "请用一句中文描述图像。",
    )
    """Prompts for a caption in Chinese, for models whose tokenizer has Chinese."""

    def metric_of(self, samples):
        return "CIDEr-D" if self._have_references(samples) else self.metric

    def _have_references(self, samples) -> bool:
        return all(sample.annotations.references for sample in samples)

    def score(self, predictions, samples):
        """CIDEr-D, if all samples have ``references``; else the recall of the annotations' object names.

        Raises:
            SampleError: a sample has neither.
        """
        if self._have_references(samples):
            return cider_d(predictions, [sample.annotations.references for sample in samples])
        unnamed = next((sample for sample in samples if sample.annotations.object_names is None), None)
        if unnamed is not None:
            raise SampleError(
                f"{unnamed.name}: captions are scored by 'annotations.references' or '.object_names'; add one of them"
            )
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(metrics.names_found(text, sample.annotations.object_names) for text, sample in pairs)

    def scores(self, predictions, samples):
        """CIDEr-D with the document frequencies of all samples, or as ``score``."""
        if not self._have_references(samples):
            return super().scores(predictions, samples)
        references = [sample.annotations.references for sample in samples]
        scorer = CiderD(references)
        return [scorer.score(*pair) for pair in zip(predictions, references, strict=True)]


class Vqa(Task):
    name = "vqa"
    asks = True
    takes = "a question"
    prompts = (
        "{} Answer using a single word or phrase.",
        "{} Give a short answer.",
        "Answer in a word or two: {}",
        "{} Reply with one word or a short phrase.",
        "{} Keep the answer short.",
        "{} Be brief.",
        "{} One or two words are enough.",
        "Look at the image and answer briefly: {}",
        "Answer this question in a few words: {}",
        "In a word or a short phrase: {}",
    )


class Chat(Task):
    name = "chat"
    asks = True
    takes = "something to say"
    prompts = ("{}",)
