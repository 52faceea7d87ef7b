"""What a run needs on the disk: measured, or an upper bound that is said to be one."""

import json
from collections import Counter
from pathlib import Path

import pytest

from batchgen.config.schema import OutputConfig
from batchgen.evening.disk import Room, free_bytes, most_bytes, room, too_small
from batchgen.evening.ending import ending_bytes
from batchgen.paths import RunDir
from batchgen.shards.images import encode_image
from batchgen.types import Decoded
from tests.builders import finish_run, plan_run
from tests.commands import front, write_prompts

GIB = 1 << 30
SIZE = (512, 512)


def test_measured_bytes_are_counted_by_size_and_format() -> None:
    known = {"512x512 png": (400_000.0, 64), "512x512 jpg 95": (50_000.0, 64)}
    png = room(Counter({SIZE: 1000}), OutputConfig("png"), known, GIB)
    end = ending_bytes({SIZE: 1000})
    assert png.measured and 400e6 < png.bytes - end < 404e6 and png.least_bytes == pytest.approx(0.9 * 400e6)
    assert room(Counter({SIZE: 1000}), OutputConfig("jpg", 95), known, GIB).bytes < 54e6 + end
    near = room(Counter({SIZE: 10, (512, 768): 10}), OutputConfig("png"), known, GIB)
    assert near.measured and near.bytes - ending_bytes({SIZE: 10, (512, 768): 10}) == pytest.approx(10e6, rel=0.02)
    assert not room(Counter({(2048, 2048): 10}), OutputConfig("png"), known, GIB).measured
    assert not room(Counter({SIZE: 10}), OutputConfig("webp", 90), known, GIB).measured


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_without_figures_it_is_an_upper_bound(image_format: str) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)
    image = encode_image(Decoded(noise.tobytes(), 96, 128), image_format, 100 if image_format != "png" else None)
    assert len(image) <= most_bytes(96, 128, image_format)
    bound = room(Counter({(96, 128): 10}), OutputConfig(image_format), {}, GIB)
    assert not bound.measured and bound.bytes >= 10 * len(image)


def test_what_is_certain_refuses_and_what_is_near_warns() -> None:
    assert Room(100 * GIB, 90 * GIB, True, 80 * GIB).lacks
    near = Room(100 * GIB, 90 * GIB, True, 95 * GIB)
    assert not near.lacks and "nearly too small" in str(near.warning)
    bound = Room(100 * GIB, 1 * GIB, False, 80 * GIB)
    assert not bound.lacks and "may be too small" in str(bound.warning) and "dry_run=probe" in str(bound.warning)
    assert Room(50 * GIB, 45 * GIB, True, 100 * GIB).warning is None
    told = too_small(Room(100 * GIB, 90 * GIB, True, 80 * GIB), RunDir(Path("outputs/x")))
    for word in ("about 100.0 GiB", "80.0 GiB are free", "run_dir", "output.format=webp", "job.limit", "check_disk"):
        assert word in told


def test_tars_that_leave_need_no_room_for_all() -> None:
    known = {"512x512 png": (400_000.0, 64)}
    for figures in (known, {}):
        stays, leaves = (
            room(Counter({SIZE: 10_000}), OutputConfig(keep_local=keep), figures, 20 << 20) for keep in (True, False)
        )
        assert stays.lacks and not leaves.lacks and "the copies must keep up" in str(leaves.warning)


def test_a_run_that_has_begun_can_only_be_given_room(tmp_path: Path) -> None:
    plan = plan_run(tmp_path)
    small = Room(100 * GIB, 90 * GIB, True, 80 * GIB)
    assert "output.format=webp" in too_small(small, plan.run), "a plan that nothing was made of gives way"
    finish_run(plan)
    assert "are free; make room (launch.check_disk=false starts all the same)" in too_small(small, plan.run)


def test_free_room_is_asked_where_the_directory_will_be(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there" / "yet") > 0


FULL = "import shutil; from collections import namedtuple; U = namedtuple('U', 'total used free'); "
FULL += "shutil.disk_usage = lambda _: U(1 << 40, 1 << 40, {free}); "


def test_a_run_that_cannot_fit_is_refused_before_it_starts_unless_it_is_told_to(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 50)
    full = _on_a_disk_with(tmp_path, 50_000)
    refused = front(tmp_path / "run", prompts, command=full)
    assert refused.returncode == 2 and "is too small: the run writes at least" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1 and not list(tmp_path.glob("run/work/*"))
    dry = front(tmp_path / "dry", prompts, "dry_run=json", command=full)
    assert [one for one in json.loads(dry.stdout)["warnings"] if "is too small" in one]
    same = front(tmp_path / "run", prompts, "dry_run=true", command=full)
    assert dry.returncode == same.returncode == 2 and same.stderr == refused.stderr
    assert "is too small" not in same.stdout
    willing = front(tmp_path / "run", prompts, "dry_run=true", "launch.check_disk=false", command=full)
    assert willing.returncode == 0 and willing.stdout.count("is too small") == 1
    told = front(tmp_path / "run", prompts, "launch.check_disk=false", command=full)
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("is too small") == 1
    near = front(tmp_path / "near", prompts, command=_on_a_disk_with(tmp_path, 600_000))
    assert near.returncode == 0 and near.stderr.count("the disk may be too small") == 1


def _on_a_disk_with(tmp_path: Path, free: int) -> list[str]:
    """The front door with the fake engine, on a disk with so many bytes free."""
    import sys

    from tests.commands import FAKE

    script = tmp_path / f"full_{free}.py"
    script.write_text(
        FULL.format(free=free) + "import sys, runpy; sys.argv[:2] = sys.argv[1:2]; sys.argv[1:1] = ['front']; "
        f"runpy.run_path({FAKE[1]!r}, run_name='__main__')\n"
    )
    return [sys.executable, str(script), FAKE[1]]
