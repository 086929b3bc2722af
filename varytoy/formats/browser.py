"""A page of HTML as a picture, by Chromium. It runs no script and reaches no network."""

import os
import shutil

from varytoy.extras import installed
from varytoy.formats.problem import NotationError

_WIDTH = 860
_LONGEST = 20_000
"""Pixels of the page's height."""
_SECONDS = 60
_INSTALL = "pip install playwright && playwright install chromium"


def png(page: str) -> bytes:
    """The whole page. Raises NotationError where no browser is found, or the page is endless."""
    if not installed("playwright"):
        raise NotationError(f"a picture of markdown needs a browser: {_INSTALL}, or write .html")
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=_browser(play.chromium.executable_path))
        except Error as error:
            raise NotationError(f"a picture of markdown needs a browser: {_INSTALL}, or write .html") from error
        try:
            context = browser.new_context(
                java_script_enabled=False,
                offline=True,
                viewport={"width": _WIDTH, "height": 200},
                device_scale_factor=2,
            )
            context.set_default_timeout(_SECONDS * 1000)
            shown = context.new_page()
            shown.set_content(page)
            box = shown.locator("article").bounding_box()
            if box is not None and box["height"] > _LONGEST:
                raise NotationError(f"the page is {box['height']:.0f} pixels high, at most {_LONGEST}; write .html")
            return shown.screenshot(full_page=True)
        finally:
            browser.close()


def _browser(own: str) -> str | None:
    """Chromium or Chrome of the system where playwright has none of its own."""
    if os.path.exists(own):
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)
