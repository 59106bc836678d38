"""Draw the notebooks' Mermaid diagrams as pictures, for wherever Mermaid is not drawn.

    npm install mermaid && pip install playwright && playwright install chromium
    python -m tests.tools.draw_diagrams node_modules/mermaid/dist/mermaid.min.js

Each picture is notebooks/images/NAME.png, NAME being the file that the cell links; its Mermaid text is kept in it.
"""

import io
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from PIL import Image
from PIL.PngImagePlugin import PngInfo

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCE = "Mermaid"  # the PNG's text field that holds what the picture was drawn from


def diagrams() -> Iterator[tuple[Path, str]]:
    """The picture's path and the Mermaid text of every diagram in the notebooks."""
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for text in re.findall(r"^```mermaid\n(.*?)^```", cell.source, flags=re.M | re.S):
                yield NOTEBOOKS / re.search(r"\((images/\w+\.png)\)", cell.source)[1], text


def drawn_from(path: Path) -> str:
    """The Mermaid text that a picture was drawn from."""
    with Image.open(path) as picture:
        return picture.text[SOURCE]


def draw(script: Path) -> None:
    """Draw them all with the mermaid.min.js of the npm package."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900}, device_scale_factor=2)
        for path, text in diagrams():
            page.set_content('<body style="margin: 0"><pre id="here"></pre></body>')
            page.add_script_tag(path=script)
            page.evaluate(
                """async text => {
                    mermaid.initialize({startOnLoad: false, theme: "neutral", flowchart: {useMaxWidth: false}});
                    document.getElementById("here").innerHTML = (await mermaid.render("drawing", text)).svg;
                }""",
                text,
            )
            shot = page.locator("#here svg").screenshot()
            kept = PngInfo()
            kept.add_itxt(SOURCE, text)
            path.parent.mkdir(exist_ok=True)
            Image.open(io.BytesIO(shot)).convert("P", palette=Image.Palette.ADAPTIVE).save(path, pnginfo=kept)
            print(path.relative_to(NOTEBOOKS))
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
