"""Evaluation: suites of cases, metrics with intervals, and the systems that are measured."""
