"""What comes with the package is found."""

from batchgen.config.keys import GROUPS_OF_OPTIONS
from batchgen.config.shipped import conf_dir, jobs_dir, options_of


def test_the_groups_are_the_folders_of_conf() -> None:
    assert sorted(path.name for path in conf_dir().iterdir() if path.is_dir()) == sorted(GROUPS_OF_OPTIONS)
    assert {"flux_dev", "sd15", "sdxl", "tiny", "z_image"} <= {*options_of("model")}
    assert options_of("nothing") == []


def test_the_prompts_of_shipped_jobs_are_there() -> None:
    assert (jobs_dir() / "mars_batch.txt").is_file()
