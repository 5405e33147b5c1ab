"""The page's block on object storage runs as it stands."""

from __future__ import annotations

from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest

from simexm.result.result import Result
from tests.markdown import block, make_shell, type_in


@pytest.mark.slow
def test_block_of_object_storage(server: str, tif: Path, tmp_path: Path) -> None:
    fsspec.filesystem("s3").mkdir("my-bucket")
    (tmp_path / "segmentation.tif").symlink_to(tif)
    make_shell(tmp_path)
    type_in("simexm new > my.yaml", tmp_path)
    text = (tmp_path / "my.yaml").read_text()
    (tmp_path / "my.yaml").write_text(text + "\ncrop: {offset: [60, 100, 100], shape: [60, 90, 90]}\n")
    for line in block("docs/running.md", "s3://").text.splitlines():
        type_in(line, tmp_path)
    assert Result.open("s3://my-bucket/out.zarr").complete
    assert (tmp_path / "s3-files").is_dir()
