"""Fonts and English text for the renderers: their packages, licences and held-out parts.

None of them is committed. ``python -m data_tools fetch --out DIR`` downloads the packages with apt (no root needed) and
lays them out as ``DIR/fonts/*.ttf|otf`` and ``DIR/texts/NAME.txt``, a paragraph a line.
"""

import html.parser
import re
import shutil
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from data_tools.assets.packages import SourceError, unpacked


@dataclass(frozen=True)
class TextSource:
    package: str
    licence: str
    pattern: str
    """Path of the prose inside the unpacked package."""
    held_out: bool = False
    others: tuple[str, ...] = ()
    """Packages of other releases, tried in turn if this one is not available; their samples differ."""


TEXTS = (
    TextSource(
        "python3.11-doc",
        "PSF-2.0",
        "usr/share/doc/python3.*/html/**/*.html",
        others=("python3.13-doc", "python3.12-doc", "python3.10-doc"),
    ),
    TextSource("sqlite3-doc", "public domain", "usr/share/doc/sqlite3/*.html"),
    TextSource("perl-doc", "Artistic or GPL-1+", "usr/share/perl/*/pod/*.pod"),
    TextSource(
        "postgresql-doc-15",
        "PostgreSQL",
        "usr/share/doc/postgresql-doc-*/html/*.html",
        held_out=True,
        others=("postgresql-doc-17", "postgresql-doc-16", "postgresql-doc-14"),
    ),
)
"""No ``lipsum``, no share-alike text, and none of the TeX documentation that page reading is checked on."""

FONTS = {
    "fonts-dejavu-core": "Bitstream Vera",
    "fonts-dejavu-extra": "Bitstream Vera",
    "fonts-liberation": "OFL-1.1",
    "fonts-noto-core": "OFL-1.1",
    "fonts-freefont-ttf": "GPL-3+ with font exception",
    "fonts-texgyre": "GUST Font License",
    "fonts-lmodern": "GUST Font License",
    "fonts-cmu": "OFL-1.1",
    "fonts-roboto-unhinted": "Apache-2.0",
    "fonts-open-sans": "OFL-1.1",
    "fonts-linuxlibertine": "OFL-1.1",
    "fonts-crosextra-carlito": "OFL-1.1",
    "fonts-crosextra-caladea": "OFL-1.1",
    "fonts-ebgaramond": "OFL-1.1",
    "fonts-lato": "OFL-1.1",
    "fonts-inconsolata": "OFL-1.1",
    "fonts-cabin": "OFL-1.1",
    "fonts-oldstandard": "OFL-1.1",
    "fonts-vollkorn": "OFL-1.1",
    "fonts-comic-neue": "OFL-1.1",
}

HELD_OUT_FONTS = (
    "TeX Gyre Schola",
    "Noto Sans Display",
    "Open Sans",
    "Linux Biolinum O",
    "Caladea",
    "Vollkorn",
    "Liberation Sans Narrow",
)
"""Font families that are not used in training samples."""

_FAMILIES = re.compile(
    r"DejaVu (Sans|Serif|Sans Mono|Sans Condensed|Serif Condensed)|Liberation .*|Noto (Sans|Serif)( Mono| Display)?"
    r"|Free(Sans|Serif|Mono)|TeX Gyre (?!Chorus).*|L(atin )?M(odern)?(Roman|Sans|Mono| Roman| Sans| Mono).*"
    r"|CMU (Serif|Sans Serif|Typewriter Text|Concrete|Bright)|Roboto|Roboto Condensed|Open Sans"
    r"|Linux (Libertine|Biolinum) O|Carlito|Caladea|EB Garamond.*|Lato|Inconsolata|Cabin|Old Standard.*|Vollkorn"
    r"|Comic Neue"
)
_STYLES = {"regular", "book", "roman", "medium", "bold", "italic", "oblique", "bold italic", "bold oblique", "semibold"}


@dataclass(frozen=True)
class Font:
    family: str
    style: str
    path: str

    @property
    def upright(self) -> bool:
        """Neither bold nor slanted, so that its bold style stands out."""
        return self.style in ("regular", "book", "roman")


