"""The notebooks in a real JupyterLab: pytest tests/tools/in_jupyterlab.py (wants playwright and a Chromium).

Not among the tests that `make test` runs: it takes a browser, and some ten seconds a notebook.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
READY = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
SCROLL_THROUGH = """async () => {
    const pane = document.querySelector(".jp-WindowedPanel-outer");
    for (let y = 0; y < pane.scrollHeight; y += 300) {
        pane.scrollTop = y;
        await new Promise(done => setTimeout(done, 50));
    }
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows a copy of the notebooks, with settings of its own."""
    folder = shutil.copytree(NOTEBOOKS, tmp_path_factory.mktemp("lab") / "notebooks")
    own = {f"JUPYTERLAB_{kind}_DIR": str(folder.parent / kind) for kind in ("SETTINGS", "WORKSPACES")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=8891"]
    command += ["--IdentityProvider.token=", f"--notebook-dir={folder}"]
    with subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL) as process:
        for _ in range(120):
            try:
                urllib.request.urlopen("http://127.0.0.1:8891/api").close()
                break
            except OSError:
                time.sleep(0.5)
        yield "http://127.0.0.1:8891/lab/tree"
        process.terminate()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def page(request, lab, browser):
    """A notebook that has been opened, with its kernel ready, and read to its end."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(f"{lab}/{request.param.name}?reset")
    opened.wait_for_selector(READY, timeout=60_000)
    time.sleep(2)
    opened.evaluate(SCROLL_THROUGH)
    yield opened
    opened.close()


def test_what_a_reader_meets_on_opening(page):
    assert page.locator(".jp-mod-dirty").count() == 0, "opening it makes it unsaved"
    for picture in page.locator(".jp-Notebook img").all():
        assert len(picture.get_attribute("alt") or "") > 20
    hidden = page.locator(".jp-Placeholder").all_inner_texts()
    assert all(text.startswith(("# Solution: ", "passed")) for text in hidden), hidden
    assert not page.locator(".jp-RenderedMermaid.jp-mod-warning").count(), "a diagram that cannot be drawn"
