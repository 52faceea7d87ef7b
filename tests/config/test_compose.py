"""What Hydra makes of the command line: a plain, checked configuration, and errors in one line."""

import pytest
from hydra import compose, initialize_config_dir

from batchgen.config.compose import load, register, require_job
from batchgen.config.explain import explain
from batchgen.config.schema import Config
from batchgen.config.shipped import conf_dir, jobs_dir, options_of
from batchgen.errors import ConfigError


def composed(*overrides: str) -> Config:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = compose("config", list(overrides))
        require_job(values)
        return load(values)


def test_groups_and_overrides_become_a_plain_configuration() -> None:
    config = composed("job=mars_batch", "model=sdxl", "job.steps=7")
    assert (config.job.name, config.job.steps, config.job.width) == ("mars_batch", 7, 1024)
    assert config.job.prompts == str(jobs_dir() / "mars_batch.txt")


@pytest.mark.parametrize("name", options_of("model"))
def test_each_model_brings_a_job_its_size_its_steps_and_its_guidance(name: str) -> None:
    config = composed(f"model={name}", "job.name=x", "job.prompts=x.txt")
    job, model = config.job, config.model
    assert (job.width, job.height, job.steps, job.guidance) == (
        model.size_px,
        model.size_px,
        model.steps,
        model.guidance,
    )
    assert model.size_px % 16 == 0 and (job.scheduler, model.dtype) == (model.scheduler, "auto")


def test_a_job_takes_the_scheduler_of_its_model_unless_it_names_one() -> None:
    chosen = {
        name: composed("job=mars_batch", f"model={name}").job.scheduler for name in ("tiny", "sdxl", "flux_schnell")
    }
    assert chosen == {"tiny": "ddim", "sdxl": "ddim", "flux_schnell": "model"}
    assert composed("job=landscape_4k").job.scheduler == "unipc"


def test_without_a_job_the_jobs_are_listed() -> None:
    with pytest.raises(ConfigError, match="mars_batch"):
        composed()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("job.stepz=3", "job.stepz: no such key; did you mean job.steps"),
        ("model=sdxxl", "model=sdxxl: no such option; did you mean sdxl"),
        ("+job.nonsense=1", "job.nonsense: no such key"),
        ("job.steps=many", "job.steps: "),
        ("job.prompts=[a", "cannot be parsed: put it in quotes"),
    ],
)
def test_a_mistake_is_explained_in_one_line(override: str, said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 (Hydra and OmegaConf raise many kinds)
        composed("job=mars_batch", override)
    told = str(explain(caught.value))
    assert said in told and len(told.splitlines()) == 1