def fetch(directory: Path) -> None:
    """Download fonts and texts into ``directory``. Raises SourceError with apt's last message; on systems without apt,
    fill ``fonts`` and ``texts`` by hand."""
    (directory / "fonts").mkdir(parents=True, exist_ok=True)
    (directory / "texts").mkdir(exist_ok=True)
    for package in FONTS:
        with unpacked("apt", package) as root:
            for path in sorted([*root.rglob("*.ttf"), *root.rglob("*.otf")]):
                if not path.is_symlink():
                    shutil.copyfile(path, directory / "fonts" / path.name)
    for source in TEXTS:
        with unpacked("apt", source.package, *source.others) as root:
            lines = dict.fromkeys(
                line for path in sorted(root.glob(source.pattern)) for line in prose(path) if _usable(line)
            )
        (directory / "texts" / f"{source.package}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def origins(texts: Iterable[Path] = (), fonts: Path | None = None, split: str = "train") -> dict[str, str]:
    """Package, or a user's file or folder in place of them -> its licence."""
    own = {str(path): "" for path in texts} or {
        source.package: source.licence for source in TEXTS if source.held_out == (split == "test")
    }
    return own | ({str(fonts): ""} if fonts else FONTS)


def licences() -> str:
    """A table of the packages that fonts and texts come from."""
    rows = [f"{source.package:<24} text   {source.licence}" + " (held out)" * source.held_out for source in TEXTS]
    rows += [f"{package:<24} fonts  {licence}" for package, licence in FONTS.items()]
    return "\n".join([*rows, f"held-out font families: {', '.join(HELD_OUT_FONTS)}"])


class _Paragraphs(html.parser.HTMLParser):
    """Collects the text of p, li, dd, dt and heading elements, each on its own."""

    _OPEN = {"p", "li", "dd", "dt", "h1", "h2", "h3", "h4", "td"}
    _SKIP = {"script", "style", "pre", "nav", "head"}

    def __init__(self):
        super().__init__()
        self.paragraphs: list[str] = []
        self.parts: list[str] = []
        self.skip = 0

    def handle_starttag(self, tag, attrs):
        self.skip += tag in self._SKIP
        if tag in self._OPEN:
            self.flush()

    def handle_endtag(self, tag):
        self.skip -= tag in self._SKIP and self.skip > 0
        if tag in self._OPEN:
            self.flush()

    def handle_data(self, data):
        if not self.skip:
            self.parts.append(data)

    def flush(self):
        text = " ".join("".join(self.parts).replace("¶", "").split())
        self.parts = []
        if text:
            self.paragraphs.append(text)


def prose(path: Path) -> Iterator[str]:
    """The paragraphs of an HTML or POD file."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    if path.suffix == ".html":
        parser = _Paragraphs()
        parser.feed(text)
        parser.flush()
        yield from parser.paragraphs
    else:
        for paragraph in text.split("\n\n"):
            if not paragraph.startswith((" ", "\t", "=")):
                paragraph = re.sub(r"[A-Z]<+\s?([^<>]*?)\s?>+", r"\1", paragraph)
                yield " ".join(paragraph.split())


def _usable(line: str) -> bool:
    letters = sum(character.isalpha() for character in line)
    return len(line) >= 20 and letters >= 0.6 * len(line) and line.isprintable()


PRINTED = frozenset(
    "".join(chr(code) for code in range(32, 127))
    + "\u2018\u2019\u201c\u201d\u2013\u2014\u2022\u00a9\u00ae\u00b0\u00a7\u00a3\u20ac"
    + "\u00e9\u00e8\u00fc\u00f6\u00e4\u00f1\u00e7\u00d7\u00b1"
)
"""The characters that the renderers print and the small models are trained on."""


def clean(text: str) -> str:
    """Normalise to NFKC, drop characters that are not in PRINTED, and collapse white space."""
    text = unicodedata.normalize("NFKC", text.replace("\u2026", "..."))
    return " ".join("".join(character for character in text if character in PRINTED).split())


def unknown(files: Sequence[Path]) -> Counter[str]:
    """The characters of a user's texts that the renderers cannot print, with their counts."""
    text = "".join(map(_read, files))
    return Counter(character for character in text if not character.isspace() and not clean(character))


def _fonts_in(directory: Path) -> Iterator[Font]:
    """Every font file of a folder. Raises SourceError for one that cannot be used."""
    for path in sorted(directory.glob("*.[to]tf")):
        try:
            family, style = ImageFont.truetype(str(path), 16).getname()
        except OSError as error:
            raise SourceError(f"{path} is not a usable font ({error})") from error
        yield Font(family or path.stem, (style or "regular").lower(), str(path))


def _first_of_each(candidates: Iterable[Font]) -> tuple[Font, ...]:
    """One font for each family and style."""
    fonts: dict[tuple[str, str], Font] = {}
    for font in candidates:
        fonts.setdefault((font.family, font.style), font)
    return tuple(fonts.values())


@lru_cache(maxsize=4)
def own_fonts(directory: Path) -> tuple[Font, ...]:
    """All fonts of a user's folder, for both splits. Raises SourceError if there are none."""
    unique = _first_of_each(_fonts_in(directory))
    if not unique:
        raise SourceError(f"no *.ttf or *.otf in {directory}")
    return unique


@lru_cache(maxsize=4)
def own_paragraphs(files: tuple[Path, ...], split: str) -> tuple[str, ...]:
    """Paragraphs of a user's texts, separated by blank lines, without words that contain an unknown character; about
    one in ten belongs to ``test``.

    Raises:
        SourceError: a file cannot be read, or there are no paragraphs of 20 characters.
    """
    parts = [part.split() for path in files for part in re.split(r"\n\s*\n", _read(path))]
    cleaned = [clean(" ".join(word for word in part if all(map(clean, word)))) for part in parts]
    cleaned = [part for part in dict.fromkeys(cleaned) if len(part) >= 20]
    chosen = [part for part in cleaned if (zlib.crc32(part.encode()) % 10 == 0) == (split == "test")]
    if not chosen:
        names = ", ".join(str(path) for path in files)
        raise SourceError(
            f"{len(cleaned)} paragraphs of 20 or more characters in {names}, none of them for the {split} split: "
            "paragraphs have blank lines between them, and some dozens are needed"
        )
    return tuple(chosen)


def _read(path: Path) -> str:
    """A user's text in NFKC, which composes letters with combining accents."""
    try:
        return unicodedata.normalize("NFKC", path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 ({error}): convert it first") from error


@lru_cache(maxsize=4)
def fonts(directory: Path, split: str) -> tuple[Font, ...]:
    """Latin text fonts of one split (``train`` or ``test``), sorted.

    Raises:
        SourceError: the folder holds none; the message names the command that fills it.
    """
    candidates = []
    for font in _fonts_in(directory / "fonts"):
        held_out = any(font.family == name or font.family.startswith(name + " ") for name in HELD_OUT_FONTS)
        if held_out == (split == "test") and font.style in _STYLES and _FAMILIES.fullmatch(font.family):
            candidates.append(font)
    unique = _first_of_each(candidates)
    if not unique:
        raise SourceError(
            f"no {split} fonts in {directory / 'fonts'}: run `python -m data_tools fetch --out {directory}`"
        )
    return unique


@lru_cache(maxsize=4)
def paragraphs(directory: Path, split: str) -> tuple[str, ...]:
    """Cleaned paragraphs of one split. Raises SourceError as ``fonts`` does."""
    lines = []
    for source in TEXTS:
        path = directory / "texts" / f"{source.package}.txt"
        if source.held_out == (split == "test") and path.is_file():
            lines += [clean(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if len(line) >= 20]
    if not lines:
        raise SourceError(
            f"no {split} texts in {directory / 'texts'}: run `python -m data_tools fetch --out {directory}`"
        )
    return tuple(lines)


def _missing(what: str, directory: Path, split: str) -> SourceError:
    return SourceError(f"no {split} {what} in {directory / what}: run `python -m data_tools fetch --out {directory}`")
