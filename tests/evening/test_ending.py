"""What the end of a run writes, beside what was foretold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchgen.evening.ending import ending_bytes
from batchgen.report.write import write_all
from batchgen.types import Decoded, Prompt
from tests import builders
from tests.builders import finish_run, plan_run
from tests.commands import ROOT

FILES = ("report.html", "report.json", "contact_sheet.png", "samples.parquet", "README.md")
PICTURES = Image.open(ROOT / "tests" / "bench" / "results" / "astronaut.png").convert("RGB")


def picture(prompt: Prompt) -> Decoded:
    """One of eight pictures that the bundled model drew, in the size of the prompt."""
    left, top = prompt.seed % 4 * 128, prompt.seed // 4 % 2 * 128
    image = PICTURES.crop((left, top, left + 128, top + 128)).resize((prompt.width, prompt.height))
    return Decoded(image.tobytes(), prompt.width, prompt.height)


def noise(prompt: Prompt) -> Decoded:
    """Pixels that nothing makes smaller."""
    pixels = np.random.default_rng(prompt.seed).integers(0, 256, prompt.width * prompt.height * 3, np.uint8)
    return Decoded(pixels.tobytes(), prompt.width, prompt.height)


def written(
    folder: Path, images: int, edge_px: int, monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Decoded]
) -> int:
    """The bytes that the end of a run writes of so many images."""
    monkeypatch.setattr(builders, "fake_image", lambda prompt, *_: draw(prompt))
    rows = [f"a fox number {place} beside a river in the evening" for place in range(images)]
    plan = plan_run(folder, rows, job__width=edge_px, job__height=edge_px, job__batch_size=8)
    finish_run(plan)
    assert write_all(plan.run) == []
    return sum((plan.run.root / name).stat().st_size for name in FILES)


@pytest.mark.parametrize(("images", "edge_px"), [(1, 128), (12, 128), (150, 128), (40, 64)])
def test_it_is_about_what_was_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, edge_px: int
) -> None:
    found = written(tmp_path, images, edge_px, monkeypatch, picture)
    told = ending_bytes({(edge_px, edge_px): images})
    assert found == pytest.approx(told, rel=0.4) and found <= ending_bytes({(edge_px, edge_px): images}, most=True)


def test_noise_is_within_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = written(tmp_path, 30, 128, monkeypatch, noise)
    assert ending_bytes({(128, 128): 30}) < found <= ending_bytes({(128, 128): 30}, most=True)


def test_it_is_little_beside_many_images() -> None:
    assert ending_bytes({}) == 0
    few, many = ending_bytes({(512, 512): 1_000}), ending_bytes({(512, 512): 50_000, (1024, 512): 50_000})
    assert 20e6 < few < many < 50e6 < 0.002 * 100_000 * 400_000
