"""The suites, each a layout of files."""

from varytoy.evaluation.suite import SUITES

__all__ = ["SUITES"]
