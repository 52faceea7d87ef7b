"""Whether the carried model draws what is asked for: held-out sentences, made by the command, judged by pixels.

python -m tests.bench.pictures [--name pictures_NAME --like pictures] [key=value ...for batchgen]

On a GPU if there is one. With --like the scores are also held against those of another result, within 2 points.
"""

import argparse
import io
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.train_tiny.draw import FONT, Sprites, sheet
from jobs.train_tiny.scenes import KINDS, unseen
from tests.bench.judge import answers, labels, load_judge, score
from tests.bench.record import RESULTS, Record, command, gpu_name
from tests.commands import samples

# Of each score, what is asked for.
GOALS = {"subject": 0.85, "setting": 0.95, "both": 0.70, "relation": 0.60, "count": 0.60}
SAME = 0.02001
_KIND_SHARES = (0.35, 0.25, 0.4)


def held_out_scenes(count, font=FONT):
    """Scenes none of whose combinations was trained, the same ones always."""
    rng = random.Random(20_261_123)
    shapes = Sprites.of_font(font).shapes
    return [unseen(rng, shapes, rng.choices(KINDS, _KIND_SHARES)[0]) for _ in range(count)]


def made_pictures(scenes, arguments, folder):
    """(rows, 3, height, width) in -1..1: the images that the command makes of the scenes' captions, in their order."""
    prompts, run_dir = prompt_file(scenes, folder), folder / "run"
    seconds = command(
        "batchgen", "job=mars_batch", f"job.prompts={prompts}", f"run_dir={run_dir}", *arguments, gpu=True
    )
    return in_order(samples(run_dir), scenes), seconds


def prompt_file(scenes, folder):
    """A file with the scenes' captions, in their order."""
    lines = [json.dumps({"prompt": scene.caption, "id": f"{place:05}"}) for place, scene in enumerate(scenes)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "prompts.jsonl"


def in_order(files, scenes):
    """(rows, 3, height, width) in -1..1: the images of the scenes' captions, of a run's samples."""
    made = {
        json.loads(data)["prompt"]: pixels(files[name.removesuffix("json") + "png"])
        for name, data in files.items()
        if name.endswith(".json")
    }
    return torch.stack([made[scene.caption] for scene in scenes])


def pixels(png):
    """(3, height, width) in -1..1."""
    array = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--name", default="pictures")
    parser.add_argument("--like", metavar="NAME")
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of the first 96")
    parser.add_argument("arguments", nargs="*", metavar="key=value")
    options = parser.parse_args()
    scenes = held_out_scenes(options.images, options.font)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record = Record(options.name, gpu_name())
    with tempfile.TemporaryDirectory() as scratch:
        pictures, seconds = made_pictures(scenes, options.arguments, Path(scratch))
    scores = score(answers(load_judge(device), pictures), labels(scenes))
    record.add(images=len(scenes), arguments=options.arguments, wall_s=seconds, **scores)
    for name, goal in GOALS.items():
        record.bar(f"{name} right, of held-out combinations", round(scores[name], 4), at_least=goal)
    if options.like:
        other = json.loads((RESULTS / f"{options.like}.json").read_text())["rows"][0]
        for name in GOALS:
            apart = round(abs(scores[name] - other[name]), 4)
            record.bar(f"{name}: points apart from {options.like}", apart, below=SAME)
    record.write()
    if options.sheet:
        sheet(pictures[:96], 12).save(options.sheet)


if __name__ == "__main__":
    main()
