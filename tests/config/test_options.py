"""launch.slurm.NAME=VALUE on the command line and in files: any name, and the text that was written."""

import pytest
from omegaconf import OmegaConf

from batchgen.config.options import open_word, with_texts
from batchgen.errors import ConfigError
from tests.config.test_compose import composed


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("launch.slurm.partition=gpu", "gpu"),
        ("+launch.slurm.partition=gpu", "gpu"),
        ("++launch.slurm.partition=gpu", "gpu"),
        ("launch.slurm.partition=a&b|c", "a&b|c"),
        ("launch.slurm.partition=node[1-3],node7", "node[1-3],node7"),
        ("launch.slurm.partition='two words'", "two words"),
        ("launch.slurm.partition=nvcr.io#a/b:1", "nvcr.io#a/b:1"),
        ("launch.slurm.partition=12:00:00", "12:00:00"),
        ("launch.slurm.partition=it's", "it's"),
        ('launch.slurm.partition=a"b', 'a"b'),
        ("launch.slurm.partition=C:\\x", "C:\\x"),
        ("launch.slurm.partition=08", "08"),
        ("launch.slurm.partition=null", None),
        ("~launch.slurm.partition", None),
        ("launch.slurm.partition=true", True),
    ],
)
def test_an_option_on_the_command_line_is_taken_as_it_is(word, value):
    assert composed("job=mars_batch", open_word(word)).launch.slurm == {"partition": value}


def test_names_get_dashes_and_other_settings_stay():
    assert open_word("launch.slurm.gpus_per_task=2") == '++launch.slurm.gpus-per-task="2"'
    assert open_word("launch.collector.mem=2G") == '++launch.collector.mem="2G"'
    assert open_word("job.steps=3") == "job.steps=3"
    assert open_word("launch.slurm={a:1}") == "launch.slurm={a:1}"


def test_an_option_without_a_value_is_told():
    with pytest.raises(ConfigError, match="launch.slurm.exclusive=true for an option that takes none"):
        open_word("launch.slurm.exclusive")


def test_a_file_means_the_text_that_it_has(tmp_path):
    path = tmp_path / "job" / "venus.yaml"
    path.parent.mkdir()
    path.write_text(
        "launch:\n  slurm:\n    time: 12:00:00\n    mem_per_cpu: 08\n    exclusive: yes\n    qos:\n    nice: ~\n"
    )
    values = OmegaConf.load(path)
    with_texts(path, values)
    expected = {"time": "12:00:00", "mem-per-cpu": "08", "exclusive": True, "qos": None, "nice": None}
    assert values.launch.slurm == expected
    option = tmp_path / "launch" / "ours.yaml"  # an option of the group launch has no launch: in it
    option.parent.mkdir()
    option.write_text("launcher: slurm\nslurm:\n  time: 12:00:00\n")
    values = OmegaConf.load(option)
    with_texts(option, values)
    assert values.slurm.time == "12:00:00"
