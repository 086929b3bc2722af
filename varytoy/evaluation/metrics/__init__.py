"""Metrics by field. Each function gives a ``Metric`` that a suite lists; docs/metrics.md has all of them in a table.

Unless a function says otherwise: truths are a case's first reference, values lie between 0 and 1, more is better, and
a case without an answer is scored as an empty answer.
"""

MODULES = ("apted", "jiwer", "lxml", "nltk", "pycocotools", "rapidfuzz", "sacrebleu")
"""What the metrics import from the extra "evaluate", for ``extras.require`` before a run; jieba only for Chinese."""
