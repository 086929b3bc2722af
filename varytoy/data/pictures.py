"""Opening pictures of any kind and bringing them to RGB: upright, on paper that contrasts, 8 bits."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 80_000_000
FORMATS = (
    *("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000"),
    *("ICO", "ICNS", "PCX", "TGA", "SGI", "DDS", "XBM", "XPM"),
)
"""Pillow's formats that are opened. Others are refused by name: EPS would start Ghostscript, PSD holds layers."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of that EXIF orientation upright."""
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
    """The document cannot be read; the message is one sentence for the user. ``page`` is set where only that page is
    concerned."""

    page: int | None = None


class PasswordError(DocumentError):
    """A PDF that needs a password, or another one."""


def open_picture(data: bytes, name: str) -> Image.Image:
    """The picture with its header read, no pixels decoded. Raises DocumentError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pillow warns of large pictures; the limit here is stated below
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise DocumentError(_too_large(name)) from None
    except UnidentifiedImageError:
        other = _other_format(data)
        raise DocumentError(
            f"{name} is {other}." if other else f"{name} is not an image or PDF that can be opened."
        ) from None
    except Exception as error:  # pillow's readers raise nearly anything on malformed headers
        raise DocumentError(f"{name} is a broken image: {error}.") from None


def _other_format(data: bytes) -> str:
    """What a file is that is neither a picture of ours nor a PDF, with the fix; empty where unknown."""
    if data[4:8] == b"ftyp":
        if any(brand in data[8:32] for brand in _HEIF):
            return f"a HEIC picture; {_EXPORT}"
        return "a film; save a frame of it as PNG or JPEG"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((what for place, sign, what in _OTHERS if start[place:].startswith(sign)), "")


def check_size(width: float, height: float, name: str) -> None:
    """Raises DocumentError for a picture without pixels or with more than ``MAX_PIXELS``."""
    if width < 1 or height < 1:
        raise DocumentError(f"{name} has no pixels ({width:.0f} x {height:.0f}).")
    if width * height > MAX_PIXELS:
        raise DocumentError(_too_large(name, round(width), round(height)))


def _too_large(name: str, width: int = 0, height: int = 0) -> str:
    shape = f" ({width} x {height})" if width else ""
    return f"{name} has over {MAX_PIXELS // 1_000_000} megapixels{shape}; reduce it first."


def to_rgb(picture: Image.Image) -> Image.Image:
    """RGB; upright as its EXIF says, on paper where it was transparent, 16 bits brought to 8."""
    picture.load()  # which turns a TIFF by itself, and takes the tag away
    orientation = _orientation(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture).convert("RGB")
    elif picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = _on_paper(picture.convert("RGBA"))
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    if orientation not in _UPRIGHT:
        return picture
    upright = picture.transpose(_UPRIGHT[orientation])
    upright.info = {}  # which says that it is still to be turned
    return upright


def _orientation(picture: Image.Image) -> int:
    """EXIF's, or 1 where there is none or the EXIF block cannot be read: the pixels are whole without it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # pillow's EXIF reader raises nearly anything on malformed blocks
        return 1


def _on_paper(picture: Image.Image) -> Image.Image:
    """RGBA -> RGB, on white; on black where most is transparent and what is not is light, such as white letters."""
    import numpy as np

    values = np.asarray(picture)
    shown = values[..., 3] > 127
    light = 0.0
    if 0 < shown.mean() < 0.7:
        light = float((values[..., :3][shown] @ np.float32([0.299, 0.587, 0.114])).mean())
    paper = Image.new("RGBA", picture.size, "black" if light > 170 else "white")
    return Image.alpha_composite(paper, picture).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits brought to 8; pillow's own conversion cuts everything above 255 off. Scanners and cameras
    write 10, 12 or 14 bits into 16, so white is the smallest full scale that holds the brightest value."""
    import numpy as np

    values = np.nan_to_num(np.asarray(picture).astype(np.float32))
    most = float(values.max(initial=0))
    if picture.mode == "F" and most <= 1:
        top = 1.0
    else:
        top = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if most < 2**bits), most)
    return Image.fromarray((values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))
