"""The front door knows whether a model can make the job before there is a plan, and a dry run says the same."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from batchgen import prepare as prepare_module
from batchgen.config.schema import Config
from batchgen.dry_run import Counts, summary
from batchgen.errors import BatchgenError, ConfigError, ModelError, UserError
from batchgen.models import admit
from batchgen.paths import RunDir
from batchgen.places import models_dir
from batchgen.prepare import look_up, prepare
from batchgen.worker.loop import load_engine
from tests.builders import make_config, write_rows
from tests.commands import front, write_prompts
from tests.earlier import first_fingerprint

TEXT = "text_encoder/model.safetensors"
NO_CHECK = [sys.executable, "-c", "raise SystemExit('no check was wanted')"]


def counted(run: RunDir, config: Config) -> Counts:
    """What a dry run counts."""
    return summary(run, config, look_up(config))


@pytest.fixture
def model(tmp_path):
    shutil.copytree(models_dir() / "tiny", tmp_path / "model")
    return tmp_path / "model"


def rename_weights(path, change):
    """Write a safetensors file anew with other names in its header; the data stays as it is."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    text = json.dumps({name if name == "__metadata__" else change(name): entry for name, entry in header.items()})
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data[end:])


def one_missing(model):
    rename_weights(model / TEXT, lambda name: name.replace("final_layer_norm.weight", "last_norm.weight"))


def cut(model):
    (model / TEXT).write_bytes((model / TEXT).read_bytes()[:-1])


def only_fp16(model):
    (model / TEXT).rename(model / "text_encoder/model.fp16.safetensors")


