"""Other people's checkpoints in, and formats that other engines read out. The key maps are the files in ``maps/``."""

from varytoy.weights.convert import convert, load
from varytoy.weights.maps import Family, families, recognise
from varytoy.weights.source import Source, WeightsError

__all__ = ["Family", "Source", "WeightsError", "convert", "families", "load", "recognise"]
