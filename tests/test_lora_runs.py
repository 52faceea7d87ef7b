"""Runs with LoRA files: what is refused before there is a plan, and what a resume allows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import batchgen
from batchgen.config.schema import Config
from batchgen.dry_run import summary
from batchgen.errors import ModelError, ResumeError
from batchgen.models import admit
from batchgen.models.lora import digest
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.prepare import look_up, prepare
from batchgen.shards.crew import read_crew
from batchgen.shards.leases import Watch
from batchgen.worker.loop import load_engine
from tests.builders import finish_run, leave_attempt, make_config, write_rows
from tests.models.test_checkpoint import write as write_tensors
from tests.models.test_lora import write

PACKAGE = Path(batchgen.__file__).parent
ROWS: list[str | dict[str, Any]] = [
    "a fox",
    {"prompt": "an owl", "lora": "b.safetensors:0.5"},
    {"prompt": "a hen", "lora": "<none>"},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two files that pass for LoRA of any model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(admit.Admission, "_ask_loras", lambda *_: [])
    write(tmp_path / "a.safetensors", "unet.x.lora_A.weight")
    write(tmp_path / "b.safetensors", "unet.x.lora_A.weight", filler=b"..")
    return tmp_path


def begun(here: Path, **settings: Any) -> Plan:
    """A run of ROWS that some work was done on."""
    plan = prepare(RunDir(here / "run"), config(here, **settings))
    plan.run.create_directories()
    leave_attempt(plan, 1)
    return plan


def config(here: Path, **settings: Any) -> Config:
    return make_config(here, ROWS, **({"model__lora": "a.safetensors:0.8"} | settings))


def again(here: Path, **settings: Any) -> Plan:
    return prepare(RunDir(here / "run"), config(here, **settings))


def test_the_plan_holds_what_each_row_is_made_with(here: Path) -> None:
    plan = begun(here)
    a, b = here / "a.safetensors", here / "b.safetensors"
    found = {prompt.prompt: [tuple(one) for one in prompt.lora] for prompt in plan.prompts()}
    assert found == {"a fox": [(str(a), 0.8, digest(a))], "an owl": [(str(b), 0.5, digest(b))], "a hen": []}
    assert sorted(plan.loras) == [(str(a), digest(a)), (str(b), digest(b))]
    assert plan.planned.model.lora == plan.config.model.lora == [f"{a}:0.8"]
    assert len({prompt.lora for batch in plan.shard(0)[0].batches for prompt in batch.prompts}) == len(
        plan.shard(0)[0].batches
    )


def test_the_same_lora_may_be_written_otherwise(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = begun(here).run_id
    assert again(here).run_id == run_id
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert again(here, model__lora=["../a.safetensors:0.80"]).run_id == run_id


def test_the_jobs_file_may_move_and_workers_find_it(here: Path) -> None:
    begun(here)
    (here / "moved").mkdir()
    moved = (here / "a.safetensors").rename(here / "moved" / "fox.safetensors")
    plan = again(here, model__lora="moved/fox.safetensors:0.8")
    assert plan.config.model.lora == [f"{moved}:0.8"]
    assert load_plan(plan.run).config.model.lora == [f"{moved}:0.8"]


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ("a.safetensors:0.9", r"model.lora: \[\"/.*a.safetensors:0.8\"\] -> \[\"/.*a.safetensors:0.9\"\]"),
        ("b.safetensors:0.8", r"model.lora: .*a.safetensors.* -> .*b.safetensors"),
        (None, r"model.lora: .*a.safetensors.* -> null"),
    ],
)
def test_another_lora_for_the_job_is_refused_with_the_difference(here: Path, now: str | None, told: str) -> None:
    begun(here)
    with pytest.raises(ResumeError, match=told):
        again(here, model__lora=now)


def test_another_content_under_the_jobs_name_is_refused(here: Path) -> None:
    begun(here)
    write(here / "a.safetensors", "unet.x.lora_A.weight", filler=b"another")
    with pytest.raises(ResumeError, match=r"model.lora=/.*a.safetensors:0.8: its files have changed"):
        again(here)
    with pytest.raises(ModelError, match="a.safetensors is not the file that this run was planned with"):
        load_engine(load_plan(RunDir(here / "run")))


def test_a_worker_that_refuses_a_file_has_stopped_and_not_crashed(here: Path) -> None:
    plan = begun(here)
    write(here / "b.safetensors", "unet.x.lora_A.weight", filler=b"another")
    worker = [sys.executable, "-m", "batchgen.worker", str(plan.run.root), "0", "1"]
    done = subprocess.run(
        worker, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    )
    assert done.returncode == 2 and "b.safetensors is not the file that this run was planned with" in done.stderr
    [member] = read_crew(plan.run, Watch(60.0)).members
    assert member.state == "stopped" and member.does.startswith(f"stopped: LoRA {here}/b.safetensors")


@pytest.mark.parametrize("is_gone", [True, False])
def test_another_content_under_a_rows_name_is_refused_while_there_is_work(here: Path, is_gone: bool) -> None:
    plan = begun(here)
    (here / "b.safetensors").unlink()
    if not is_gone:
        write(here / "b.safetensors", "unet.x.lora_A.weight", filler=b"another")
    with pytest.raises(ModelError, match=f"b.safetensors is {'gone' if is_gone else 'not the file'}.* planned with"):
        again(here)
    with pytest.raises(ModelError, match="b.safetensors is"):
        load_engine(plan)
    finish_run(plan)
    assert again(here).run_id == plan.run_id


def test_a_lora_for_a_job_that_was_planned_without_is_refused(here: Path) -> None:
    begun(here, model__lora=None)
    with pytest.raises(ResumeError, match="model.lora: null -> "):
        again(here)


def test_an_edited_cell_is_told(here: Path) -> None:
    plan = begun(here)
    rows = [ROWS[0], {"prompt": "an owl", "lora": "b.safetensors:0.6"}, ROWS[2]]
    changed = make_config(here, rows, model__lora="a.safetensors:0.8")
    with pytest.raises(ResumeError, match="line 2, 'an owl', has other settings or columns now"):
        prepare(plan.run, changed)


def test_rows_that_are_added_may_bring_others(here: Path) -> None:
    begun(here)
    write(here / "c.safetensors", "unet.x.lora_A.weight", filler=b"third")
    more = write_rows(here / "more.jsonl", [{"prompt": "a cat", "lora": "c.safetensors"}, "a dog"])
    wanted = config(here)
    wanted.job.prompts, wanted.extend = [wanted.job.prompts, str(more)], True
    plan = prepare(RunDir(here / "run"), wanted)
    added = {prompt.prompt: [Path(one.path).name for one in prompt.lora] for prompt in plan.prompts()}
    assert (added["a cat"], added["a dog"]) == (["c.safetensors"], ["a.safetensors"])
    assert len(plan.loras) == 3


def plans(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.root.glob("plan*"))


@pytest.mark.parametrize("way", ["limit", "extend", "retry", "gone"])
def test_nothing_is_added_to_a_finished_run_while_a_planned_file_is_another(here: Path, way: str) -> None:
    rows: list[str | dict[str, Any]] = [{"prompt": f"fox {n}", "lora": "b.safetensors"} for n in range(4)]
    more = write_rows(here / "more.jsonl", [{"prompt": "a cat", "lora": "b.safetensors"}])
    run, first = RunDir(here / "run"), make_config(here, rows, job__limit=2)
    plan = prepare(run, first)
    plan.run.create_directories()
    finish_run(plan, failed=[next(plan.prompts()).key])
    wanted = make_config(here, rows, job__limit=2 if way == "retry" else 4, retry_failed=way == "retry")
    if way == "extend":
        wanted.job.prompts, wanted.extend = [str(wanted.job.prompts), str(more)], True
    original = (here / "b.safetensors").read_bytes()
    (here / "b.safetensors").unlink()
    if way != "gone":
        write(here / "b.safetensors", "unet.x.lora_A.weight", filler=b"another")
    told = "b.safetensors: no such file" if way == "gone" else "b.safetensors is not the file .* put the original back"
    for _ in range(2):
        with pytest.raises(ModelError, match=told):
            prepare(run, wanted)
        assert plans(run) == ["plan"]
    (here / "b.safetensors").write_bytes(original)
    prepare(run, wanted)
    assert plans(run) == ["plan", "plan-001"] and len(load_plan(run).loras) == 1


@pytest.mark.parametrize("key", ["lora", "embeddings", "vae"])
def test_other_contents_of_the_jobs_own_files_are_refused_before_anything_is_added(here: Path, key: str) -> None:
    tiny = PACKAGE / "models" / "tiny"
    shutil.copytree(tiny / "vae", here / "vae")
    width = json.loads((tiny / "text_encoder" / "config.json").read_text())["hidden_size"]
    word = write_tensors(here / "word.safetensors", {"emb_params": [1, width]})
    named = {"lora": "a.safetensors", "embeddings": str(word), "vae": str(here / "vae")}[key]
    run, rows = RunDir(here / "run"), [f"fox {n}" for n in range(4)]
    plan = prepare(run, make_config(here, rows, job__limit=2, **{f"model__{key}": named}))
    plan.run.create_directories()
    finish_run(plan)
    changed = {"lora": here / "a.safetensors", "embeddings": word}.get(key, next((here / "vae").glob("*.safetensors")))
    original = changed.read_bytes()
    changed.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    if key == "lora":
        write(changed, "unet.x.lora_A.weight", filler=b"another")
    with pytest.raises(ResumeError, match="its files have changed"):
        prepare(run, make_config(here, rows, job__limit=4, **{f"model__{key}": named}))
    assert plans(run) == ["plan"]
    changed.write_bytes(original)
    prepare(run, make_config(here, rows, job__limit=4, **{f"model__{key}": named}))
    assert plans(run) == ["plan", "plan-001"]


def test_a_path_of_the_plan_stays_one_file_even_if_the_job_has_the_planned_one_elsewhere(here: Path) -> None:
    rows: list[str | dict[str, Any]] = ["a", "b", {"prompt": "c", "lora": "a.safetensors"}]
    run = RunDir(here / "run")
    plan = prepare(run, make_config(here, rows, job__limit=2, model__lora="a.safetensors"))
    plan.run.create_directories()
    finish_run(plan)
    (here / "a.safetensors").rename(here / "moved.safetensors")
    write(here / "a.safetensors", "unet.x.lora_A.weight", filler=b"another")
    with pytest.raises(ModelError, match="a.safetensors is not the file that this run was planned with"):
        prepare(run, make_config(here, rows, job__limit=3, model__lora="moved.safetensors"))
    assert plans(run) == ["plan"]


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("rows", "lora", "told"),
    [
        (["a fox"], "gone.safetensors", "^LoRA gone.safetensors: no such file"),
        ([{"prompt": "a", "lora": "gone.safetensors"}], None, r"prompts.jsonl:1: LoRA gone.safetensors: no such file"),
        ([{"prompt": "a", "lora": "old.ckpt"}], None, r"prompts.jsonl:1: LoRA old.ckpt is pickled"),
        (["a fox"], "other.safetensors", "holds no LoRA, but a ControlNet"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_no_plan(here: Path, rows: Any, lora: Any, told: str, dry: bool) -> None:
    write(here / "other.safetensors", "control_model.x")
    wanted, run = make_config(here, rows, model__lora=lora), RunDir(here / "run")
    with pytest.raises(ModelError, match=told):
        summary(run, wanted, look_up(wanted)) if dry else prepare(run, wanted)
    assert not run.root.exists()


def test_whether_files_fit_is_asked_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "loras" not in request:  # about the model itself
            return {"told": [], "steps": request["steps"]}
        asked.append(request["loras"])
        if any("bad" in path for path in request["loras"].values()):
            raise ModelError("LoRA bad.safetensors does not fit this model")
        return {"loras": {sha256: [f"told of {sha256[:4]}"] for sha256 in request["loras"]}}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(admit, "_answer", answer)
    for name, filler in (("a", b"a"), ("b", b"bb"), ("bad", b"bad")):
        write(tmp_path / f"{name}.safetensors", "unet.x.lora_A.weight", filler=filler)
    wanted = config(tmp_path)
    prepare(RunDir(tmp_path / "run"), wanted)
    prepare(RunDir(tmp_path / "other"), wanted)
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert asked == [{digest(a): str(a), digest(b): str(b)}]
    with pytest.raises(ModelError, match="does not fit"):
        prepare(RunDir(tmp_path / "third"), config(tmp_path, model__lora="bad.safetensors"))
    assert [list(one) for one in asked[1:]] == [[digest(tmp_path / "bad.safetensors")]]
    assert not (tmp_path / "third").exists()
    assert json.loads((tmp_path / "run" / "plan" / "run.json").read_text())["recipe"]["loras"] == [[digest(a), 0.8]]
