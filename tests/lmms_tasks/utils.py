"""What the tasks of lmms-eval do with documents and answers, for the same columns in local files."""

from lmms_eval.tasks.docvqa import utils as docvqa
from lmms_eval.tasks.ocrbench import utils as ocrbench
from lmms_eval.tasks.refcoco_grounding import utils as refcoco

image = docvqa.docvqa_doc_to_visual
question = docvqa.docvqa_doc_to_text
ocrbench_text, ocrbench_results = ocrbench.ocrbench_doc_to_text, ocrbench.ocrbench_process_results
grounding_text, grounding_results = refcoco.refcoco_grounding_doc_to_text, refcoco.refcoco_grounding_process_result
grounding_iou, grounding_accuracy = refcoco.refcoco_grounding_iou, refcoco.refcoco_grounding_acc05


def ocrbench_accuracy(results):
    return sum(result["score"] for result in results) / len(results)
