"""Draw the diagram of the architecture page: the data flow, and the floors of the package's folders.

The floors come from `tests/test_floors.py`, the words from the first sentence of each folder's docstring. The diagram replaces
`<!-- floors -->` in a page.
"""

from __future__ import annotations

import ast
import re
from html import escape
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "simexm"
EXAMPLE = ROOT / "pipelines" / "quickstart.yaml"
MARKER = "<!-- floors -->"
WAY = (
    ("sources", "labels", "a box of ids, with halo"),
    ("spec", "spec", "stages, checked"),
    ("planning", "plan", "blocks, halos, memory"),
    ("run", "block", "tiles through stages"),
    ("store", "shards", "files, then the journal"),
    ("result", "result", "images, labels, tables"),
)
"""Steps of the data flow: folder, name, words."""
WIDTH, ROW, GAP = 960, 30, 4
WORDS_X = 220


def floors() -> tuple[tuple[str, ...], ...]:
    """The floors of the test of imports, the lowest first."""
    tree = ast.parse((ROOT / "tests" / "test_floors.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "FLOORS":
            assert node.value is not None
            found: tuple[tuple[str, ...], ...] = ast.literal_eval(node.value)
            return found
    raise ValueError("tests/test_floors.py has no FLOORS, from which the diagram is drawn; write them there")


def purpose(name: str) -> str:
    """First sentence of the docstring of a folder or module of the package; raises ValueError if it has none."""
    path = next(p for p in (PACKAGE / name / "__init__.py", PACKAGE / f"{name}.py") if p.is_file())
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    if not text:
        raise ValueError(f"{path} has no docstring, so the architecture page cannot say what it is for; write one")
    return re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].replace("`", "").split()))[0]


def _way() -> list[str]:
    """Boxes from source to result, with arrows between them."""
    size = (WIDTH - 5 * 24) / len(WAY)
    lines = []
    for n, (folder, name, words) in enumerate(WAY):
        x = n * (size + 24)
        lines += [
            f'<rect class="way" x="{x:.0f}" y="26" width="{size:.0f}" height="66" rx="6"/>',
            f'<text class="name" x="{x + size / 2:.0f}" y="48" text-anchor="middle">{name}</text>',
            f'<text class="small" x="{x + size / 2:.0f}" y="65" text-anchor="middle">{words}</text>',
            f'<text class="code" x="{x + size / 2:.0f}" y="83" text-anchor="middle">{folder}/</text>',
        ]
        if n:
            lines.append(f'<path class="arrow" d="M{x - 22:.0f} 59h16m-6 -5l6 5l-6 5"/>')
    stages = " → ".join(stage["stage"] for stage in yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["stages"])
    return [*lines, f'<text class="small" x="0" y="114">The stages of a block, such as: {stages}.</text>']


def _rows(top: int) -> tuple[list[str], int]:
    """One band for each floor, the highest first, with a line for each folder; and the end of the last band."""
    lines, y = [], top
    for names in reversed(floors()):
        height = ROW * len(names)
        lines.append(f'<rect class="floor" x="0" y="{y}" width="{WIDTH}" height="{height}" rx="4"/>')
        for n, name in enumerate(names):
            at = y + ROW * n + 20
            shown = f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py"
            step = next((" ● " + what for folder, what, _ in WAY if folder == name), "")
            lines.append(f'<text class="code" x="12" y="{at}">{shown}<tspan class="step">{step}</tspan></text>')
            lines.append(f'<text class="small" x="{WORDS_X}" y="{at}">{escape(purpose(name))}</text>')
        y += height + GAP
    return lines, y


STYLE = (
    "text{font-family:sans-serif;fill:var(--md-typeset-color,#222)}.name{font-size:15px;font-weight:bold}"
    ".small{font-size:12px}.code{font-family:monospace;font-size:13px}.step{font-weight:bold;fill:#00897b}"
    ".way{fill:none;stroke:#00897b;stroke-width:2}.floor{fill:#00897b;fill-opacity:.09}.arrow{fill:none;stroke:#00897b;stroke-width:2}"
)


def diagram() -> str:
    """The diagram as SVG."""
    rows, height = _rows(160)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="The way of the data and the floors" xmlns="http://www.w3.org/2000/svg">',
            f"<style>{STYLE}</style>",
            '<text class="name" x="0" y="14">The way of the data</text>',
            *_way(),
            '<text class="name" x="0" y="148">The floors: each imports only what stands below it</text>',
            *rows,
            "</svg>",
        ]
    )


def on_page_content(html: str, **_: Any) -> str:
    """Replace the marker in the HTML of a page by the diagram; called by MkDocs."""
    return html.replace(MARKER, diagram()) if MARKER in html else html
