"""Takes the screenshots of docs/pictures: a report, TensorBoard's first page, and the documentation's start page.

Run ``python -m benchmarks.screenshots RUN FOLDER`` with a finished run; ``make docs`` first, for the documentation. It
needs the extra ``dev`` and a Chromium on the path.
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SITE = Path(__file__).resolve().parent.parent / "site"
WIDE, NARROW = 1280, 390


def take(run: Path, folder: Path) -> list[Path]:
    """Takes all screenshots.

    Args:
        run: A finished run.
        folder: The folder of the pictures; made if it does not exist.

    Returns:
        The pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = (run / "report.html").resolve().as_uri()
    with sync_playwright() as playwright, _chromium(playwright.chromium.launch) as browser:
        taken = [
            _shot(browser, page, folder / "report-wide.png", WIDE, "html[data-drawn]", height=1400),
            _shot(browser, page, folder / "report-narrow.png", NARROW, "html[data-drawn]", height=1400),
            _shot(browser, page, folder / "report-dark.png", WIDE, "html[data-drawn]", "dark", height=1400),
        ]
        with _tensorboard(run) as address:
            taken.append(_shot(browser, address, folder / "tensorboard.png", WIDE, "scalar-card svg", wait=8.0))
        if SITE.is_dir():
            with _served(SITE) as address:
                taken.append(_shot(browser, address, folder / "documentation.png", WIDE, "article h1", wait=1.0))
    return taken


@contextmanager
def _chromium(launch) -> Iterator[Browser]:  # type: ignore[no-untyped-def]
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        sys.exit(f"no browser is installed; install one of {', '.join(BROWSERS)}")
    browser = launch(executable_path=path, args=["--no-sandbox"])
    try:
        yield browser
    finally:
        browser.close()


def _shot(
    browser: Browser,
    address: str,
    file: Path,
    width: int,
    ready: str,
    scheme: str = "light",
    height: int = 900,
    wait: float = 0.0,
) -> Path:
    """Takes one screenshot when the element ``ready`` is there, and ``wait`` seconds later."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector(ready)
    time.sleep(wait)
    page.screenshot(path=file)
    context.close()
    return file


@contextmanager
def _tensorboard(run: Path) -> Iterator[str]:
    """The address of a TensorBoard of the run."""
    port = _free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/#timeseries"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a folder, served on this machine."""
    with ThreadingHTTPServer(("localhost", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    for picture in take(Path(sys.argv[1]), Path(sys.argv[2])):
        print(picture)
