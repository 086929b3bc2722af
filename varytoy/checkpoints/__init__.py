"""Import of other projects' checkpoints and export to the formats of other engines. Key maps are in ``maps/``."""

from varytoy.checkpoints.convert import convert, load
from varytoy.checkpoints.export import export_decoder, export_got, export_onnx, export_vocabulary, import_vocabulary
from varytoy.checkpoints.maps import Family, WeightsError, families, recognise
from varytoy.checkpoints.source import Source

__all__ = [
    "Family",
    "Source",
    "WeightsError",
    "convert",
    "export_decoder",
    "export_got",
    "export_onnx",
    "export_vocabulary",
    "families",
    "import_vocabulary",
    "load",
    "recognise",
]
