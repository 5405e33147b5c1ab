"""Write the table of detectors by name from the presets themselves; it replaces `<!-- presets -->` in a page."""

from __future__ import annotations

from typing import Any

from simexm.stages.detector.presets import PRESETS

MARKER = "<!-- presets -->"


def table() -> str:
    """One row for each preset: name, stage, figures, source."""
    rows = ["| preset | stage | figures | source |", "|---|---|---|---|"]
    for name, preset in PRESETS.items():
        figures = "; ".join(f"`{key}` {_shown(value)}" for key, value in preset.figures.items() if value is not None)
        rows.append(f"| {name} | `{preset.stage}` | {figures} | {preset.source} |")
    return "\n".join(rows)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(str(n) for n in value)
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker."""
    return markdown.replace(MARKER, table())
