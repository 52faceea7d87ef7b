"""A judge of pictures: a small network, trained on real composites alone, that says what a picture shows.

It sees pixels and nothing else. `train_judge.py` made its weights, `judge.safetensors`, both beside this file.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from jobs.train_tiny.scenes import Scene
from jobs.train_tiny.subjects import SUBJECTS
from jobs.train_tiny.vocabulary import COUNTS, RELATIONS, SETTINGS

WEIGHTS = Path(__file__).with_name("judge.safetensors")
# What the judge says of a picture, and of how many. The last relation means 'none'; so does the last subject, which
# as the first one means that nothing is shown whole: a headless animal, say.
ANSWERS = {
    "setting": len(SETTINGS),
    "first": len(SUBJECTS) + 1,
    "second": len(SUBJECTS) + 1,
    "relation": len(RELATIONS) + 1,
    "count": len(COUNTS),
}
_WIDTH = 192


class Judge(nn.Module):
    """Pictures (rows, 3, 128, 128) in -1..1 -> for each of ANSWERS its scores (rows, how many)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, _WIDTH)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        stages = []
        for before, after in zip(widths, (*widths[1:], _WIDTH), strict=True):
            stages += [_Residual(before), nn.Conv2d(before, after, 3, stride=2, padding=1)]
        self.stages = nn.Sequential(*stages)
        self.places = nn.Parameter(torch.randn(1, 64, _WIDTH) * 0.02)
        self.questions = nn.Parameter(torch.randn(1, len(ANSWERS), _WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(_WIDTH, 6, 3 * _WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.mixer = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_WIDTH)
        self.heads = nn.ModuleDict({name: nn.Linear(_WIDTH, size) for name, size in ANSWERS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """See the class."""
        seen = self.stages(self.stem(pictures)).flatten(2).transpose(1, 2) + self.places
        mixed = self.norm(self.mixer(torch.cat((self.questions.expand(len(seen), -1, -1), seen), dim=1)))
        return {name: head(mixed[:, place]) for place, (name, head) in enumerate(self.heads.items())}


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        result: Tensor = pictures + self.layers(pictures)
        return result


def load_judge(device: torch.device) -> Judge:
    """The trained judge."""
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge.to(device).eval()


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """What is true of the scenes, as ANSWERS number it: each (rows,)."""
    none = {"second": len(SUBJECTS), "relation": len(RELATIONS)}
    return {
        "setting": torch.tensor([scene.setting for scene in scenes]),
        "first": torch.tensor([scene.first for scene in scenes]),
        "second": torch.tensor([none["second"] if scene.second is None else scene.second for scene in scenes]),
        "relation": torch.tensor([none["relation"] if scene.relation is None else scene.relation for scene in scenes]),
        "count": torch.tensor([scene.count - 1 for scene in scenes]),
    }


@torch.no_grad()
def answers(judge: Judge, pictures: Tensor) -> dict[str, Tensor]:
    """The judge's best answer for each picture (rows, 3, 128, 128) in -1..1: each (rows,)."""
    device = next(judge.parameters()).device
    said = [judge(part.to(device)) for part in pictures.split(256)]
    return {name: torch.cat([one[name].argmax(dim=1).cpu() for one in said]) for name in ANSWERS}


def score(said: dict[str, Tensor], true: dict[str, Tensor]) -> dict[str, float]:
    """Parts of the pictures, 0..1, for which the judge's answers are the caption's.

    subject: the first one is seen; setting; both: of pairs, both subjects are seen; relation: of pairs, the relation
    is right and the two are not exchanged; count: of several of one kind, their number. A pair side by side has no
    order.
    """
    pair = true["relation"] != len(RELATIONS)
    several = ~pair & (true["count"] > 0)
    beside = true["relation"] == RELATIONS.index("beside")
    seen = (said["first"] == true["first"]) | (pair & (said["second"] == true["first"]))
    straight = (said["first"] == true["first"]) & (said["second"] == true["second"])
    crossed = (said["first"] == true["second"]) & (said["second"] == true["first"])
    exchanged = ~beside & (said["first"] == true["second"])
    parts = {
        "subject": (seen, None),
        "setting": (said["setting"] == true["setting"], None),
        "both": (straight | crossed, pair),
        "relation": ((said["relation"] == true["relation"]) & ~exchanged, pair),
        "count": (said["count"] == true["count"], several),
    }
    return {
        name: float((right if where is None else right[where]).float().mean()) for name, (right, where) in parts.items()
    }
