"""DocVQA and InfographicVQA, as the Robust Reading Competition gives them out."""

from varytoy.data.questions import docvqa, infovqa
from varytoy.evaluation.metrics import questions
from varytoy.evaluation.suite import register
from varytoy.evaluation.suites.base import DataSuite


class _Anls(DataSuite):
    def metrics(self, options):
        return [questions.anls(), questions.exact_match()]


@register
class DocVqa(_Anls):
    name = "docvqa"
    help = "DocVQA's validation questions about scanned documents (ANLS)"
    layout = "val_v1.0_withQT.json or val_v1.0.json, and documents/"
    files = ("val_v1.0_withQT.json", "val_v1.0.json")
    images = "documents/"
    question = staticmethod(docvqa)


@register
class InfoVqa(_Anls):
    name = "infovqa"
    help = "InfographicVQA's validation questions about infographics (ANLS)"
    layout = "infographicsVQA_val_v1.0_withQT.json, and images/ or infographicsvqa_images/"
    files = ("infographicsVQA_val_v1.0_withQT.json", "infographicsVQA_val_v1.0.json", "infographicVQA_val_v1.0.json")
    images = "images/ or infographicsvqa_images/"
    question = staticmethod(infovqa)
