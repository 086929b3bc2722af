"""What is measured: varytoy's own reader, and other readers beside it."""

from varytoy.evaluation.systems.base import System
from varytoy.evaluation.systems.choose import choose

__all__ = ["System", "choose"]
