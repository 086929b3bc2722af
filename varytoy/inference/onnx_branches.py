"""The vision branches of a model in ONNX Runtime, on a CPU."""

import warnings

import torch
from torch import Tensor, nn

from varytoy.devices.precision import DeviceError
from varytoy.extras import require
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.models.vision.base import VisionEncoder
from varytoy.models.vision.patches import PatchesBranch
from varytoy.models.vision.sam import VisionVocabulary, image_mask
from varytoy.models.vision.serial_clip import SerialClip


@torch.no_grad()
def run_in_onnx(model: VaryForConditionalGeneration, side: int = 0) -> None:
    """Let the vision branches of a model run in ONNX Runtime from now on. Takes some seconds a branch.

    ``side``: pixels of the images, where the vision vocabulary then takes one size only; 0 for its ``image_size``.

    Raises:
        MissingExtra: the onnx packages are not installed.
        DeviceError: the model is not on a CPU, or not in fp32, or takes patches of images of any shape, or has a CLIP
            branch behind a vision vocabulary for images of several sizes.
    """
    require("onnx", "onnx", "onnxscript", "onnxruntime", by="--runtime onnx")
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise DeviceError("--runtime onnx is for a CPU and fp32: leave it out, or add --device cpu --dtype fp32")
    if isinstance(model.vision_vocabulary, PatchesBranch):
        raise DeviceError("--runtime onnx does not run a vision branch of the type vary_patches: leave it out")
    vocabulary, clip = model.vision_vocabulary, model.clip
    if model.config.serial and getattr(vocabulary, "pads", False):
        raise DeviceError("--runtime onnx: this model's CLIP takes features of several sizes: leave it out")
    side = side or vocabulary.config.image_size
    vocabulary.forward = _OnnxForward(vocabulary, torch.randn(2, 3, side, side))  # type: ignore[method-assign]
    if clip is not None:
        example = torch.randn(2, 3, clip.config.image_size, clip.config.image_size)
        if model.config.serial:
            down, across = vocabulary.stride
            example = torch.randn(2, side // down, side // across, clip.width)
        clip.forward = _OnnxForward(clip, example)  # type: ignore[method-assign]


class _Padded(nn.Module):
    """A vision vocabulary that takes images of several sizes, with the mask computed for each batch."""

    def __init__(self, branch: VisionVocabulary):
        super().__init__()
        self.branch = branch

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        return self.branch.encode(pixels, image_mask(sizes, *pixels.shape[-2:]))


class _OnnxForward:
    """A branch's forward, exported for batches of any number of images; of any size, where the branch takes these."""

    def __init__(self, branch: VisionEncoder, pixels: Tensor):
        """``pixels``: two images, or their features for a branch that takes these."""
        import onnxruntime

        side, (down, across) = pixels.shape[-1], branch.stride
        self.shape, batch = pixels.shape[1:], torch.export.Dim("batch", min=1)
        self.sized = not isinstance(branch, SerialClip)
        self.pads = isinstance(branch, VisionVocabulary) and branch.pads
        inputs: tuple[Tensor, ...] = (pixels,)
        shapes: tuple[dict, ...] = ({0: batch},)
        module: nn.Module = branch
        if self.pads:
            module, inputs = _Padded(branch), (pixels, torch.tensor([[side, side], [down, across]]))
            high, wide = (torch.export.Dim(name, min=1) for name in ("high", "wide"))
            shapes = ({0: batch, 2: down * high, 3: across * wide}, {0: batch})
        names = ["pixels", "sizes"][: len(inputs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = {"dynamic_shapes": shapes, "input_names": names, "dynamo": True, "verbose": False}
            program = torch.onnx.export(module, inputs, **settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        graph = program.model_proto.SerializeToString()
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        if not self.pads and pixels.shape[1:] != self.shape:
            raise ValueError("--runtime onnx: the image encoders are for images of one size: leave the resolution out")
        feed, whole = {"pixels": pixels.numpy()}, torch.tensor([pixels.shape[-2:]] * len(pixels))
        if self.pads:
            feed["sizes"] = (whole if sizes is None else sizes).long().numpy()
        elif self.sized and sizes is not None and not torch.equal(sizes.long(), whole):
            raise ValueError("this image encoder takes images of one size in a batch: resize them, or one by one")
        return torch.from_numpy(self.session.run(None, feed)[0])
