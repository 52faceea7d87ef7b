"""A run of prompt files behind addresses: its plan keeps copies, and it is resumed, extended and refused by content."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.schema import Config
from batchgen.dry_run import dry_run
from batchgen.errors import BrokenRunError, PromptError, ResumeError
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, check_plan, load_plan
from batchgen.prepare import prepare
from tests.builders import finish_run, make_config, plan_run
from tests.commands import front, samples, verify
from tests.web import Web, serving


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server of p.txt; nothing may be left in the folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with serving() as server:
        server.files = {"p.txt": b"fox\nhen\n"}
        yield server
    assert list((tmp_path / "tmp").iterdir()) == []


def job(tmp_path: Path, *prompts: str, **overrides: Any) -> Config:
    return make_config(tmp_path, job__prompts=list(prompts), **overrides)


def again(plan: Plan, *prompts: str, **overrides: Any) -> Plan:
    return prepare(plan.run, job(plan.run.root.parent, *prompts, **overrides))


def prompts_of(plan: Plan) -> list[str]:
    return [prompt.prompt for prompt in plan.prompts()]


def test_a_plan_keeps_a_proven_copy_and_no_secret(tmp_path: Path, web: Web) -> None:
    plan = plan_run(tmp_path, job__prompts=web.address("p.txt?signature=secret"))
    [entry] = plan.inputs
    assert (entry["file"], entry["copy"]) == (web.address("p.txt"), "plan/prompts/p.txt")
    assert (plan.run.root / entry["copy"]).read_bytes() == b"fox\nhen\n"
    assert "prompts/p.txt" in plan.segments[0].sha256
    assert {prompt.source for prompt in plan.prompts()} == {web.address("p.txt")}
    kept = [path for path in plan.run.root.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert kept == []
    assert len(web.asked) == 1
    (plan.run.root / entry["copy"]).write_bytes(b"fix\nhen\n")
    with pytest.raises(BrokenRunError, match=r"prompts/p\.txt of the plan is damaged"):
        check_plan(load_plan(plan.run))


def test_keys_and_seeds_are_those_of_local_files(tmp_path: Path, web: Web) -> None:
    web.files |= {"a/p.jsonl": b'{"prompt": "owl"}\n', "b/p.jsonl": b'{"prompt": "owl", "steps": 1}\n'}
    addresses = [web.address(name) for name in ("p.txt", "a/p.jsonl", "b/p.jsonl")]
    local = []
    for name, content in web.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        local.append(str(tmp_path / name))
    fetched = plan_run(tmp_path, job__prompts=[addresses[0], local[1], addresses[2]])
    here = plan_run(tmp_path, job__prompts=local, run_dir=str(tmp_path / "here"))
    facts = [[(one.key, one.seed, one.prompt, one.steps) for one in plan.prompts()] for plan in (fetched, here)]
    assert facts[0] == facts[1]
    assert [entry.get("copy") for entry in fetched.inputs] == ["plan/prompts/p.txt", None, "plan/prompts/p.jsonl"]


def test_two_files_of_one_name_have_a_copy_each(tmp_path: Path, web: Web) -> None:
    web.files |= {"a/p.txt": b"owl\n", "b/p.txt": b"ape\n"}
    plan = plan_run(tmp_path, job__prompts=[web.address(name) for name in ("p.txt", "a/p.txt", "b/p.txt")])
    copies = [entry["copy"] for entry in plan.inputs]
    assert copies == ["plan/prompts/p.txt", "plan/prompts/p-2.txt", "plan/prompts/p-3.txt"]
    assert [(plan.run.root / copy).read_text() for copy in copies] == ["fox\nhen\n", "owl\n", "ape\n"]


def test_a_file_that_is_the_same_resumes_under_another_signature(tmp_path: Path, web: Web) -> None:
    finish_run(plan := plan_run(tmp_path, job__prompts=web.address("p.txt?signature=1")))
    assert len(again(plan, web.address("p.txt?signature=2")).segments) == 1


def test_a_file_that_was_edited_is_refused_with_the_line(tmp_path: Path, web: Web) -> None:
    finish_run(plan := plan_run(tmp_path, job__prompts=web.address("p.txt")))
    web.files["p.txt"] = b"fox\nher\n"
    with pytest.raises(ResumeError, match=r"/p\.txt: edited: line 2 was 'hen' and is 'her' now"):
        again(plan, web.address("p.txt"))
    with pytest.raises(ResumeError, match=r"/p\.txt: not named in job\.prompts"):
        again(plan, str(tmp_path / "prompts.jsonl"))


def test_a_file_that_has_grown_extends_the_run(tmp_path: Path, web: Web) -> None:
    finish_run(plan := plan_run(tmp_path, job__prompts=web.address("p.txt")))
    for number, more in enumerate((b"owl\n", b"ape\n"), 1):
        web.files["p.txt"] += more
        with pytest.raises(ResumeError, match=r"rows were appended.\n.*extend=true"):
            again(plan, web.address("p.txt"))
        longer = again(plan, web.address("p.txt"), extend=True)
        [entry] = longer.inputs
        assert entry["copy"] == f"plan-{number:03d}/prompts/p.txt"
        assert (plan.run.root / entry["copy"]).read_bytes() == web.files["p.txt"]
    assert prompts_of(longer) == ["fox", "hen", "owl", "ape"]
    check_plan(longer)


def test_a_file_that_moved_to_the_web_is_known_by_its_content(tmp_path: Path, web: Web) -> None:
    (tmp_path / "p.txt").write_bytes(web.files["p.txt"])
    finish_run(plan := plan_run(tmp_path, job__prompts=str(tmp_path / "p.txt")))
    assert len(again(plan, web.address("p.txt")).segments) == 1


def test_the_copy_counts_where_the_file_cannot_be_had(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_run(plan := plan_run(tmp_path, job__prompts=web.address("p.txt")))
    web.files["p.txt"] += b"owl\n"
    again(plan, web.address("p.txt"), extend=True)
    del web.files["p.txt"]
    assert prompts_of(again(plan, web.address("p.txt"))) == ["fox", "hen", "owl"]
    assert "there is no such file (404): the copy in the plan counts" in capsys.readouterr().err
    with pytest.raises(ResumeError, match="job.steps: 2 -> 3"):
        again(plan, web.address("p.txt"), job__steps=3)
    with pytest.raises(PromptError, match="404"):
        again(plan, web.address("p.txt"), web.address("q.txt"), extend=True)


def test_the_copy_is_read_although_its_plan_gives_way(tmp_path: Path, web: Web) -> None:
    plan = plan_run(tmp_path, job__prompts=web.address("p.txt"))
    del web.files["p.txt"]
    newer = again(plan, web.address("p.txt"), job__steps=3)
    assert (prompts_of(newer), newer.config.job.steps) == (["fox", "hen"], 3)
    assert (plan.run.root / newer.inputs[0]["copy"]).read_bytes() == b"fox\nhen\n"


def test_a_new_run_needs_the_file_and_leaves_nothing(tmp_path: Path, web: Web) -> None:
    with pytest.raises(PromptError, match=r"q\.txt: there is no such file \(404\)"):
        plan_run(tmp_path, job__prompts=web.address("q.txt"))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_fetches_and_says_so(tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    config = job(tmp_path, web.address("p.txt"))
    assert dry_run(RunDir(tmp_path / "run"), config, []) == 0
    said = capsys.readouterr().out
    assert "fetched    1 prompt file, 0.0 MB, for this dry run; a run keeps copies" in said
    assert f"columns    {web.address('p.txt')}: each line" in said
    config.dry_run = "json"
    assert dry_run(RunDir(tmp_path / "run"), config, []) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fetched"] == [{"file": web.address("p.txt"), "bytes": 8}]
    assert not (tmp_path / "run").exists()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server on this machine: the file system, and the name of a bucket of its own."""
    s3fs, server = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    stand_in = server.ThreadedMotoServer("127.0.0.1", 0)
    stand_in.start()
    host, port = stand_in.get_host_and_port()
    names = {
        "ENDPOINT_URL": f"http://{host}:{port}",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "REGION": "us-east-1",
    }
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    name = f"bucket-{uuid.uuid4().hex}"
    system.mkdir(name)
    yield system, name
    stand_in.stop()


