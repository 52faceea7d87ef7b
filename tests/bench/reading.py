"""How fast a DataLoader with four workers reads a run, beside plain reading of its tars.

python -m tests.bench.reading [--images N]

A made-up run: tars as a shard has them, with pictures of 512x512 pixels that PNG cannot make small. All are read once
before, so that nobody reads from the disk. Plain reading is a loop over tarfile, in one process that makes tensors of
bytes of the pictures as the loader's workers do. Beside it: the same in four processes that keep what they read, and
both without decoding.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import webdataset
from PIL import Image
from torch.utils.data import DataLoader
from webdataset.autodecode import imagehandler

from batchgen.shards.images import encode_image
from batchgen.shards.tars import END_OF_TAR, tar_members
from batchgen.types import Decoded, Sample
from tests.bench.record import Record

WORKERS, TIMES, GOAL = 4, 5, 0.9
EDGE_PX, KIND = 512, "torchrgb8"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    images = parser.parse_args().images
    record = Record("reading", "cpu")
    with tempfile.TemporaryDirectory(prefix="batchgen-reading-") as scratch:
        tars = made_up(Path(scratch), images)
        whole_bytes = sum(Path(tar).stat().st_size for tar in tars)
        ways = {
            "loader": decoded, "plain": _decode, "plain, four processes": plain_together,
            "loader, no decoding": by_loader, "plain, no decoding": _read,
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for time_ in range(TIMES + 1):  # in turn, so that each meets the same machine; the first time is not counted
            for name, read in ways.items():
                began_s = time.perf_counter()
                assert read(tars) == images, name
                if time_:
                    rates[name].append(images / (time.perf_counter() - began_s))
        for name, found in rates.items():
            record.add(way=name, images_per_s=round(statistics.median(found), 1), of_each=[round(one) for one in found])
        record.add(images=images, bytes=whole_bytes, tars=len(tars), cores=os.cpu_count())
    median = {name: statistics.median(found) for name, found in rates.items()}
    for one, other, goal in (
        ("loader", "plain", GOAL), ("loader", "plain, four processes", None),
        ("loader, no decoding", "plain, no decoding", None),
    ):  # fmt: skip
        share = round(median[one] / median[other], 3)
        record.bar(f"{one}, with four workers, over {other}", share, at_least=goal, arguments=f"--images {images}")
    record.write()


def made_up(folder, images):
    """The tars of so many samples, 256 each."""
    pictures, about = [picture(seed) for seed in range(32)], json.dumps({"prompt": "a photo" * 60}).encode()
    tars = []
    for start in range(0, images, 256):
        members = []
        for place in range(start, min(start + 256, images)):
            files = {"png": pictures[place % 32], "txt": b"a photo of an astronaut", "json": about}
            members.append(tar_members(Sample(f"{place:012d}-00", "ok", files)))
        path = folder / f"{start // 256:06d}.tar"
        path.write_bytes(b"".join([*members, END_OF_TAR]))
        tars.append(str(path))
    return tars


def picture(seed):
    """A PNG of about the bytes of a photograph: noise that is enlarged and has some noise on it again."""
    generator = random.Random(seed)
    small = Image.frombytes("RGB", (64, 64), generator.randbytes(3 * 64 * 64)).resize((EDGE_PX, EDGE_PX))
    noise = Image.frombytes("RGB", (EDGE_PX, EDGE_PX), generator.randbytes(3 * EDGE_PX**2))
    mixed = Image.blend(small, noise, 0.03)
    return encode_image(Decoded(mixed.tobytes(), EDGE_PX, EDGE_PX), "png", None)


def plain_together(tars):
    """Read and decode every picture by tarfile, a quarter of the tars in each process; how many there were."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return sum(pool.map(_decode, [tars[place::WORKERS] for place in range(WORKERS)]))


def _read(tars, act=len):
    found = 0
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                if member.name.endswith(".png"):
                    act(data)
                    found += 1
    return found


def _decode(tars):
    picture = imagehandler(KIND)
    return _read(tars, lambda data: picture("png", data))


def by_loader(tars):
    """Read every sample by a DataLoader of four workers, as bytes."""
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).to_tuple("png", "txt", "json")
    return _count(samples)


def decoded(tars):
    """The same, with pictures as tensors."""
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode(KIND)
    return _count(samples.to_tuple("png", "txt"))


def _count(samples):
    loader = DataLoader(samples.batched(16), batch_size=None, num_workers=WORKERS)
    return sum(len(batch[0]) for batch in loader)


if __name__ == "__main__":
    main()