def own_scheduler(kind, **settings):
    def change(model):
        index = json.loads((model / "model_index.json").read_text())
        (model / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", kind]}))
        file = model / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": kind} | settings))

    return change


PNDM = own_scheduler("PNDMScheduler", skip_prk_steps=True, timestep_spacing="leading", steps_offset=1)
REFUSED: dict[str, Any] = {
    "missing": (one_missing, {}, "text_encoder lacks the weight final_layer_norm.weight and has the weight"),
    "cut off": (cut, {}, "text_encoder/model.safetensors is cut off"),
    "steps": (PNDM, {"job__steps": 1000}, "PNDMScheduler cannot make 1000 steps"),
    "scheduler": (own_scheduler("LCMScheduler"), {"job__scheduler": "ddim"}, "does not fit this model"),
    "tiles": (
        lambda model: None,
        {"memory__policy__tile_px": 520},
        "memory.policy.tile_px=520: .* 32, such as 512 or 544",
    ),
    "layers": (lambda model: None, {"model__clip_skip": 90}, "model.clip_skip=90: .* text_encoder has only 3 layers"),
    "variant": (only_fp16, {"model__variant": "fp61"}, "has no such weights; did you mean fp16?"),
}


@pytest.fixture
def in_process(monkeypatch):
    """The check in this process, where torch is loaded once for all of them."""
    from batchgen.pipeline.check import check, model_of

    def answer(request):
        return check(model_of(request), **request)

    monkeypatch.setattr(admit, "_answer", answer)


@pytest.mark.parametrize("fault", REFUSED)
def test_a_model_that_cannot_do_it_is_refused_by_the_run_and_the_dry_run_alike(tmp_path, model, fault, in_process):
    change, overrides, words = REFUSED[fault]
    change(model)
    config = make_config(tmp_path, model__path=str(model), run_dir=str(tmp_path / "out" / "run"), **overrides)
    said = []
    for ask in (prepare, counted):
        with pytest.raises(ModelError, match=words) as caught:
            ask(RunDir(Path(config.run_dir)), config)
        said.append(str(caught.value))
    assert said[0] == said[1] and "\n" not in said[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_refusal_is_one_line_and_exit_code_2_from_a_process_of_its_own(tmp_path, model):
    one_missing(model)
    arguments = (tmp_path / "run", write_prompts(tmp_path / "p.txt", 4), f"model.path={model}")
    dry, wet = front(*arguments, "dry_run=true"), front(*arguments)
    assert (dry.returncode, wet.returncode) == (2, 2)
    assert dry.stderr == wet.stderr and len(wet.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def prepared(config):
    return prepare(RunDir(Path(config.run_dir)), config)


def test_a_good_answer_is_kept_and_a_resume_needs_none(tmp_path, model, in_process, monkeypatch):
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    config = make_config(tmp_path, model__path=str(model), job__steps=100)
    prepared(config)
    monkeypatch.undo()
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(admit, "CHECK_COMMAND", NO_CHECK)
    prepared(make_config(tmp_path, model__path=str(model), job__steps=100, run_dir=str(tmp_path / "other")))
    prepared(make_config(tmp_path, model__path=str(model), job__steps=25, run_dir=str(tmp_path / "usual")))
    shutil.rmtree(tmp_path / "cache")
    prepared(config)
    with pytest.raises(BatchgenError, match="could not be checked: no check was wanted"):
        prepared(make_config(tmp_path, model__path=str(model), run_dir=str(tmp_path / "third")))
    assert not (tmp_path / "third").exists()


def test_a_bad_answer_is_not_kept(tmp_path, model, in_process):
    whole = (model / TEXT).read_bytes()
    one_missing(model)
    config = make_config(tmp_path, model__path=str(model))
    for _ in range(2):
        with pytest.raises(ModelError, match="lacks the weight"):
            prepared(config)
    (model / TEXT).write_bytes(whole)
    prepared(config)


@pytest.mark.parametrize("ask", [prepare, counted])
def test_the_steps_of_every_row_are_checked_and_a_refusal_leaves_nothing(tmp_path, model, ask, in_process):
    PNDM(model)
    rows = [{"prompt": "a fox", "steps": steps} for steps in (5, 1000, 7)]
    config = make_config(tmp_path, rows, model__path=str(model), run_dir=str(tmp_path / "deep" / "run"))
    with pytest.raises(ModelError, match="PNDMScheduler cannot make 1000 steps: "):
        ask(RunDir(Path(config.run_dir)), config)
    assert not (tmp_path / "deep").exists()
    write_rows(tmp_path / "prompts.jsonl", rows[:1])
    ask(RunDir(Path(config.run_dir)), config)


def test_a_size_that_the_vae_cannot_make_is_refused(tmp_path, model, monkeypatch):
    settings = json.loads((model / "vae/config.json").read_text())
    settings["block_out_channels"].append(96)
    (model / "vae/config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(admit, "_answer", lambda request: {"told": [], "steps": request["steps"]})
    config = make_config(tmp_path, [{"prompt": "a fox", "width": 72}], model__path=str(model))
    with pytest.raises(
        ModelError, match=r"width=72 \(.*prompts.jsonl:1\): this model's VAE needs a multiple of 16, such as 64 or 80"
    ):
        prepared(config)
    assert not (tmp_path / "run").exists()


def test_rows_of_an_extension_are_checked_too(tmp_path, model, in_process):
    PNDM(model)
    config = make_config(tmp_path, model__path=str(model))
    prepared(config)
    more = write_rows(tmp_path / "more.jsonl", [{"prompt": "a hen", "steps": 1000}])
    config.job.prompts, config.extend = [config.job.prompts, str(more)], True
    with pytest.raises(ModelError, match="cannot make 1000 steps"):
        prepared(config)
    assert [path.name for path in (tmp_path / "run").glob("plan*")] == ["plan"]


def begin(plan):
    """Something of the run is there: its plan gives way to no other any more."""
    plan.run.create_directories()
    (plan.run.work / "begun").write_text("")


def test_what_is_added_to_a_models_folder_keeps_no_run_from_going_on(tmp_path, model):
    config = make_config(tmp_path, model__path=str(model))
    plan = prepared(config)
    assert str(plan.recipe["model"]).startswith("2:")
    begin(plan)
    for name in (".git/refs/tags/v1", ".cache/huggingface/a.metadata", "samples/1.png", "unet/LICENSE"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("new")
    prepared(config)
    cut(model)
    with pytest.raises(UserError, match="model: "):
        prepared(config)
    with pytest.raises(ModelError, match="not the one that this run was planned with"):
        load_engine(plan)


def test_a_plan_with_a_fingerprint_of_the_first_version_goes_on(tmp_path, model, monkeypatch):
    config = make_config(tmp_path, model__path=str(model))
    earlier = first_fingerprint(model)
    monkeypatch.setattr(prepare_module, "fingerprint_model", lambda *_: earlier)
    plan = prepared(config)
    assert plan.recipe["model"] == earlier
    begin(plan)
    monkeypatch.undo()
    (model / ".git").mkdir()
    (model / ".git/HEAD").write_text("a clone's")
    assert prepared(config).recipe["model"] == earlier
    (model / "scheduler/scheduler_config.json").write_text("{}")
    with pytest.raises(UserError, match="model: "):
        prepared(config)


@pytest.mark.parametrize("rows", [[{"prompt": "a fox"}, {"prompt": "a hen", "width": 16384, "height": 64}], ["a fox"]])
def test_a_size_that_the_image_format_cannot_hold_is_refused_alike_for_the_job_and_for_a_row(
    tmp_path, rows, in_process
):
    edges = {} if len(rows) > 1 else {"job__width": 16384}
    config = make_config(tmp_path, rows, output__format="webp", run_dir=str(tmp_path / "out" / "run"), **edges)
    where = "(.*prompts.jsonl:2)" if len(rows) > 1 else ""
    for ask in (prepare, counted):
        with pytest.raises(
            UserError, match=rf"16384x64 px{where and r' .' + where[1:-1] + '.'}: webp holds at most 16383 px"
        ):
            ask(RunDir(Path(config.run_dir)), config)
    assert not (tmp_path / "out").exists()


def test_what_is_given_and_changes_nothing_is_told(tmp_path, in_process, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = make_config(tmp_path, output__quality=80, speed__attention="xformers")
    prepared(config)
    told = capsys.readouterr().err
    assert "output.quality=80 changes nothing: png loses nothing" in told
    assert "speed.attention=xformers changes nothing here: xformers is not installed, so sdpa is used" in told
    config.determinism, config.run_dir = "strict", str(tmp_path / "strict")
    with pytest.raises(
        UserError, match="xformers is not installed, and determinism=strict allows no other: install it"
    ):
        prepared(config)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(("on", "told"), [(False, 1), (True, 0)])
def test_weights_that_are_not_read_are_told_once(tmp_path, in_process, capsys, on, told):
    texts = [("a fox", ""), ("a (red:1.2) fox", "(grey:1.1)"), ("a (blue:1.3) fox", "")]
    rows = [{"prompt": text, "negative_prompt": negative} for text, negative in texts]
    prepare(RunDir(tmp_path / "run"), make_config(tmp_path, rows, model__prompt_weights=on))
    said = capsys.readouterr().err
    line = f"{tmp_path}/prompts.jsonl:2); set model.prompt_weights=true to use them"
    assert (said.count("are read as text"), said.count(line)) == (told, told)


def test_an_option_that_the_family_does_not_have_is_refused(tmp_path, in_process):
    config = make_config(tmp_path, model__original_size=[64, 64])
    with pytest.raises(ConfigError, match="model.original_size is for Stable Diffusion XL; Stable Diffusion 1.x"):
        prepare(RunDir(tmp_path / "run"), config)
    assert not (tmp_path / "run").exists()
