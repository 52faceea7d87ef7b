"""README and the documents: every link, path and command in them exists, and what can run anywhere is run.

A code block is run in a temporary directory, unless an HTML comment before it says what it needs, such as
`<!-- needs: gpu, network -->`. Then its commands still have to exist, and their overrides to be valid.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchgen.config import compose
from batchgen.config.shipped import conf_dir
from tests.commands import ROOT, run

DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "jobs/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
MOST_WORDS = 1300
# In this order: the run that README makes is what the others look at.
RUN_HERE = ("README.md", "docs/memory.md", "docs/determinism.md", "docs/reliability.md", "docs/launching.md")
FOLDERS = ("batchgen/", "conf/", "docs/", "jobs/", "tests/", ".ci/", ".github/")
SMALL = ("job.limit=4", "job.steps=2", "job.batch_size=2")  # of a command that makes images
BLOCK = re.compile(r"^(?:<!-- needs: (?P<needs>[a-z, ]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
PLACEHOLDERS = {"job=NAME": "job=mars_batch", "key=value": "job.steps=3", "group=option": "model=tiny"}


@dataclass(frozen=True)
class Block:
    """A code block: what it needs beyond this machine, its language, its text."""

    needs: str | None
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its commands; none if it is not a shell's."""
        lines = [line.partition(" #")[0] for line in self.text.splitlines() if not line.startswith("#")]
        found = [command.strip().removeprefix("exec ") for line in lines for command in line.split("&&")]
        return [as_module(command) for command in found if self.language in ("", "bash") and is_command(command)]


def is_command(text: str) -> bool:
    """Whether a text is a command that batchgen or this checkout has."""
    return bool(re.match(r"(make [a-z]|python -m [a-z]|batchgen )", text))


def as_module(command: str) -> str:
    """`batchgen X` as `python -m batchgen X`, which is the same; other commands as they are."""
    return re.sub(r"^batchgen ", "python -m batchgen ", command)


def blocks(document: Path) -> list[Block]:
    """The code blocks of a document."""
    return [Block(match["needs"], match["language"], match["text"]) for match in BLOCK.finditer(document.read_text())]


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return BLOCK.sub("", document.read_text())


def inline(document: Path) -> list[str]:
    """The code in a document's sentences and tables; `... x` goes on from the command for a job."""
    found = INLINE.findall(prose(document))
    return [as_module(re.sub(r"^\.\.\. ", "batchgen job=NAME ", text)) for text in found]


def commands(document: Path) -> list[str]:
    """Every command of a document, in its blocks and its sentences."""
    return [command for block in blocks(document) for command in block.commands] + list(
        filter(is_command, inline(document))
    )


