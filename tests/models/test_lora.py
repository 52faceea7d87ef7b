"""LoRA files are found, known by their content, and refused where they are something else."""

import json
from pathlib import Path

import pytest

from batchgen import files
from batchgen.errors import ModelError
from batchgen.files import sha256_file
from batchgen.models.lora import Loras, digest, find_planned, lora_file, refuse_others
from batchgen.plan.records import LoraFile
from tests.model_hub import model_hub, reach


def write(path: Path, *names: str, filler: bytes = b"") -> Path:
    """A safetensors file with an empty tensor of each name."""
    header = json.dumps({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}).encode()
    header += b" " * len(filler)  # another content of the same kind
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write(tmp_path / "a.safetensors", "unet.x.lora_A.weight")
    write(tmp_path / "b.safetensors", "unet.x.lora_A.weight", filler=b"..")
    return tmp_path


def test_paths_are_relative_to_the_working_directory_and_settled(here: Path) -> None:
    loras = Loras(["a.safetensors:0.5"])
    assert [(one.path, one.weight) for one in loras()] == [(str(here / "a.safetensors"), 0.5)]
    assert loras.texts == [f"{here}/a.safetensors:0.5"]
    assert Loras(loras.texts)() == loras()
    assert loras("b.safetensors+a.safetensors:2") == (*loras("b.safetensors"), *Loras("a.safetensors:2")())
    assert loras("<none>") == Loras(None)() == ()
    assert Loras(None).texts is None


def test_a_digest_is_of_the_content_and_read_again_only_where_it_may_have_changed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reads(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr(files, "sha256_file", reads)
    one, other = here / "a.safetensors", here / "b.safetensors"
    assert digest(one) == digest(one) != digest(other) == digest(other)
    assert read == [one, other]
    one.write_bytes(other.read_bytes())
    assert digest(one) == digest(other)


def test_the_settings_that_peft_writes_beside_its_file_are_part_of_the_content(here: Path) -> None:
    path = write(here / "adapter_model.safetensors", "base_model.model.x.lora_A.weight")
    bare = digest(path)
    (here / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
    of_four = digest(path)
    (here / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 16}')
    assert len({bare, of_four, digest(path)}) == 3
    (here / "a.safetensors").with_name("adapter_config.json").unlink()
    assert digest(path) == bare


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("old.pt", "LoRA old.pt is pickled, and batchgen loads safetensors alone"),
        ("old.CKPT", "is pickled"),
        ("aa.safetensors", "LoRA aa.safetensors: no such file; did you mean a.safetensors"),
        (".", "is a folder: name the file in it; choose one of a.safetensors, b.safetensors"),
        ("gone/a.safetensors", "no such file; name a file, or ORG/NAME/FILE.safetensors of the hub"),
        ("notes.txt", "is no .safetensors file"),
    ],
)
def test_what_is_no_file_of_that_kind_is_refused(here: Path, text: str, told: str) -> None:
    for name in ("old.pt", "old.CKPT", "notes.txt"):
        (here / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=told):
        lora_file(text)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        ("lora_unet_x.hada_w1_a", "holds LoHa, which batchgen does not merge: use a plain LoRA"),
        ("lora_unet_x.lokr_w1", "holds LoKr"),
        ("lora_unet_x.dora_scale", "holds DoRA"),
        ("lora_unet_x.lora_mid.weight", "holds a Tucker decomposition"),
        ("emb_params", "holds no LoRA, but a textual inversion: name another file"),
        ("model.diffusion_model.x", "holds no LoRA, but a whole model in one file"),
        ("conv_in.weight", "holds no LoRA: name another file"),
    ],
)
def test_what_is_no_plain_lora_is_refused(here: Path, tensor: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        refuse_others(write(here / "x.safetensors", tensor))
    (here / "broken.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ModelError, match="cut off or no safetensors file"):
        refuse_others(here / "broken.safetensors")


def test_a_file_of_the_hub_is_taken_from_its_cache_or_fetched(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with model_hub() as hub:
        reach(hub, here / "cache", monkeypatch)
        data = (here / "a.safetensors").read_bytes()
        hub.add("org/name", {"new.safetensors": data})
        assert lora_file("org/name/new.safetensors").read_bytes() == data
        hub.asked.clear()
        assert lora_file("org/name/new.safetensors").read_bytes() == data and hub.asked == []
        with pytest.raises(ModelError, match=r"model.lora: org/name has no nwe.safetensors; did you mean new.safe"):
            lora_file("org/name/nwe.safetensors")
    (here / "org" / "name").mkdir(parents=True)
    with pytest.raises(ModelError, match="no such file"):  # it is a folder here
        lora_file("org/name/new.safetensors")


def test_planned_files_are_found_where_they_were_or_where_the_job_has_them_now(here: Path) -> None:
    one, other = here / "a.safetensors", here / "b.safetensors"
    planned = [LoraFile(str(path), digest(path)) for path in (one, other)]
    assert find_planned(planned, None) == {file.sha256: Path(file.path) for file in planned}
    one.rename(here / "moved.safetensors")
    assert find_planned(planned, [f"{here}/moved.safetensors:2"])[planned[0].sha256] == here / "moved.safetensors"
    with pytest.raises(ModelError, match="a.safetensors is gone, a file that this run was planned with: put the orig"):
        find_planned(planned, None)
    one.write_bytes(other.read_bytes())
    with pytest.raises(ModelError, match="a.safetensors is not the file that this run was planned with"):
        find_planned(planned, None)
