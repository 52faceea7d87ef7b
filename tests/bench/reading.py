"""How fast a DataLoader with four workers reads a run, beside plain reading of its tars.

python -m tests.bench.reading [--images N]

A made-up run: tars as a shard has them, with pictures of 512x512 pixels that PNG cannot make small. All are read once
before, so that neither reads from the disk. Plain reading is Python's tarfile, in one process and in four. Both give
the bytes of each member; with decoding, the loader also makes tensors of the pictures.
"""

import argparse
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

from batchgen.shards.images import encode_image
from batchgen.shards.tars import END_OF_TAR, tar_members
from batchgen.types import Decoded, Sample
from tests.bench.record import Record

WORKERS, TIMES, GOAL = 4, 5, 0.9
EDGE_PX = 512


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    images = parser.parse_args().images
    record = Record("reading", "cpu")
    with tempfile.TemporaryDirectory(prefix="batchgen-reading-") as scratch:
        tars = made_up(Path(scratch), images)
        whole_bytes = sum(Path(tar).stat().st_size for tar in tars)
        ways = {"plain, one process": plain, "plain, four processes": plain_together, "loader": by_loader}
        ways["loader, decoded"] = decoded
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
    loader, *others = (statistics.median(rates[name]) for name in ("loader", *list(ways)[:2]))
    for other, name in zip(others, ways, strict=False):
        goal = GOAL if name == "plain, one process" else None
        record.bar(f"a DataLoader of four workers, over {name}", round(loader / other, 3), at_least=goal)
    record.write()


def made_up(folder, images):
    """The tars of so many samples, 256 each."""
    pictures = [picture(seed) for seed in range(32)]
    tars = []
    for start in range(0, images, 256):
        members = []
        for place in range(start, min(start + 256, images)):
            files = {"png": pictures[place % 32], "txt": b"a photo of an astronaut", "json": b'{"seed": 1}' * 40}
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


def plain(tars):
    """Read every member by tarfile; how many pictures there were."""
    found = 0
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                _ = tar.extractfile(member)
                found += member.name.endswith(".png")
    return found


def plain_together(tars):
    """The same by four processes, a quarter of the tars each."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return sum(pool.map(plain, [tars[place::WORKERS] for place in range(WORKERS)]))


def by_loader(tars):
    """Read every sample by a DataLoader of four workers, as bytes."""
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).to_tuple("png", "txt", "json")
    return _count(samples)


def decoded(tars):
    """The same, with pictures as tensors."""
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("torchrgb")
    return _count(samples.to_tuple("png", "txt"))


def _count(samples):
    loader = DataLoader(samples.batched(16), batch_size=None, num_workers=WORKERS)
    return sum(len(batch[0]) for batch in loader)


if __name__ == "__main__":
    main()