def anchors(document: Path) -> set[str]:
    """What the headings of a document can be linked by."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    document = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_every_path_exists(name: str) -> None:
    document = ROOT / name
    here = {"docs/benchmarks.md": ROOT / "tests" / "bench" / "results", "jobs/README.md": ROOT / "jobs"}.get(name)
    for text in inline(document):
        if text.startswith(FOLDERS) and " " not in text:
            assert list(ROOT.glob(text.rstrip("/"))), text
        elif here is not None and re.fullmatch(r"[\w.]+\.(jsonl?|txt)", text):
            assert (here / text).exists(), text
        elif re.fullmatch(r"[A-Z]+\.md", text):
            assert (ROOT / text).exists(), text


def test_the_map_is_that_of_the_package() -> None:
    (block,) = [one for one in blocks(ROOT / "docs" / "architecture.md") if one.text.startswith("batchgen/\n")]
    named = set()
    for line in block.text.partition("\nconf/")[0].splitlines()[1:]:
        if line.startswith("  ") and line[2] not in " -":
            named |= {name.rstrip("/") for name in line.strip().partition("  ")[0].split()}
    there = {path.name for path in (ROOT / "batchgen").iterdir() if path.name.endswith(".py") or is_package(path)}
    assert named == there - {"__init__.py"}


def is_package(path: Path) -> bool:
    """Whether a folder is a wing of batchgen."""
    return (path / "__init__.py").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in commands(ROOT / name):
        program, *arguments = shlex.split(command)
        if program == "make":
            assert set(arguments) <= targets, command
        elif program == "python" and arguments[1] != "pytest":
            assert importlib.util.find_spec(arguments[1]) is not None, command


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_every_command_are_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hydra import compose as compose_hydra
    from hydra import initialize_config_dir

    compose.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for command in commands(ROOT / name):
            words = shlex.split(command)
            if words[:3] != ["python", "-m", "batchgen"] or "--config-dir" in words:
                continue
            if words[3:4] in (["report"], ["export"]):  # their to=DIR is no setting
                continue
            given = [PLACEHOLDERS.get(word, word) for word in words[3:] if "=" in word]
            if "-m" in words[3:]:  # a sweep: the first of its values stands for all
                given = [word.partition(",")[0] for word in given]
            job = [] if any(word.startswith("job=") for word in given) else ["job=mars_batch"]
            compose.load(compose_hydra("config", [*job, *given, "dry_run=true"]))


def run_blocks(document: Path, folder: Path) -> int:
    """Run what a document shows and anybody can run; how many commands that was."""
    count = 0
    for block in blocks(document):
        if block.needs is not None:
            continue
        for command in block.commands:
            program, *arguments = shlex.split(command)
            small = SMALL if arguments[1] == "batchgen" and "=" in arguments[2] else ()
            assert program == "python", f"{command}: say what it needs"
            done = run([sys.executable, *arguments, *small], cwd=folder, OMP_NUM_THREADS="1")
            assert done.returncode == 0, f"{command}: {done.stderr}"
            count += 1
        if block.language == "python":
            done = run([sys.executable, "-c", block.text], cwd=folder)
            assert done.returncode == 0, done.stderr
            count += 1
    return count


@pytest.mark.slow
def test_what_the_documents_show_runs(tmp_path: Path) -> None:
    for name in RUN_HERE:
        assert run_blocks(ROOT / name, tmp_path) > 0, name
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_no_block_is_left_out_by_mistake() -> None:
    shown = [name for name in NAMES for block in blocks(ROOT / name) if block.needs is None and block.commands]
    assert set(shown) == set(RUN_HERE), "run its blocks, or say what they need"


def test_a_job_of_ones_own_is_found_as_the_documents_say(tmp_path: Path) -> None:
    document = ROOT / "docs" / "configuration.md"
    job, site = [block.text for block in blocks(document) if block.language == "yaml"]
    (command,) = [text for text in inline(document) if "--config-dir mine" in text]
    (tmp_path / "mine" / "job").mkdir(parents=True)
    (tmp_path / "mine" / "job" / "venus.yaml").write_text(job)
    (tmp_path / "venus.csv").write_text("prompt\na volcano on venus\n")
    (tmp_path / "site.yaml").write_text(site)
    ours = {"BATCHGEN_SITE": str(tmp_path / "site.yaml")}
    done = run([sys.executable, *shlex.split(command)[1:]], "dry_run=true", "launch=slurm", cwd=tmp_path, **ours)
    assert done.returncode == 0, done.stderr
    assert "prompts    1" in done.stdout and "scheduler unipc" in done.stdout
    assert "#SBATCH --account=my_project" in done.stdout and "module load cuda" in done.stdout


def test_scripts_can_be_read_by_bash() -> None:
    scripts = sorted((ROOT / "jobs").glob("*.sbatch"))
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)


def test_make_help_lists_every_target_and_the_default_makes_the_job() -> None:
    outer = {"MAKEFLAGS": "", "MAKELEVEL": "0"}  # `make test` runs this too
    told = run(["make", "help"], **outer).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert [line.split()[1] for line in told.splitlines()] == phony.split()
    assert "-m batchgen job=mars_batch" in run(["make", "-n"], **outer).stdout
