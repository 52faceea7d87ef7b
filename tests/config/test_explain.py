"""Mistakes in one's own files and on the command line: one line with the file, the line, the key and the value."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose as compose_hydra
from hydra import initialize_config_dir

from batchgen.config import compose
from batchgen.config.compose import load, own_files, register, require_job
from batchgen.config.explain import explain, located
from batchgen.config.own_files import OwnFile
from batchgen.config.schema import Config
from batchgen.config.shipped import conf_dir

HEAD = "# @package _global_\n"
JOB = HEAD + "job:\n  name: x\n  prompts: two.txt\n"
MODEL = "defaults:\n  - override /model: {}\n"

# What a job file holds, the line that is named (None: no line can be), and what is said.
MISTAKES = {
    "misspelt key": (JOB + "  stpes: 3\n", 5, "job.stpes=3: no such key; did you mean job.steps?"),
    "misspelt column": (JOB + "  columns:\n    promt: a\n", 6, "job.columns.promt=a: no such key; did you mean"),
    "key of another group": (JOB + "  run_dir: out\n", 5, "job.run_dir=out: no such key; did you mean run_dir?"),
    "key without its group": (JOB + "steps: 3\n", 5, "steps=3: no such key; did you mean job.steps or model.steps?"),
    "a number as a key": (JOB + "  3: 4\n", 5, "job.3=4: no such key"),
    "CRLF": ((JOB + "  stpes: 3\n").replace("\n", "\r\n"), 5, "job.stpes=3: no such key"),
    "list for text": (JOB + "  negative_prompt: [a, b]\n", 5, 'prompt=[a, b]: it must be text, such as "a, b"'),
    "text for a number": (JOB + "  steps: many\n", 5, "job.steps=many: it must be a whole number"),
    "fraction": (JOB + "  steps: 2.5\n", 5, "job.steps=2.5: it must be a whole number"),
    "comma": (JOB + "  guidance: 7,5\n", 5, "job.guidance=7,5: it must be a number; write a decimal point: 7.5"),
    "maybe": (JOB + "extend: maybe\n", 5, "extend=maybe: it must be true or false"),
    "keys under a value": (JOB + "  steps: {a: 1}\n", 5, "job.steps: it must be a whole number"),
    "a tag": (JOB + "  steps: !!python/name:os.system x\n", 5, "it must be a whole number"),
    "null": (JOB + "  steps: null\n", 5, "job.steps=null: it must be a whole number"),
    "nothing": (JOB + "  guidance:\n", 5, "job.guidance: it must be a number"),
    "no prompts": (HEAD + "job:\n  name: x\n  prompts:\n", 4, "job.prompts: it must be text or a list of texts"),
    "prompts left out": (HEAD + "job:\n  name: x\n", None, "job.prompts: it must be set, in "),
    "out of bounds": (JOB + "  width: 100\n", 5, "job.width must be a multiple of 8, got 100"),
    "no choice": (JOB + "  scheduler: dpm\n", 5, "job.scheduler=dpm is not valid; did you mean dpm++?"),
    "no size": (JOB + "memory:\n  max_vram: lots\n", 6, "memory.max_vram=lots is not a size"),
    "no name": (JOB.replace("name: x", "name: a/b"), 3, "job.name='a/b' must be a plain name"),
    "no package": (JOB.removeprefix(HEAD), 1, "the first line must be # @package _global_"),
    "package below a comment": ("# mine\n" + JOB, 1, "the first line must be # @package _global_"),
    "package without a name": (JOB.replace(" _global_", ""), 1, "the first line must be # @package _global_"),
    "model as a value": (JOB + "model: sdxl\n", 5, "model=sdxl: a group is chosen in a list at the top"),
    "list for a group": (JOB + "memory: [1]\n", 5, "memory=[1]: there must be keys under memory:"),
    "text for a group in a group": (JOB + "memory:\n  policy: fast\n", 6, "memory.policy=fast: there must be keys"),
    "empty group": (JOB + "memory:\n", 5, "memory: there is nothing under it"),
    "job twice": (JOB + "job:\n  steps: 3\n", 5, "job: is already in line 2"),
    "key twice": (JOB + "  steps: 3\n  steps: 4\n", 6, "job.steps: is already in line 5"),
    "deeper line": (JOB + "   steps: 3\n", 5, "steps: 3: it is not valid YAML: indent"),
    "shallower line": (JOB + " steps: 3\n", 5, "steps: 3: it is not valid YAML: indent"),
    "nothing indented": (HEAD + "job:\nname: x\nprompts: two.txt\n", 2, "job: there is nothing under it: indent"),
    "tab": (HEAD + "job:\n\tname: x\n", 3, "it is indented with a tab"),
    "colon": (JOB + "  negative_prompt: a: b\n", 5, 'put the text in quotes: negative_prompt: "a: b"'),
    "at": (JOB + "  negative_prompt: @home\n", 5, 'put the text in quotes: negative_prompt: "@home"'),
    "control character": (JOB + "  negative_prompt: a\x01b\n", 5, "a character that YAML does not allow (0x01)"),
    "no colon": (HEAD + "job:\n  name=x\n", 2, "job=name=x: there must be keys under job:"),
    "command line in a file": ("job.name=x\n", 1, "the file holds text where keys with values are needed"),
    "list at the top": ("- job\n", 1, "the file holds a list where keys with values are needed"),
    "empty": ("", 1, "the file is empty: it needs # @package _global_ and, under job:, prompts"),
    "comments alone": (HEAD, 1, "the file is empty: it needs job: and, under it, prompts"),
    "open bracket": (HEAD + "job:\n  prompts: [p.txt\n", 3, "put ] at the end of it, such as prompts: [p.txt]"),
    "open list of defaults": (HEAD + "defaults: [base\n" + JOB, 2, "put ] at the end of it"),
    "missing base": (HEAD + "defaults: [base, _self_]\n" + JOB, 2, "- base: there is no base.yaml beside this file"),
    "nearly its own name": (HEAD + "defaults: [venu]\n" + JOB, 2, "a model is chosen by a line - override /model: "),
    "missing option": (HEAD + MODEL.format("sdxxl") + JOB, 3, "- override /model: sdxxl: model has no option sdxxl"),
    "missing group": (HEAD + "defaults:\n  - override /modl: sdxl\n" + JOB, 3, "no group modl; did you mean model?"),
    "plain default": (HEAD + "defaults:\n  - model: sdxl\n" + JOB, 3, "write - override /model: sdxl"),
    "no override": (HEAD + "defaults:\n  - /model: sdxl\n" + JOB, 3, "write - override /model: sdxl"),
    "no slash": (HEAD + "defaults:\n  - override model: sdxl\n" + JOB, 3, "write - override /model: sdxl"),
    "name as default": (HEAD + "defaults:\n  - sdxl\n" + JOB, 3, "write - override /model: sdxl"),
    "text as defaults": (HEAD + "defaults: sdxl\n" + JOB, 2, "defaults must be a list"),
    "keys as defaults": (HEAD + "defaults:\n  override /model: sdxl\n" + JOB, 3, "defaults must be a list"),
    "misspelt defaults": (HEAD + "default:\n  - override /model: sdxl\n" + JOB, 2, "did you mean defaults?"),
    "reference": (JOB + "  negative_prompt: a ${nope} b\n", 5, "no key nope; to mean the text, write \\${nope}"),
    "misspelt reference": (JOB + "  width: ${model.size}\n", 5, "no key model.size (did you mean model.size_px?)"),
    "function": (JOB + "  negative_prompt: ${env:HOME}\n", 5, "there is no key env"),
    "open reference": (JOB + "  negative_prompt: ${nope\n", 5, "to mean the text, write \\${"),
    "hydra": (JOB + "hydra:\n  foo: 3\n", 5, "hydra.foo: no such key"),
}  # fmt: skip
RIGHT = {
    "as documented": HEAD + MODEL.format("sdxl") + JOB.removeprefix(HEAD),
    "without a name": JOB.replace("  name: x\n", ""),
    "without a package": "name: x\nprompts: two.txt\n",
    "defaults last": JOB + MODEL.format("sdxl"),
    "text with a reference that is escaped": JOB + "  negative_prompt: a \\${nope} b\n",
    "anchor": JOB + "  negative_prompt: &a blurry\n",
    "reference": JOB + "  width: ${model.size_px}\n",
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the job venus, whose text each test writes, and nothing opened yet."""
    monkeypatch.setattr(compose, "_OPENED", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "job").mkdir(parents=True)
    return tmp_path / "mine"


