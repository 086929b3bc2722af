"""TextVQA: questions about text in photographs, with the answers of ten people."""

from varytoy.data.questions import textvqa
from varytoy.evaluation.metrics import vqa
from varytoy.evaluation.suite import register
from varytoy.evaluation.suites.base import DataSuite


@register
class TextVqa(DataSuite):
    name = "textvqa"
    help = "TextVQA's validation questions about text in photographs (VQA accuracy)"
    layout = "TextVQA_0.5.1_val.json, and train_images/"
    files = ("TextVQA_0.5.1_val.json",)
    images = "train_images/"
    question = staticmethod(textvqa)

    def metrics(self, options):
        return [vqa.vqa_accuracy()]
