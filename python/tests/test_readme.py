"""The lines about csae.torch in the package's README run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support import MODELS, ROOT, csae, images

README = (ROOT / "python" / "README.md").read_text(encoding="utf-8")
#: The rest is about the wheel: `test_wheel_program.py` runs it.
TORCH = README.split("## csae.torch")[1]


def test_the_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csae("train", "photos", "--preset", "article", "--steps", 2, "--batch", 4, "-q", "-o",
         tmp_path / "runs" / "mine")
    shutil.copy(MODELS / "denoise.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"noisy": torch.from_numpy(images(1, (1, 24, 32)))}
    blocks = re.findall(r"```python\n(.*?)```", TORCH, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["code"].shape[1:] == (256,) and names["maps"].shape == (8, 16, 16, 16)
    csae("eval", "changed.safetensors", "photos")