def compose_venus(mine: Path, *overrides: str) -> Config:
    """As the front door does it."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = compose_hydra("config", [f"hydra.searchpath=[{mine}]", "job=venus", *overrides])
        require_job(values)
        return load(values)


def told(act: Callable[[], object], arguments: tuple[str, ...] = ()) -> str:
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 (Hydra, OmegaConf, YAML and ours)
        act()
    error = explain(caught.value, own_files(), arguments)
    return located(str(error or caught.value), own_files(), arguments)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_told_with_its_line(mine: Path, mistake: str) -> None:
    text, line, words = MISTAKES[mistake]
    (mine / "job" / "venus.yaml").write_bytes(text.encode())
    said = told(lambda: compose_venus(mine))
    assert words in said and len(said.splitlines()) == 1, said
    assert said.startswith(f"mine/job/venus.yaml:{line}: ") if line else "mine/job/venus.yaml" in said, said


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
def test_other_encodings_are_told(mine: Path, encoding: str) -> None:
    (mine / "job" / "venus.yaml").write_bytes((JOB + "  negative_prompt: café\n").encode(encoding))
    said = told(lambda: compose_venus(mine))
    assert said.startswith("mine/job/venus.yaml:") and "save the file as UTF-8" in said, said


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_composed(mine: Path, name: str) -> None:
    (mine / "job" / "venus.yaml").write_text(RIGHT[name])
    config = compose_venus(mine)
    assert config.job.prompts == "two.txt"
    assert config.model.size_px == (1024 if "sdxl" in RIGHT[name] else 128)


def test_a_mistake_in_a_file_that_a_job_names_is_told_of_that_file(mine: Path) -> None:
    (mine / "job" / "venus.yaml").write_text(HEAD + MODEL.format("ours") + JOB.removeprefix(HEAD))
    (mine / "model").mkdir()
    (mine / "model" / "ours.yaml").write_text("path: tiny\nsize: 128\n")
    said = told(lambda: compose_venus(mine))
    assert said == "mine/model/ours.yaml:2: model.size=128: no such key; did you mean model.size_px?"


@pytest.mark.parametrize(
    ("base", "line", "said"),
    [
        ("steps: 3\n", 1, "steps=3: no such key; did you mean job.steps or model.steps?"),
        ("job:\n  stpes: 3\n", 2, "job.stpes=3: no such key; did you mean job.steps?"),
        ("job:\n  width: 100\n", 2, "job.width must be a multiple of 8, got 100"),
        ("job: [\n", 1, "the bracket is not closed"),
    ],
)
def test_a_mistake_in_a_base_of_ones_own_is_told_of_the_base(mine: Path, base: str, line: int, said: str) -> None:
    (mine / "job" / "base.yaml").write_text(base)
    (mine / "job" / "venus.yaml").write_text(HEAD + "defaults: [base, _self_]\n" + JOB.removeprefix(HEAD))
    found = told(lambda: compose_venus(mine))
    assert said in found and found.startswith(f"mine/job/base.yaml:{line}: "), found


def test_a_base_that_is_misspelt_is_told_with_the_one_that_is_there(mine: Path) -> None:
    (mine / "job" / "base.yaml").write_text("job:\n  steps: 3\n")
    (mine / "job" / "venus.yaml").write_text(HEAD + "defaults: [bse, _self_]\n" + JOB.removeprefix(HEAD))
    found = told(lambda: compose_venus(mine))
    assert found == "mine/job/venus.yaml:2: - bse: there is no bse.yaml beside this file; did you mean - base?"


def test_the_command_line_is_blamed_for_what_it_sets_itself(mine: Path) -> None:
    (mine / "job" / "venus.yaml").write_text(JOB + "  width: 128\n")
    arguments = ("job.width=100",)
    assert told(lambda: compose_venus(mine, *arguments), arguments).startswith("job.width must be")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("job.negative_prompt=[a,b]", "it must be text; write 'job.negative_prompt=\"[a,b]\"'"),
        ("job.negative_prompt=null", "job.negative_prompt=null: it must be text; no text is job.negative_prompt="),
        ("job.negative_prompt=a ${x} b", "to mean the text, write 'job.negative_prompt=a \\${x} b'"),
        ("job.guidance=null", "job.guidance=null: it must be a number"),
        ("job.limit=1.5", "job.limit=1.5: it must be a whole number or null"),
        ("launch.workers=many", "launch.workers=many: it must be a whole number or null"),
        ("price_per_gpu_hour=2$", "price_per_gpu_hour=2$: it must be a number or null"),
        ("job.guidance='7,5'", "it must be a number; write a decimal point: 7.5"),
        ("speed.traced=maybe", "speed.traced=maybe: it must be true or false"),
        ("memory.policy=fast", "memory.policy=fast: it is a group of keys"),
        ("+job.steps=3", "job.steps: it has a value already: write job.steps=VALUE, without the +"),
        ("job.run_dir=x", "did you mean run_dir=x?"),
        ("model=/models/x", "model.path=/models/x"),
    ],
)
def test_a_value_on_the_command_line(mine: Path, override: str, said: str) -> None:
    (mine / "job" / "venus.yaml").write_text(JOB)
    found = told(lambda: compose_venus(mine, override), (override,))
    assert said in found and len(found.splitlines()) == 1, found


@pytest.mark.parametrize(
    ("written", "arguments", "said"),
    [
        ("mine/job/venus.yml", ["--config-dir", "mine"], "name the file mine/job/venus.yaml, not .yml"),
        ("mine/job/venus.yaml", ["--config-dir", "mine/job"], "--config-dir names the folder above job/: mine"),
        ("mine/venus.yaml", ["--config-dir=mine"], "mine, with job/venus.yaml in it"),
    ],
)
def test_a_job_that_lies_elsewhere(mine: Path, written: str, arguments: list[str], said: str) -> None:
    Path(written).write_text(JOB)
    Path("none").mkdir()
    found = told(lambda: compose_venus(Path("none").absolute()), tuple(arguments))
    assert said in found, found


def test_an_error_of_the_program_is_not_explained_away() -> None:
    def fails() -> None:
        raise RuntimeError("a fault of our own")

    with pytest.raises(RuntimeError) as caught:
        fails()
    assert explain(caught.value, [OwnFile(Path("none.yaml"), "none")]) is not None, "a file that is gone is told"
    assert explain(caught.value) is None
