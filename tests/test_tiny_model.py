"""Whole runs with the model that the package carries, on the CPU, through the command line."""

import json
import random
import shutil
import tarfile

import pytest

from tests.commands import (
    REAL,
    ROOT,
    beside_progress,
    front,
    kill_when,
    samples,
    shard_files,
    verify,
    workers_that_began,
    write_prompts,
)

pytestmark = pytest.mark.slow
QUICK = ("job.steps=3", "memory.policy.micro_batch=4")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.txt", 48)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, prompts):
    run = tmp_path_factory.mktemp("whole") / "run"
    done = front(run, prompts, *QUICK, command=REAL)
    assert done.returncode == 0 and all(line.startswith("batchgen: ") for line in done.stderr.splitlines())
    return run


def test_every_image_is_read_back_by_webdataset(whole):
    import webdataset

    assert verify(whole).returncode == 0
    tars = sorted(str(path) for path in (whole / "shards").glob("*.tar"))
    read = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert len(read) == 48
    assert all(one["png"].shape == (64, 64, 3) and one["txt"] == one["json"]["prompt"] for one in read)


def test_the_memory_log_has_a_line_for_each_batch(whole):
    lines = [json.loads(line) for line in (whole / "logs" / "memory" / "000000.jsonl").read_text().splitlines()]
    header, *records = lines
    assert header["run_id"] and [record["batch"] for record in records] == [0, 1]
    for record in records:
        assert record["images"] == 4 and record["status"] == "ok" and record["host_rss_bytes"] > 100 << 20
        assert set(record["stage_seconds"]) == {"encode", "denoise", "decode", "write"}
        assert record["stage_seconds"]["denoise"] > 0 and record["peak_allocated_bytes"] is None
        assert record["policy"]["micro_batch"] == 4


def test_workers_batches_shards_and_order_change_no_byte_of_an_image(tmp_path, prompts, whole):
    lines = prompts.read_text().splitlines()
    turned = tmp_path / "turned.txt"
    turned.write_text("".join(f"{line}\n" for line in lines[::-1]))
    assert front(
        tmp_path / "run", turned, *QUICK, "job.batch_size=8", "output.batches_per_shard=1", "launch.workers=2",
        command=REAL,
    ).returncode == 0  # fmt: skip

    def images(run):
        files = samples(run)
        about = {name: json.loads(data) for name, data in files.items() if name.endswith(".json")}
        return {(one["prompt"], one["seed"]): files[f"{one['key']}.png"] for one in about.values()}

    assert images(tmp_path / "run") == images(whole)


@pytest.mark.torture
def test_twenty_kills_and_the_bytes_are_those_of_an_undisturbed_run(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 240)
    front(tmp_path / "whole", prompts, *QUICK, command=REAL)
    _killed_and_compared(tmp_path / "run", prompts, tmp_path / "whole", 20)


def test_three_kills_and_the_bytes_are_those_of_an_undisturbed_run(tmp_path, prompts, whole):
    _killed_and_compared(tmp_path / "run", prompts, whole, 3)


def _killed_and_compared(run, prompts, whole, count):
    arguments = ["job=mars_batch", f"run_dir={run}", f"job.prompts={prompts}", "job.width=64", "job.height=64",
                 "job.batch_size=4", "output.batches_per_shard=2", *QUICK]  # fmt: skip
    chosen = random.Random(3)
    for kills in range(count):
        # Moments when the model is at work, by what is in the run directory and not by the clock.
        began = lambda kills=kills: workers_that_began(run) > kills  # noqa: E731
        code, errors = kill_when(chosen.uniform(0.0, 0.3), began, REAL, *arguments)
        assert (code, beside_progress(errors)) == (-9, [])
    assert front(run, prompts, *QUICK, command=REAL).returncode == 0
    done = verify(run)
    assert done.returncode == 0
    assert int(done.stdout.split(" batches were made twice")[0].splitlines()[-1]) <= count
    assert shard_files(run) == shard_files(whole)


@pytest.mark.parametrize("image_format, quality", [("jpg", 80), ("webp", 70)])
def test_other_formats(tmp_path, prompts, image_format, quality):
    done = front(
        tmp_path / "run", prompts, *QUICK, f"output={image_format}", f"output.quality={quality}", "job.limit=4",
        "job.steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "run").returncode == 0
    with tarfile.open(tmp_path / "run" / "shards" / "000000.tar") as tar:
        assert tar.getnames()[:3] == sorted(f"000000000000-00.{kind}" for kind in ("json", image_format, "txt"))


def test_prompts_outside_its_world_make_images_too(tmp_path):
    texts = ["quarterly revenue", "vier rote Autos", "🦖", "?", "the " * 500]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{text}\n" for text in texts))
    done = front(tmp_path / "run", prompts, "job.width=128", "job.height=128", "job.steps=3", command=REAL)
    assert done.returncode == 0, done.stderr
    made = {json.loads(data)["prompt"] for name, data in samples(tmp_path / "run").items() if name.endswith(".json")}
    assert made == {text.strip() for text in texts}


def test_a_damaged_model_is_said_in_one_line(tmp_path, prompts):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "batchgen" / "models" / "tiny", model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    done = front(tmp_path / "run", prompts, *QUICK, f"model.path={model}", command=REAL)
    assert done.returncode == 2
    assert f"{weights} is cut off: it has 100000 bytes, not " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_under_strict_neither_rests_nor_workers_change_a_byte_of_an_image(tmp_path):
    lines = [f"a horse on mars, take {place}" for place in range(9)]
    runs = []
    for name, order, workers in (("a", lines, 1), ("b", lines[::-1], 3)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in order))
        done = front(
            tmp_path / name, tmp_path / f"{name}.txt", "determinism=strict", "job.batch_size=8", "job.steps=3",
            "output.batches_per_shard=null", f"launch.workers={workers}", "memory.policy.micro_batch=8", command=REAL,
        )  # fmt: skip
        assert (done.returncode, "in 2 shards" in done.stderr) == (0, True), done.stderr
        files = samples(tmp_path / name)
        about = [json.loads(data) for file, data in files.items() if file.endswith(".json")]
        runs.append({one["prompt"]: files[f"{one['key']}.png"] for one in about})
    assert runs[0] == runs[1]
