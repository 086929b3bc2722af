"""Parts of a checkpoint: models of their own for pictures, for formulas and for questions about text, each loaded when
it is first needed."""

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from varytoy.inference.engine import Engine
from varytoy.inference.shared import SharedEngine, share

PARTS = {"picture": "pictures", "formula": "formulas", "question": "questions"}
"""View of the tasks that a part answers -> its folder in that of the checkpoint. The part for ``question`` gets the
text of an image in place of the image (``text_answers``)."""

DRAWING = "drawing"
"""Folder of a checkpoint's image decoder (varytoy.models.image_decoder), which the model for pictures talks to."""


def parts_of(folder: Path) -> dict[str, Path]:
    """The folders of a checkpoint's parts, by view."""
    found = {view: folder / name for view, name in PARTS.items()}
    return {view: path for view, path in found.items() if (path / "config.json").is_file()}


class Parts:
    """The engines of a checkpoint's parts.

    Args:
        openers: view -> what loads the engine.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Engine]] | None = None):
        self._openers, self._loaded = dict(openers or {}), dict[str, Engine]()
        self._loading = threading.Lock()

    @property
    def views(self) -> Collection[str]:
        """Views that have a part of their own, loaded or not."""
        return self._openers.keys()

    def engine(self, view: str) -> Engine | None:
        """The engine for a view, loaded if it was not yet; None if there is no part for it."""
        if view not in self._openers:
            return None
        with self._loading:
            if view not in self._loaded:
                self._loaded[view] = self._openers[view]()
        return self._loaded[view]

    def shared(self, fair: bool) -> "Parts":
        """The same engines for several threads."""
        return Parts({view: lambda view=view: share(self.engine(view), fair) for view in self._openers})

    def close(self) -> None:
        """End the threads of a ``shared`` one."""
        for engine in self._loaded.values():
            if isinstance(engine, SharedEngine):
                engine.close()
