"""The suites that ``varytoy evaluate`` knows, one module a layout."""

from varytoy.evaluation.suite import SUITES
from varytoy.evaluation.suites import (  # noqa: F401
    chartqa,
    docvqa,
    folders,
    fox,
    funsd,
    ocrbench,
    olmocr,
    omnidocbench,
    pope,
    refcoco,
    samples,
    scans,
    sroie,
    textvqa,
)

__all__ = ["SUITES"]
