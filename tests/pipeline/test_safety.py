"""A model's safety checker: what it flags is noted or left out, and never painted black."""

import json

import pytest

pytest.importorskip("torch")

from batchgen.errors import ModelError
from batchgen.memory.estimate import estimate
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.load import load_pipeline
from batchgen.placements import PLACEMENTS
from tests.commands import REAL, front, samples, verify, write_prompts
from tests.pipeline.small_models import save, save_with_checker
from tests.pipeline.test_engine import POLICY, prompt

PROMPTS = [prompt(place) for place in range(2)]


@pytest.fixture(scope="module", params=[True, False], ids=["flags all", "flags none"])
def model(request, tmp_path_factory):
    return save_with_checker(tmp_path_factory.mktemp("models") / "checked", request.param), request.param


def decoded(engine, **changes):
    from dataclasses import replace

    policy, _ = engine.prepare(replace(POLICY, **changes))
    latents = engine.denoise(engine.encode(PROMPTS), PROMPTS, policy)
    return [engine.decode([latent], policy)[0] for latent in latents]


@pytest.mark.parametrize("placement", [name for name in PLACEMENTS if not name.startswith("group")])
def test_what_is_flagged_is_said_and_the_image_stays(model, placement):
    folder, flags = model
    plain = decoded(DiffusersEngine(ModelFiles(folder), "model", "fp32"))
    checked = decoded(DiffusersEngine(ModelFiles(folder, safety_checker=True), "model", "fp32"), placement=placement)
    assert [one.flagged for one in plain] == [None, None]
    assert [one.flagged for one in checked] == [flags, flags]
    assert [one.pixels for one in checked] == [one.pixels for one in plain]


def test_its_weights_count_where_it_works(model):
    folder, _ = model
    models = [ModelFiles(folder, safety_checker=checker) for checker in (False, True)]
    without, with_it = (estimate(model, "fp32", 64, 64).weights.vae_bytes for model in models)
    assert with_it > without


def test_a_model_without_one_is_refused_in_a_line(tmp_path):
    folder = save("sd15", tmp_path / "plain")
    with pytest.raises(ModelError, match=r"has no safety checker: set model\.safety_checker=off"):
        load_pipeline(ModelFiles(folder, safety_checker=True), "model", "fp32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "mode"), [(True, "off"), (True, "flag"), (True, "drop"), (False, "flag")], indirect=["model"]
)
def test_a_run_notes_or_drops_what_is_flagged(model, tmp_path, mode):
    folder, flags = model
    prompts = write_prompts(tmp_path / "prompts.txt", 4)
    given = (f"model.path={folder}", f"model.safety_checker={mode}", "job.steps=2")
    done = front(tmp_path / "run", prompts, *given, command=REAL)
    dropped = flags and mode == "drop"
    assert done.returncode == (3 if dropped else 0), done.stderr
    assert verify(tmp_path / "run").returncode == done.returncode
    found = [json.loads(data) for name, data in samples(tmp_path / "run").items() if name.endswith(".json")]
    assert len(found) == (0 if dropped else 4)
    assert all((one["safety_checker"], one["flagged"]) == (mode, mode != "off" and flags) for one in found)
    manifest = json.loads((tmp_path / "run" / "shards" / "000000.json").read_text())
    outcomes = {(one["status"], one.get("reason")) for one in manifest["samples"]}
    reason = "flagged by the model's safety checker"
    assert outcomes == ({("filtered", reason)} if dropped else {("ok", None)})
