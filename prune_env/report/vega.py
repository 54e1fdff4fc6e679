"""The script of the charts: Vega, Vega-Lite and Vega-Embed, as text to put into a page.

The package ``vl-convert-python`` carries these libraries and bundles them in seconds, without a network. The bundle is
kept in the user's cache.
"""

import os
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import vl_convert

from prune_env.common.files import atomic_write

VEGA_LITE = "6.1"
"""The version of Vega-Lite that the charts are written for."""


@cache
def vega_script() -> str:
    """The bundle, about 900 kB of JavaScript, which defines ``vegaEmbed``; it fetches nothing when it runs."""
    place = _place()
    with suppress(OSError, UnicodeDecodeError):
        return place.read_text(encoding="utf-8")
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, script.encode())
    return script


def _place() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(root) if root else Path.home() / ".cache") / "prune_env" / "report"
    return folder / f"vega-lite-{VEGA_LITE}-vl-convert-{version('vl-convert-python')}.js"
