"""Models as people bring them: the dry run and the run say the same, before there is a plan, or images are made."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from batchgen import here
from batchgen import run as run_module
from batchgen.errors import EXIT_WHOLE, UserError
from batchgen.launch import local
from batchgen.machine.process import worker_name
from batchgen.models import admit
from batchgen.paths import RunDir
from batchgen.places import models_dir
from batchgen.plan.store import load_plan
from batchgen.verify import verify
from batchgen.worker.loop import Worker, load_engine
from tests.builders import make_config
from tests.models.broken_models import MODELS

pytestmark = pytest.mark.slow  # real runs


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The model is checked and the worker works in this process, where torch is loaded once; who was started."""
    from batchgen.pipeline.check import check, model_of

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked = dict(request)
        return json.loads(json.dumps(check(model_of(asked), **asked)))

    def launch(crew: local.Crew, stop: Any, tick: Any, say: Any) -> int:
        names.append(worker_name(0))
        return Worker(crew.plan, names[-1], 0, 1, load_engine, stop).work()

    names: list[str] = []
    monkeypatch.setattr(admit, "_answer", answer)
    monkeypatch.setattr(local, "launch", launch)
    monkeypatch.setattr(here, "catch_signals", lambda *_, **__: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield names


@pytest.mark.parametrize("name", MODELS)
def test_the_dry_run_and_the_run_refuse_alike_or_images_are_made(
    tmp_path: Path, started: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, overrides, words = MODELS[name]
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(models_dir() / "tiny", folder)
    change(folder)
    settings = {"model__path": str(folder), "job__scheduler": "ddim", "run_dir": str(tmp_path / "out" / "run")}
    config = make_config(tmp_path, ["a fox", "word " * 100], **{**settings, **overrides})
    said = []
    for dry in (True, False):
        config.dry_run = dry
        if words is None:
            assert run_module.run(config) == EXIT_WHOLE
            continue
        with pytest.raises(UserError, match=words) as caught:
            run_module.run(config)
        said.append(str(caught.value))
        assert started == [] and not (tmp_path / "out").exists()
    if words is None:
        findings = verify(load_plan(RunDir(Path(config.run_dir))))
        assert (findings.images, findings.problems, len(started)) == (2, [], 1)
    else:
        assert said[0] == said[1] and "\n" not in said[0]
