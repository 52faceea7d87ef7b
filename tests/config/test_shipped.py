"""What comes with the package is found."""

from batchgen.config.keys import GROUPS_OF_OPTIONS
from batchgen.config.shipped import conf_dir, jobs_dir, options_of


def test_the_groups_are_the_folders_of_conf() -> None:
    assert sorted(path.name for path in conf_dir().iterdir() if path.is_dir()) == sorted(GROUPS_OF_OPTIONS)
    assert options_of("model") == ["sd15", "sdxl", "tiny"]
    assert options_of("nothing") == []


def test_the_prompts_of_shipped_jobs_are_there() -> None:
    assert (jobs_dir() / "mars_batch.txt").is_file()
