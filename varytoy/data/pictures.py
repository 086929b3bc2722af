"""Open images of any kind and convert them to RGB: upright, on a contrasting opaque background, 8 bits."""

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from varytoy.errors import first_line

MAX_PIXELS = 80_000_000
FORMATS = (
    *("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000"),
    *("ICO", "ICNS", "PCX", "TGA", "SGI", "DDS", "XBM", "XPM"),
)
"""Accepted Pillow formats. Others are refused by name: EPS would start Ghostscript, PSD holds layers."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes an image of an EXIF orientation upright."""
_ORIENTATION = 0x0112
_EXPORT = "export it as PNG or JPEG"
_OTHERS = (
    (0, b"8BPS", f"a Photoshop file; {_EXPORT}"),
    (0, b"%!PS", "a PostScript or EPS file; convert it to PDF"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file; convert it to PDF"),
    (0, b"AT&TFORM", "a DjVu file; convert it to PDF"),
    (0, b"PK\x03\x04", "a zip archive or an office document; unpack it, or save it as PDF"),
    (0, b"\xd0\xcf\x11\xe0", "an office document; save it as PDF"),
    (0, b"{\\rtf", "an RTF document; save it as PDF"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (0, b"<svg", f"an SVG drawing; {_EXPORT}"),
    (0, b"<?xml", f"an XML file; if it is an SVG drawing, {_EXPORT}"),
    (0, b"<!DOCTYPE", "a web page; print it to PDF"),
    (0, b"<html", "a web page; print it to PDF"),
)
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


class DocumentError(ValueError):
    """The document cannot be read; the message is one sentence for the user. ``page`` is set if only that page is
    affected."""

    page: int | None = None


class PasswordError(DocumentError):
    """The PDF needs a password, or the password is wrong."""


def turned(file: Path, size: tuple[int, int] | None = None) -> bool:
    """Whether EXIF turns the image, so that boxes of the image as it is stored are beside its objects. ``size``: of the
    image that the boxes are about; the upright one's is right. False for what cannot be read."""
    try:
        with Image.open(file) as image:
            turn, stored = image.getexif().get(_ORIENTATION, 1), image.size
    except Exception:  # pillow's readers raise nearly anything; who opens the image reports it
        return False
    shown = stored[::-1] if turn in (5, 6, 7, 8) else stored
    return turn in range(2, 9) and (size != shown or shown == stored)


def open_picture(data: bytes, name: str) -> Image.Image:
    """Read the image's header without decoding pixels. Raises DocumentError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pillow warns about large images; MAX_PIXELS is the limit here
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise DocumentError(_too_large(name)) from None
    except UnidentifiedImageError:
        other = _other_format(data)
        raise DocumentError(
            f"{name} is {other}." if other else f"{name} is not an image or PDF that can be opened."
        ) from None
    except Exception as error:  # pillow's readers raise nearly anything on malformed headers
        raise DocumentError(f"{name} is a broken image: {first_line(error)}.") from None


def _other_format(data: bytes) -> str:
    """Description and fix for a file that is neither an accepted image nor a PDF; empty if unknown."""
    if data[4:8] == b"ftyp":
        if any(brand in data[8:32] for brand in _HEIF):
            return f"a HEIC picture; {_EXPORT}"
        return "a video; save a frame of it as PNG or JPEG"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((description for offset, signature, description in _OTHERS if start[offset:].startswith(signature)), "")


def check_size(width: float, height: float, name: str) -> None:
    """Raises DocumentError for an image without pixels or with more than ``MAX_PIXELS``."""
    if width < 1 or height < 1:
        raise DocumentError(f"{name} has no pixels ({width:.0f} x {height:.0f}).")
    if width * height > MAX_PIXELS:
        raise DocumentError(_too_large(name, round(width), round(height)))


def _too_large(name: str, width: int = 0, height: int = 0) -> str:
    shape = f" ({width} x {height})" if width else ""
    return f"{name} has over {MAX_PIXELS // 1_000_000} megapixels{shape}; reduce it first."


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: upright according to EXIF, on an opaque background, 16 bits reduced to 8."""
    image.load()  # rotates a TIFF according to its tag and removes the tag
    orientation = _orientation(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image).convert("RGB")
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_paper(image.convert("RGBA"))
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if orientation not in _UPRIGHT:
        return image
    upright = image.transpose(_UPRIGHT[orientation])
    upright.info = {}  # it still has the EXIF orientation
    return upright


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, or 1 if it is missing or EXIF cannot be read: the pixels are intact without it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # pillow's EXIF reader raises nearly anything on malformed blocks
        return 1


def _on_paper(image: Image.Image) -> Image.Image:
    """RGBA -> RGB on white; on black if most pixels are transparent and the others are light, such as white letters."""
    import numpy as np

    values = np.asarray(image)
    opaque = values[..., 3] > 127
    brightness = 0.0
    if 0 < opaque.mean() < 0.7:
        brightness = float((values[..., :3][opaque] @ np.float32([0.299, 0.587, 0.114])).mean())
    background = Image.new("RGBA", image.size, "black" if brightness > 170 else "white")
    return Image.alpha_composite(background, image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce grey of 16 or 32 bits to 8; pillow's own conversion clips everything above 255. Scanners and cameras write
    10, 12 or 14 bits into 16, so white is the smallest full scale that holds the brightest value."""
    import numpy as np

    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    maximum = float(values.max(initial=0))
    if image.mode == "F" and maximum <= 1:
        top = 1.0
    else:
        top = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if maximum < 2**bits), maximum)
    return Image.fromarray((values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))
