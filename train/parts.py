"""The parts of a model that are trained, frozen or given a learning rate of their own."""

import typing
from typing import Literal

Part = Literal["vision_vocabulary", "clip", "connector", "language_model", "pointer", "letters", "numbers"]
PARTS: tuple[str, ...] = typing.get_args(Part)
