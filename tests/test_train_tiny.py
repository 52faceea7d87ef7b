"""The training job of the carried model: its scenes, its drawing, its loop and its stages, with squares for emoji."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from jobs.train_tiny import draw, train
from jobs.train_tiny.data import TOKENS, tokenize
from jobs.train_tiny.draw import Painter, Sprites, pack
from jobs.train_tiny.loop import train as train_loop
from jobs.train_tiny.model import new_tokenizer
from jobs.train_tiny.scenes import KINDS, Scene, held_out, is_held_out, trained, unseen
from jobs.train_tiny.subjects import SUBJECTS
from jobs.train_tiny.vocabulary import COUNTS, RELATIONS, SETTINGS, TIMES

SHAPES = tuple((1.0, 0.5) if number % 3 else (0.7, 1.0) for number in range(len(SUBJECTS)))
NAMES = tuple(SETTINGS)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [trained(rng, SHAPES) for _ in range(count)]


@pytest.fixture(scope="module")
def squares() -> Sprites:
    """Each subject a plain square of its own colour."""
    rng = random.Random(0)
    return Sprites([Image.new("RGBA", (20, 20), (*rng.randbytes(3), 255)) for _ in SUBJECTS])


def test_the_world_is_as_large_as_promised() -> None:
    assert len(SUBJECTS) >= 150
    assert len({name for subject in SUBJECTS for name in subject.names}) >= len(SUBJECTS)
    assert len(SETTINGS) == 20
    assert {"riding", "on", "under", "beside", "behind"} == set(RELATIONS)
    assert len(COUNTS) == 4
    assert len(TIMES) == 4


def test_nothing_that_is_held_out_is_trained_and_all_that_is_judged_is_held_out() -> None:
    assert not any(is_held_out(scene) for scene in scenes(3000))
    rng = random.Random(1)
    for kind in KINDS:
        judged = [unseen(rng, SHAPES, kind) for _ in range(100)]
        assert all(is_held_out(scene) for scene in judged)
        assert all((scene.second is not None) == (kind == "pair") for scene in judged)


def test_a_tenth_of_all_pairs_is_held_out_whatever_their_order() -> None:
    pairs = [(subject.name, name) for subject in SUBJECTS for name in NAMES]
    held = sum(held_out(*pair) for pair in pairs)
    assert 0.07 < held / len(pairs) < 0.13
    assert all(held_out(one, other) == held_out(other, one) for one, other in pairs)


def test_captions_that_are_judged_say_what_is_shown() -> None:
    rng = random.Random(2)
    for kind in KINDS:
        for _ in range(200):
            scene = unseen(rng, SHAPES, kind)
            shown = [SUBJECTS[scene.first]] if scene.second is None else [SUBJECTS[scene.first], SUBJECTS[scene.second]]
            if scene.count == 1:
                assert all(any(name in scene.caption for name in subject.names) for subject in shown)
            else:
                assert COUNTS[scene.count - 1] in scene.caption.split()
            assert any(phrase in scene.caption for phrase in SETTINGS[NAMES[scene.setting]])


def test_captions_vary() -> None:
    captions = [scene.caption for scene in scenes(2000)]
    assert len(set(captions)) > 1900
    assert {caption.split()[0] for caption in captions} > {"a", "an", "two", "three", "four", "on", "in"}


def test_figures_are_counted_and_on_the_canvas() -> None:
    for scene in scenes(2000):
        assert len(scene.figures) == scene.count + (scene.second is not None)
        for one in scene.figures:
            width, height = SHAPES[one.subject]
            assert one.size > 0.1
            for place, edge in ((one.x, width), (one.y, height)):
                assert place - edge * one.size / 2 >= -0.05
                assert place + edge * one.size / 2 <= 1.05


@pytest.mark.parametrize("relation", RELATIONS)
def test_pairs_stand_as_their_relation_says(relation: str) -> None:
    found = [one for one in scenes(4000) if one.relation is not None and RELATIONS[one.relation] == relation]
    assert len(found) > 100
    for scene in found:
        first = next(one for one in scene.figures if one.subject == scene.first)
        second = next(one for one in scene.figures if one.subject == scene.second)
        if relation in ("riding", "on"):
            assert first.y < second.y
            assert scene.figures[-1] == first  # in front
        elif relation == "under":
            assert first.y > second.y
        elif relation == "beside" and scene.count == 1:
            assert first.x <= second.x
        elif relation == "behind":
            assert scene.figures[-1] == second
            assert first.y < second.y + 0.1


def test_figures_are_drawn_where_the_scene_says(squares: Sprites) -> None:
    painter = Painter(squares, torch.device("cpu"))
    some = scenes(16)
    torch.manual_seed(0)
    pictures, covered = painter.draw(pack(some, squares))
    assert pictures.shape == (16, 3, draw.SIZE_PX, draw.SIZE_PX)
    assert covered.shape == (16, 1, draw.SIZE_PX, draw.SIZE_PX)
    assert -1 <= float(pictures.min()) < float(pictures.max()) <= 1
    for row, scene in enumerate(some):
        for one in scene.figures:
            assert covered[row, 0, int(one.y * draw.SIZE_PX), int(one.x * draw.SIZE_PX)] > 0.99
        largest = sum(one.size**2 for one in scene.figures)
        assert 0 < float(covered[row].mean()) < 1.1 * largest
    torch.manual_seed(0)
    assert torch.equal(painter.draw(pack(some, squares))[0], pictures)


def test_settings_look_different(squares: Sprites) -> None:
    painter = Painter(squares, torch.device("cpu"))
    means = []
    for setting in range(len(SETTINGS)):
        empty = [Scene("", setting, 0, 0.5, (), 0)] * 8
        means.append(painter.draw(pack(empty, squares))[0].mean(dim=0).flatten())
    distances = torch.cdist(torch.stack(means), torch.stack(means)) + 1e3 * torch.eye(len(means))
    assert float(distances.min()) > 10  # of pictures whose values are -1..1


def test_a_subject_in_a_colour_has_that_hue() -> None:
    red = Image.new("RGBA", (4, 4), (200, 20, 20, 255))
    blue = draw.recoloured(red, 160).getpixel((0, 0))
    assert isinstance(blue, tuple)
    assert blue[2] > 150 > blue[0]
    grey = Image.new("RGBA", (4, 4), (90, 90, 90, 255))
    assert draw.recoloured(grey, 160).getpixel((0, 0)) == (90, 90, 90, 255)


def test_tokens_are_padded_as_the_pipeline_pads_them() -> None:
    tokenizer = new_tokenizer(["an astronaut riding a horse on mars"] * 3)
    tokens = tokenize(tokenizer, ["a horse", ""])
    assert tokens.shape == (2, TOKENS)
    assert tokenizer.decode(tokens[0], skip_special_tokens=True).strip() == "a horse"
    assert tokens[1].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (TOKENS - 1)


def test_the_loop_learns_stops_by_the_clock_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    shares: list[float] = []

    def loss_of(share: float) -> Tensor:
        shares.append(share)
        numbers = torch.randn(64, 4)
        wrong: Tensor = module(numbers) - numbers.sum(dim=1, keepdim=True)
        return wrong.square().mean()

    checkpoint = tmp_path / "stage.pt"
    best = train_loop(module, loss_of, checkpoint, 1.0, 1e-2)
    assert loss_of(1.0).item() < 0.1
    assert isinstance(best, nn.Linear)
    assert torch.allclose(best.weight, torch.ones(1, 4), atol=0.3)
    assert max(shares[:-1]) > 0.9
    shares.clear()
    again = train_loop(module, loss_of, checkpoint, 1.0, 1e-2)
    assert not shares, "its time was spent"
    assert torch.equal(again.get_parameter("weight"), best.weight)
    train_loop(module, loss_of, checkpoint, 2.0, 1e-2)
    assert min(shares) >= 0.5
    assert "goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_all_stages_make_a_pipeline_and_a_second_run_goes_on(
    tmp_path: Path, squares: Sprites, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Sprites, "of_font", lambda _: squares)
    arguments = ["train", "--minutes", "0.02", "--rows", "0.01", "--workers", "0"]
    monkeypatch.setattr(
        sys, "argv", [*arguments, "--checkpoints", f"{tmp_path / 'kept'}", "--out", f"{tmp_path / 'm'}"]
    )
    train.main()
    pipe: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "m", dtype=torch.float32)
    image = pipe("a horse", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (128, 128, 3)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "m").rglob("*.safetensors"))
    assert size_bytes <= 25_000_000
    capsys.readouterr()
    train.main()
    assert capsys.readouterr().out.count("goes on") == 2  # the autoencoder is only loaded
