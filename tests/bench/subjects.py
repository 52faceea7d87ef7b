"""Whether the bundled model draws each subject that is asked for by itself: 'a photo of a cat', judged by pixels.

python -m tests.bench.subjects [--all] [--sheet FILE.png] [key=value ...for batchgen]

The subjects are the 20 that PartiPrompts (1,632 prompts, Apache-2.0) names most often, among those that the model
claims; with --all, every subject. Each is asked for with 16 seeds. On a GPU if there is one.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from jobs.train_tiny.captions import with_article
from jobs.train_tiny.draw import sheet
from jobs.train_tiny.subjects import SUBJECTS
from tests.bench.judge import answers, load_judge
from tests.bench.pictures import pixels
from tests.bench.record import Record, command, gpu_name
from tests.commands import samples

COMMONEST = (
    "cat", "tree", "hat", "car", "dog", "book", "horse", "train", "moon", "tiger", "house", "ball", "orange", "sloth",
    "owl", "truck", "cup of coffee", "robot", "baby", "panda",
)  # fmt: skip
SEEDS = 16
GOAL = 13
_NUMBERS = {subject.name: number for number, subject in enumerate(SUBJECTS)}


def prompt_of(name):
    """'a photo of a cat', with the article that the subject's name takes."""
    return f"a photo of {with_article(name)}"


def made_pictures(names, arguments, folder):
    """(subjects x seeds, 3, height, width) in -1..1: what the command makes, all seeds of a subject together."""
    rows = [{"prompt": prompt_of(name), "seed": seed} for name in names for seed in range(SEEDS)]
    prompts, run_dir = folder / "prompts.jsonl", folder / "run"
    lines = [json.dumps({**row, "key": f"{place:05}"}) for place, row in enumerate(rows)]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command("batchgen", "job=mars_batch", f"job.prompts={prompts}", f"run_dir={run_dir}", *arguments, gpu=True)
    made = samples(run_dir)
    return torch.stack([pixels(made[f"{place:05}.png"]) for place in range(len(rows))])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every subject, not only the commonest")
    parser.add_argument("--name", default="subjects", help="of the result's file")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet, one row for each subject")
    parser.add_argument("arguments", nargs="*", metavar="key=value")
    options = parser.parse_args()
    names = [subject.name for subject in SUBJECTS] if options.all else list(COMMONEST)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record = Record(options.name, gpu_name())
    with tempfile.TemporaryDirectory() as scratch:
        pictures = made_pictures(names, options.arguments, Path(scratch))
    said = {name: part.view(len(names), SEEDS) for name, part in answers(load_judge(device), pictures).items()}
    for place, name in enumerate(names):
        right = said["first"][place] == _NUMBERS[name]
        alone = right & (said["second"][place] == len(SUBJECTS)) & (said["count"][place] == 0)
        record.add(subject=name, seeds=SEEDS, right=int(right.sum()), one_alone=int(alone.sum()))
        if name in COMMONEST:
            record.bar(f"{prompt_of(name)}: right of {SEEDS}", int(right.sum()), at_least=GOAL)
    record.write()
    if options.sheet:
        sheet(pictures, SEEDS).save(options.sheet)


if __name__ == "__main__":
    main()
