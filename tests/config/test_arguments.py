"""What people type that is no setting: each gets the line that is right."""

import shlex
from pathlib import Path

import pytest

from batchgen.config.arguments import arranged
from batchgen.errors import ConfigError

JOB = "job=mars_batch"


def told(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        arranged([JOB, *arguments])
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("dry_run", "write dry_run=true"),
        ("dry-run", "write dry_run=true"),
        ("extend", "write extend=true"),
        ("retry_failed", "write retry_failed=true"),
        ("--dry-run", "dry_run=true"),
        ("--dry_run", "dry_run=true"),
        ("--extend", "extend=true"),
        ("--retry-failed", "retry_failed=true"),
        ("--steps 20", "job.steps=20"),
        ("--steps=20", "job.steps=20"),
        ("--prompts a.txt", "job.prompts=a.txt"),
        ("--model sdxl", "model=sdxl"),
        ("--output-dir out", "run_dir=out"),
        ("-x", "-x: no such option; --help says what can be typed"),
        ("--config mine", "ambiguous option"),
        ("job.steps", "write job.steps=VALUE"),
        ("job.steps = 3", "write job.steps=3, without spaces"),
        ("job.steps =3", "write job.steps=3, without spaces"),
        ("job.steps:3", "write job.steps=3, with ="),
        ("job.steps==3", "such as job.steps=3"),
        ("model sdxl", "write model=sdxl"),
        ("sdxl", "write model=sdxl"),
        ("retry_faild", "did you mean retry_failed=true?"),
        ("status", "status goes first"),
        ("help", "--help"),
        ("job.steps=2,3", f"-m {JOB} job.steps=2,3"),
        ("job.scheduler=ddim,euler", f"-m {JOB} job.scheduler=ddim,euler"),
        ("model=sd15,sdxl", f"-m {JOB} model=sd15,sdxl"),
        ("stepz=2,3", "did you mean job.steps=2,3 or model.steps=2,3?"),
        ("job=null", "'job=\"null\"'"),
        ("=5", "has no key"),
        ("job=", "choose one of landscape_4k, mars_batch, parti"),
        ("job.guidance=7,5", "write a decimal point: job.guidance=7.5"),
        ("job.steps=20,", "such as job.steps=20"),
        ("--verison", "did you mean --version?"),
        ("job.prompts=a.txt b.csv", "'job.prompts=[a.txt,b.csv]'"),
        ("nonsense", "write a setting as key=value"),
    ],
)
def test_the_right_line_is_said(typed: str, right: str) -> None:
    assert right in told(*typed.split())


def test_a_key_with_a_space_is_told_to_have_one() -> None:
    assert "write job.steps=3, without spaces" in told("job.steps = 3")


def test_prompts_are_no_arguments() -> None:
    assert "read from a file: job.prompts=FILE" in told("a cat on mars")


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_argument_is_said_to_be_one(empty: str) -> None:
    assert "variable of the shell" in told(empty)


@pytest.mark.parametrize(
    "words",
    [
        ["job.negative_prompt=blurry,lowres"],
        ["job.negative_prompt=blurry,", "lowres"],
        ["job.negative_prompt=a", "dog", "and", "a=b"],
        ["job.negative_prompt=a=b"],
        ["job.negative_prompt=it's"],
        ["job.negative_prompt={red}"],
        ["job.negative_prompt=(ugly:1.3), {x}"],
        ['job.negative_prompt=say "no"'],
        ["job.negative_prompt=costs $5, or 'more'"],
        ["job.negative_prompt=<none>"],
        ["job.prompts=[a.txt,", "b.txt]"],
        ["job.prompts=a.txt,b.txt"],
        ["job.prompts=a", "file.txt"],
        ["run_dir=out/a,b"],
    ],
    ids=" ".join,
)
def test_the_advised_line_works_and_holds_what_was_typed(words: list[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    said = told(*words)
    (advised,) = shlex.split(said[said.rindex(": ") + 2 :])
    assert arranged([JOB, advised]) == [JOB, advised]
    key, _, typed = " ".join(words).partition("=")
    got = OverridesParser.create().parse_override(advised).value()
    if isinstance(got, list):
        got = ",".join(got)
        typed = typed.strip("[]").replace(", ", ",")
    assert advised.startswith(f"{key}=") and got == (typed if "a=b" not in words else "a dog and")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("prompt\na fox\n")
    (tmp_path / "outputs" / "x" / "plan").mkdir(parents=True)
    (tmp_path / "own" / "job").mkdir(parents=True)
    (tmp_path / "own" / "job" / "venus.yaml").write_text("name: venus\n")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("mine.csv", "job.prompts=mine.csv"),
        ("outputs/x", "status outputs/x shows how far a run is"),
        ("outputs/none", "there is no such directory yet"),
        ("own", "--config-dir own job=NAME"),
        ("own/job/venus.yaml", "--config-dir own job=venus"),
        ("statsu", "did you mean python -m batchgen status RUN_DIR?"),
    ],
)
def test_a_path_or_a_word_on_its_own(here: Path, word: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arranged([word])
    assert right in str(caught.value)


def test_settings_after_an_option_are_settings(here: Path) -> None:
    assert arranged([JOB, "--config-dir", "own", "job.steps=3", "-m"]) == [
        "--config-dir", "own", "-m", JOB, "job.steps=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-h"],
        [JOB, "job.negative_prompt=a dog", "~hydra.foo", "+hydra.verbose=true"],
        ["-m", JOB, "job.negative_prompt=a,b", "job.seed=range(1,4)"],
        ["hydra.mode=MULTIRUN", JOB, "job.seed=1,2"],
        ["--config-name", "mine", JOB, "job.seed=1,2"],
        ["--config-dir", "own", JOB, "job.prompts=[a.txt,b/*.csv]"],
        ["--config-dir=own", JOB, 'job.negative_prompt="a,b"', "run_dir="],
        ["-sc", "install=bash"],
        ["--cfg", "job", JOB],
    ],
    ids=" ".join,
)
def test_what_is_right_stays_as_it_is(arguments: list[str]) -> None:
    assert arranged(arguments) == arguments


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("model.embeddings=gor=m/e.safetensors", "'model.embeddings=\"gor=m/e.safetensors\"'"),
        ("model.embeddings=<cat>=m/e.safetensors", "'model.embeddings=\"<cat>=m/e.safetensors\"'"),
        ("model.embeddings=m/it's.safetensors", """'model.embeddings="m/it'"'"'s.safetensors"'"""),
        ("model.embeddings=[a.safetensors,w=b.safetensors]", "'model.embeddings=[a.safetensors,\"w=b.safetensors\"]'"),
        ("model.lora=[a.safetensors,]", "'model.lora=[a.safetensors]'"),
        ("model.lora=[a.safetensors:0.5", "'model.lora=[\"a.safetensors:0.5\"]'"),
        ("model.lora=[,]", "'model.lora=[FILE]'"),
        ("job.steps=2=3", "such as job.steps=VALUE"),
        ("job.steps=20;", "such as job.steps=20"),
    ],
)
def test_what_cannot_be_parsed_gets_a_form_that_a_shell_and_hydra_take(typed: str, right: str) -> None:
    said = told(typed)
    assert said.startswith(f"{typed!r} cannot be parsed: ") and said.endswith(right)
    if "put each text in quotes" in said:
        arranged([JOB, *shlex.split(right)])
