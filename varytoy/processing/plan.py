"""ImagePlan: how one image is resized, tiled and turned into tokens; computed once and then only looked up."""

from dataclasses import dataclass
from typing import NamedTuple

from varytoy.processing.tiling import Tiling


class Grid(NamedTuple):
    """Rows and columns of image tokens."""

    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.rows * self.columns


class Tile(NamedTuple):
    """A part of the resized image that the encoders process at once.

    ``box``: xyxy in pixels of the resized image; ``grid``: its tokens in reading order, padding included.
    """

    box: tuple[int, int, int, int]
    grid: Grid


@dataclass(frozen=True)
class ImagePlan:
    """How an image is resized and tiled, and which token covers which pixel.

    Attributes:
        size: (width, height) of the original image in pixels.
        view: ``"text"`` or ``"picture"``.
        scaled: (width, height) to which it is resized, before padding.
        stride: pixels per token, (vertical, horizontal).
        tiles: the encoders' inputs, in the order of their tokens.
        latents: tokens per tile if the connector makes a fixed number of them; 0 for one per position of the tile's
            grid.
    """

    size: tuple[int, int]
    view: str
    scaled: tuple[int, int]
    stride: tuple[int, int]
    tiles: tuple[Tile, ...]
    latents: int = 0

    @classmethod
    def whole(
        cls, size: tuple[int, int], view: str, scaled: tuple[int, int], stride: tuple[int, int], latents: int = 0
    ) -> "ImagePlan":
        """A plan with one tile for the whole image, padded to multiples of the stride."""
        width, height = scaled
        grid = Grid(-(-height // stride[0]), -(-width // stride[1]))
        return cls(size, view, scaled, stride, (Tile((0, 0, width, height), grid),), latents)

    @classmethod
    def tiled(
        cls, size: tuple[int, int], view: str, side: int, tiling: Tiling, stride: tuple[int, int], latents: int = 0
    ) -> "ImagePlan":
        """A plan with square tiles of ``side`` pixels, and the thumbnail as the last."""
        grid = Grid(-(-side // stride[0]), -(-side // stride[1]))
        boxes = [
            (column * side, row * side, (column + 1) * side, (row + 1) * side)
            for row in range(tiling.rows)
            for column in range(tiling.columns)
        ]
        scaled = (tiling.columns * side, tiling.rows * side)
        boxes += [(0, 0, *scaled)] * tiling.thumbnail
        return cls(size, view, scaled, stride, tuple(Tile(box, grid) for box in boxes), latents)

    @property
    def tokens(self) -> int:
        """Number of image tokens in the prompt."""
        return len(self.tiles) * self.latents if self.latents else sum(tile.grid.size for tile in self.tiles)

    @property
    def grid(self) -> Grid:
        """The grid of an image with one tile. Raises ValueError for several tiles."""
        if len(self.tiles) != 1:
            raise ValueError(f"an image of {len(self.tiles)} tiles has no single grid")
        return self.tiles[0].grid

    def cell(self, x: float, y: float, tile: int = 0, across: int = 1) -> tuple[int, int]:
        """Row and column of the tile's grid at a point in relative image coordinates (0-1); points outside the tile are
        clamped to its edge. ``across``: factor by which the columns are subdivided."""
        left, top, _, _ = self.tiles[tile].box
        rows, columns = self.tiles[tile].grid
        row = int((y * self.scaled[1] - top) / self.stride[0])
        column = int((x * self.scaled[0] - left) / self.stride[1] * across)
        return min(max(row, 0), rows - 1), min(max(column, 0), columns * across - 1)

    def token_at(self, x: float, y: float) -> int:
        """Index of the image token at a point in relative image coordinates (0-1); with several tiles, in the first one
        that contains the point.

        Raises:
            ValueError: the connector's tokens have no positions (``latents``).
        """
        if self.latents:
            raise ValueError("tokens of a connector that makes a fixed number of them have no positions in the image")
        start = 0
        for number, (box, grid) in enumerate(self.tiles):
            inside = box[0] <= x * self.scaled[0] <= box[2] and box[1] <= y * self.scaled[1] <= box[3]
            if inside or number == len(self.tiles) - 1:
                row, column = self.cell(x, y, number)
                return start + row * grid.columns + column
            start += grid.size
        raise AssertionError("a plan has at least one tile")