def test_a_run_from_s3_by_the_command(tmp_path: Path, bucket: Any) -> None:
    system, name = bucket
    system.pipe({f"{name}/night/a.txt": b"fox\nhen\n", f"{name}/night/b.jsonl": b'{"prompt": "owl"}\n'})
    address = f"s3://{name}/night/*"
    done = front(tmp_path / "run", address)
    assert done.returncode == 0, done.stderr
    about = [json.loads(text) for member, text in samples(tmp_path / "run").items() if member.endswith(".json")]
    assert {one["source"]["file"] for one in about} == {f"s3://{name}/night/a.txt", f"s3://{name}/night/b.jsonl"}
    assert verify(tmp_path / "run").returncode == 0
    system.pipe(f"{name}/night/a.txt", b"fox\nhen\nape\n")
    refused = front(tmp_path / "run", address)
    assert refused.returncode == 2 and "a.txt: rows were appended" in refused.stderr
    assert front(tmp_path / "run", address, "extend=true").returncode == 0
    assert len(samples(tmp_path / "run")) == 4 * 3
    gone = front(tmp_path / "other", f"s3://{name}/night/c.txt")
    assert gone.returncode == 2 and "c.txt: there is no such file (404)" in gone.stderr
    assert len(gone.stderr.splitlines()) == 2, gone.stderr
    away = front(tmp_path / "run", address, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    assert away.returncode == 0, away.stderr
    assert "it cannot be reached" in away.stderr and "the copies in the plan count" in away.stderr


def test_a_run_from_the_hub_by_the_command(tmp_path: Path, web: Web) -> None:
    prompts = {"night/a.jsonl": b'{"prompt": "fox"}\n', "night/b.txt": b"hen\n"}
    listed = [
        {"type": "file", "path": path, "size": len(content), "oid": "b" * 40} for path, content in prompts.items()
    ]
    web.files["api/datasets/o/n"] = json.dumps({"id": "o/n", "sha": "a" * 40, "siblings": [], "tags": []}).encode()
    folder = {"type": "directory", "path": "night", "size": 0, "oid": "c" * 40}
    web.files["api/datasets/o/n/tree/main"] = json.dumps([folder]).encode()
    web.files["api/datasets/o/n/tree/main/night"] = json.dumps(listed).encode()
    web.files |= {f"datasets/o/n/resolve/main/{path}": content for path, content in prompts.items()}
    hub = {"HF_ENDPOINT": web.address("").rstrip("/"), "HF_TOKEN": "hf_secret"}
    done = front(tmp_path / "run", "hf://datasets/o/n/night/*", **hub)
    assert done.returncode == 0, done.stderr
    plan = load_plan(RunDir(tmp_path / "run"))
    assert [entry["file"] for entry in plan.inputs] == [f"hf://datasets/o/n/{path}" for path in prompts]
    assert prompts_of(plan) == ["fox", "hen"]
    assert [path for path in plan.run.root.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()] == []
    gone = front(tmp_path / "other", "hf://datasets/o/n/night/c.txt", **hub)
    assert gone.returncode == 2 and "if it is private, set HF_TOKEN" in gone.stderr
