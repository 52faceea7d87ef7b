"""The guide's sentence, eight seeds: what the judge sees in each picture, and the contact sheet that the README shows.

python -m tests.bench.astronaut
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from jobs.train_tiny.draw import sheet
from jobs.train_tiny.subjects import SUBJECTS
from jobs.train_tiny.vocabulary import RELATIONS, SETTINGS
from tests.bench.judge import answers, load_judge
from tests.bench.pictures import pixels
from tests.bench.record import RESULTS, Record, command
from tests.commands import samples

PROMPT = "a photo of an astronaut riding a horse on mars"
IMAGES = 8
GOAL = 6


def main():
    record = Record("astronaut")
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.txt"
        prompts.write_text(PROMPT + "\n", encoding="utf-8")
        run_dir = Path(scratch) / "run"
        given = (f"job.prompts={prompts}", f"run_dir={run_dir}", f"job.images_per_prompt={IMAGES}")
        command("batchgen", "job=mars_batch", *given)
        files = samples(run_dir)
    pictures = torch.stack([pixels(files[name]) for name in sorted(files) if name.endswith(".png")])
    said = answers(load_judge(torch.device("cpu")), pictures)
    right = 0
    for row in range(IMAGES):
        seen = [[*(subject.name for subject in SUBJECTS), None][said[part][row]] for part in ("first", "second")]
        relation = [*RELATIONS, None][said["relation"][row]]
        setting = tuple(SETTINGS)[said["setting"][row]]
        right += (*seen, relation, setting) == ("astronaut", "horse", "riding", "mars")
        record.add(seed=row, first=seen[0], relation=relation, second=seen[1], setting=setting)
    record.bar(f"of {IMAGES} seeds the judge sees an astronaut riding a horse on mars in", right, at_least=GOAL)
    flat = pictures.flatten(1).numpy()
    apart = min(float(np.abs(flat[one] - flat[other]).mean()) for one in range(IMAGES) for other in range(one))
    record.bar("least mean difference of two of them, of 255", round(apart * 127.5, 1))
    sheet(pictures, 4).save(RESULTS / "astronaut.png")
    record.write()


if __name__ == "__main__":
    main()
