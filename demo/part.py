"""A rectangle that a visitor draws on the picture with the mouse: the part that is read."""

import re

from varytoy.layout.frames import in_pixels

CSS = """
#part { display: none; }
#picture img { cursor: crosshair; user-select: none; }
.vt-part { position: absolute; pointer-events: none; border: 2px solid var(--primary-500); border-radius: 2px;
  box-shadow: 0 0 0 9999px rgba(15, 23, 42, .28); clip-path: inset(-9999px); }
.vt-frame { position: relative; overflow: hidden; }
.vt-whole { margin: 0 !important; font-size: 13.5px; color: var(--body-text-color-subdued); }
"""
SCRIPT = """
() => {
  let drawing = null;
  const field = () => document.querySelector("#part textarea, #part input");
  const picture = () => document.querySelector("#picture img");
  // The picture inside its element, which may have bands beside it.
  const inside = (image) => {
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
    return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
  };
  const at = (event, area) => [
    Math.round(1000 * Math.min(Math.max((event.clientX - area.left) / area.width, 0), 1)),
    Math.round(1000 * Math.min(Math.max((event.clientY - area.top) / area.height, 0), 1)),
  ];
  const show = (box) => {
    const image = picture(), parent = image && image.parentElement;
    let frame = document.querySelector(".vt-part");
    if (frame && (!box || frame.parentElement !== parent)) { frame.remove(); frame = null; }
    if (!box || !parent || !image.naturalWidth) return;
    if (!frame) {
      frame = document.createElement("div");
      frame.className = "vt-part";
      parent.classList.add("vt-frame");
      parent.appendChild(frame);
    }
    const area = inside(image), origin = parent.getBoundingClientRect();
    frame.style.left = area.left - origin.left + (area.width * box[0]) / 1000 + "px";
    frame.style.top = area.top - origin.top + (area.height * box[1]) / 1000 + "px";
    frame.style.width = (area.width * (box[2] - box[0])) / 1000 + "px";
    frame.style.height = (area.height * (box[3] - box[1])) / 1000 + "px";
  };
  const known = () => {
    const box = field() ? field().value.split(",").map(Number) : [];
    return box.length === 4 ? box : null;
  };
  const tell = (box) => {
    const input = field();
    if (!input) return;
    input.value = box ? box.join(",") : "";
    input.dispatchEvent(new Event("input", { bubbles: true }));
    show(box);
  };
  const drawn = (event) => {
    const [x, y] = at(event, inside(drawing.image));
    const [x0, y0] = drawing.start;
    return [Math.min(x, x0), Math.min(y, y0), Math.max(x, x0), Math.max(y, y0)];
  };
  document.addEventListener("dragstart", (event) => { if (event.target === picture()) event.preventDefault(); });
  document.addEventListener("pointerdown", (event) => {
    const image = picture();
    // A finger scrolls the page.
    if (event.target !== image || event.button !== 0 || event.pointerType === "touch") return;
    drawing = { image, start: at(event, inside(image)) };
  });
  document.addEventListener("pointermove", (event) => { if (drawing) show(drawn(event)); });
  document.addEventListener("pointerup", (event) => {
    if (!drawing) return;
    const box = drawn(event);
    drawing = null;
    tell(box[2] - box[0] > 8 && box[3] - box[1] > 4 ? box : null);
  });
  // The picture is put anew into the page when boxes are drawn on it.
  new MutationObserver(() => { if (!drawing) show(known()); })
    .observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
  addEventListener("resize", () => show(known()));
  document.addEventListener("load", (event) => { if (event.target === picture()) show(known()); }, true);
  window.vtPart = () => setTimeout(() => show(known()));
}
"""


def place_in(part: str | None, size: tuple[int, int]) -> list[float] | None:
    """xyxy in pixels of a page of ``size`` (width, height), from what the page sends, which is in thousandths; None for
    the whole page.

    Raises:
        ValueError: it is no rectangle.
    """
    if not part:
        return None
    numbers = re.fullmatch(r"(\d{1,4}),(\d{1,4}),(\d{1,4}),(\d{1,4})", part) if isinstance(part, str) else None
    if numbers is None:
        raise ValueError("draw a rectangle on the picture again: what was sent is none")
    sides = in_pixels([int(number) for number in numbers.groups()], size)
    if sides[0] >= sides[2] or sides[1] >= sides[3]:
        raise ValueError("draw a larger rectangle on the picture, or click on it for the whole picture")
    return sides
