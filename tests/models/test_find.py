"""Finding a model: by name, folder or hub id. The hub is a cache on disk, read offline by the real client."""

import json
import shutil

import pytest
from huggingface_hub import constants

from batchgen.config.schema import Config, ModelConfig
from batchgen.errors import ModelError
from batchgen.models.families.base import NEVER
from batchgen.models.find import (
    ModelFiles,
    check_model,
    download,
    find_model,
    hub_revision,
    in_cache,
    place_px,
    settled,
)
from tests.commands import REAL, front, write_prompts
from tests.model_hub import COMMIT, model_hub, reach
from tests.pipeline.small_models import save


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save("sd15", tmp_path_factory.mktemp("models") / "small")


@pytest.mark.slow
def test_a_hub_model_that_cannot_be_had_is_one_line(tmp_path):
    prompts = write_prompts(tmp_path / "p.txt", 4)
    hub = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = front(tmp_path / "run", prompts, "model.path=org/nothing", command=REAL, **hub)
    assert done.returncode == 2
    assert "model org/nothing cannot be downloaded" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_hub_model_is_found_in_the_cache_as_long_as_it_is_whole(small, tmp_path, monkeypatch, capsys):
    with model_hub() as hub:
        hub.add("org/small", small)
        reach(hub, tmp_path / "hub", monkeypatch)
        assert in_cache(ModelConfig("org/small")) is None
        fetched = download(ModelConfig("org/small"))
        assert fetched.folder.name == COMMIT and in_cache(ModelConfig("org/small")) == fetched
        hub.asked.clear()
        assert download(ModelConfig("org/small", revision=COMMIT)) == fetched and hub.asked == []
        shutil.rmtree(fetched.folder / "vae")
        assert in_cache(ModelConfig("org/small")) is None, "the download was cut off"
        assert download(ModelConfig("org/small")) == fetched and not hub.contents(), "its content was still there"
        hub.models.clear()
        assert download(ModelConfig("org/small")) == fetched
        assert "the hub has no such model; check the name, and" in capsys.readouterr().err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert download(ModelConfig("org/small")) == fetched
    said = capsys.readouterr().err
    assert "the hub cannot be reached" in said and f"what is in the cache counts, {fetched.folder}" in said


def test_names_folders_and_hub_ids_are_told_apart(small, tmp_path):
    bundled = find_model(ModelConfig(path="tiny"))
    assert bundled is not None and (bundled.folder / "model_index.json").is_file()
    assert find_model(ModelConfig(path=str(small))) == ModelFiles(small)
    assert find_model(ModelConfig(path="org/name")) is None
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file"):
        find_model(ModelConfig(path=str(tmp_path / "file")))
    with pytest.raises(ModelError, match="did you mean small"):
        find_model(ModelConfig(path=str(small.parent / "smal")))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tinny", "; did you mean tiny"),
        ("./tinny", "org/name"),
        ("./flux-v", "; did you mean flux-v1?"),
        ("models/flx", "; did you mean flux?"),
        ("models/zzz", "; choose one of flux"),
        ("modls/a/flux", "; there is no folder modls/a either"),
    ],
)
def test_a_path_is_compared_with_what_lies_beside_it(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flux-v1").mkdir()
    (tmp_path / "models" / "flux").mkdir(parents=True)
    (tmp_path / "models" / "flux" / "model_index.json").touch()
    (tmp_path / "models" / "unrelated").mkdir()
    with pytest.raises(ModelError) as caught:
        find_model(ModelConfig(path=path))
    _, _, hint = str(caught.value).partition("no such folder, and not a hub id such as ")
    assert said in hint and ("tiny" in hint) == (path == "tinny")
    assert "unrelated" not in hint


def test_the_commit_is_read_off_the_cache(tmp_path):
    assert hub_revision(tmp_path / "snapshots" / COMMIT) == COMMIT
    assert hub_revision(tmp_path / "my-model") is None


def edit_index(folder, **changes):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changes))


def no_index(folder):
    (folder / "model_index.json").unlink()


def torn_index(folder):
    (folder / "model_index.json").write_text("{")


def other_family(folder):
    edit_index(folder, _class_name="Lumina2Pipeline")


def no_unet(folder):
    shutil.rmtree(folder / "unet")


def no_vae(folder):
    edit_index(folder, vae=[None, None])


def no_config(folder):
    (folder / "unet" / "config.json").unlink()


def embeds_guidance(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"time_cond_proj_dim": 8}))


def pickled(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def stubborn_scheduler(folder):
    edit_index(folder, scheduler=["diffusers", "DPMSolverSDEScheduler"])


@pytest.mark.parametrize(
    "damage, words",
    [
        (no_index, "not a model in the diffusers layout: it has no model_index.json; copy the whole model"),
        (torn_index, "not a model in the diffusers layout: model_index.json cannot be used"),
        (other_family, "is a Lumina2Pipeline, which batchgen does not run; it runs .*FLUX.1 .FluxPipeline"),
        (no_unet, "lacks unet"),
        (no_vae, "lacks vae: copy the whole model"),
        (no_config, "model's unet cannot be read: it is missing; download or copy .*/unet/config.json again"),
        (embeds_guidance, "embeds its guidance"),
        (pickled, "pickled weights only"),
        (stubborn_scheduler, "ignores per-image seeds"),
    ],
)
def test_a_folder_that_could_not_run_is_refused_before_it_is_loaded(small, tmp_path, damage, words):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    check_model(ModelFiles(folder), "model")
    damage(folder)
    with pytest.raises(ModelError, match=words):
        check_model(ModelFiles(folder), "model")


@pytest.mark.parametrize(
    ("vae", "place"),
    [
        ({"block_out_channels": [128, 256, 512, 512]}, 8),
        ({"temperal_downsample": [False, True, True]}, 8),
        ({"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024]}, 32),
    ],
)
def test_the_edge_of_a_place_is_told_by_the_vae(vae, place):
    assert place_px(vae) == place


def test_what_the_family_decides_is_settled_as_far_as_the_user_does_not(tmp_path):
    def above(pipeline, **said):
        index = {"_class_name": pipeline, "scheduler": ["diffusers", "DDIMScheduler"], "is_distilled": False}
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        planned = settled(Config(model=ModelConfig(path="m", **said)), ModelFiles(tmp_path))
        return planned.model.guided_above, planned.memory.policy.guidance_split

    assert above("StableDiffusionPipeline") == (1.0, None)
    assert above("ZImagePipeline") == (0.0, None)
    assert above("FluxPipeline") == (NEVER, None)
    assert above("Flux2KleinPipeline") == (1.0, True)  # its two passes follow each other anyway
    assert above("ZImagePipeline", guided_above=2.0) == (2.0, None)
