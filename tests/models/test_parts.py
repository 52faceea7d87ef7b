"""Which files a model is loaded from, and what of them is refused by name and size alone."""

import json
import shutil

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from batchgen.errors import ModelError
from batchgen.memory.estimate import estimate
from batchgen.models.find import ModelFiles, check_model
from batchgen.models.parts import refuse_misspelt, weight_files
from batchgen.pipeline.load import load_pipeline
from tests.pipeline.small_models import KINDS, save

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
# By how the pieces and their index are named: by diffusers and transformers today, and before for variants.
LAYOUTS = {
    "plain": (None, "{stem}-{piece}.safetensors", "{stem}.safetensors.index.json"),
    "of today": ("fp16", "{stem}.fp16-{piece}.safetensors", "{stem}.safetensors.index.fp16.json"),
    "older": ("fp16", "{stem}-{piece}.fp16.safetensors", "{stem}.safetensors.fp16.index.json"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save("sd15", tmp_path_factory.mktemp("model.v1") / "small")  # a dot, as names of models have


@pytest.fixture
def folder(small, tmp_path):
    shutil.copytree(small, tmp_path / "model.v1")
    return tmp_path / "model.v1"


def split(folder, part, file, index):
    """Cut a part's weights into two pieces; the names of the pieces."""
    stem = STEMS[part]
    whole = folder / part / f"{stem}.safetensors"
    values = load_file(whole)
    names = sorted(values)
    where: dict[str, str] = {}
    for number, keys in enumerate((names[::2], names[1::2]), 1):
        piece = file.format(stem=stem, piece=f"{number:05d}-of-00002")
        save_file({key: values[key] for key in keys}, folder / part / piece, metadata={"format": "pt"})
        where |= dict.fromkeys(keys, piece)
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    (folder / part / index.format(stem=stem)).write_text(text)
    whole.unlink()
    return sorted(set(where.values()))


def weights_of(pipe):
    return {name: value for part in STEMS for name, value in getattr(pipe, part).state_dict().items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_pieces_load_and_are_counted_under_every_naming(small, folder, layout):
    variant, file, index = LAYOUTS[layout]
    for part in STEMS:
        pieces = split(folder, part, file, index)
        assert [one for one in weight_files(folder, part, variant) if not one.endswith("json")] == pieces
    check_model(ModelFiles(folder, variant), "model")
    loaded, whole = (weights_of(load_pipeline(ModelFiles(one, variant), "model", "fp32")) for one in (folder, small))
    assert loaded.keys() == whole.keys() and all(torch.equal(loaded[name], whole[name]) for name in whole)
    assert estimate(ModelFiles(folder, variant), "fp16", 64, 64) == estimate(ModelFiles(small), "fp16", 64, 64)


def test_a_variant_is_taken_where_a_part_has_it_and_the_plain_weights_elsewhere(small, folder):
    marked = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    save_file(
        {name: value + 1 for name, value in load_file(folder / "unet" / f"{STEMS['unet']}.safetensors").items()}, marked
    )
    plain, fp16 = (load_pipeline(ModelFiles(folder, variant), "model", "fp32") for variant in (None, "fp16"))
    assert torch.equal(plain.unet.conv_in.bias + 1, fp16.unet.conv_in.bias)
    assert torch.equal(plain.vae.decoder.conv_in.bias, fp16.vae.decoder.conv_in.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_are_not_used_need_not_be_there(kind, tmp_path):
    folder = save(kind, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    unused = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    unused = {name: what for name, what in unused.items() if name in index}
    (folder / "model_index.json").write_text(json.dumps(index | unused))
    (folder / "unet" / "LICENSE").write_text("a name without a dot")
    pipe = load_pipeline(ModelFiles(folder, "fp16"), "model", "fp32")
    assert all(getattr(pipe, name) is None for name in unused)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n")


def web_page(path):
    path.write_text("<!doctype html>" * 100)


def longer(path):
    path.write_bytes(path.read_bytes() + b"x")


def torn_header(path):
    path.write_bytes((2).to_bytes(8, "little") + b"[]")


def strange_dtype(path):
    header = json.dumps({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize(
    "damage, words",
    [
        (cut, "model.safetensors is cut off: it has .* bytes, not .*; download or copy it again"),
        (cut_in_the_header, "is cut off or no safetensors file: download or copy it again"),
        (empty, "model.safetensors is empty: download or copy it again"),
        (pointer, "only a pointer of Git LFS, .*: run git lfs pull"),
        (web_page, "is cut off or no safetensors file"),
        (longer, "is damaged: it has"),
        (strange_dtype, r"has numbers of a kind that is not known \(F99\): download or copy it again"),
        (torn_header, "is damaged, its header cannot be read"),
    ],
)
def test_a_broken_weight_file_is_refused_by_name(folder, damage, words):
    damage(folder / "text_encoder" / "model.safetensors")
    with pytest.raises(ModelError, match=words) as caught:
        check_model(ModelFiles(folder), "model")
    assert "text_encoder/model.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def no_piece(folder):
    (folder / "unet" / split(folder, "unet", *LAYOUTS["plain"][1:])[1]).unlink()


def no_index(folder):
    split(folder, "unet", *LAYOUTS["plain"][1:])
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()


def torn_index(folder):
    split(folder, "unet", *LAYOUTS["plain"][1:])
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("[")


def foreign_piece(folder):
    text = json.dumps({"weight_map": {"a": "../../secret.safetensors"}})
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(text)


def only_fp16(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".fp16.safetensors"))


def no_weights(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage, words",
    [
        (no_piece, "unet lacks 1 of the 2 files .*: copy diffusion_pytorch_model-00002-of-00002.safetensors too"),
        (no_index, r"unet has weights in pieces without their index"),
        (torn_index, "index.json cannot be read: .*; download or copy it again"),
        (foreign_piece, "names ../../secret.safetensors, which is not a file beside it"),
        (only_fp16, "unet has no weights without a variant's mark, .* fp16: set model.variant=fp16"),
        (no_weights, r"unet has no weights \(\*.safetensors\): copy the whole model"),
    ],
)
def test_a_set_of_weights_that_is_not_whole_is_refused_by_name(folder, damage, words):
    damage(folder)
    with pytest.raises(ModelError, match=words) as caught:
        check_model(ModelFiles(folder), "model")
    assert "\n" not in str(caught.value)


def test_a_misspelt_variant_is_refused_with_the_right_one(folder):
    refuse_misspelt(folder, "fp16")  # one set of weights, without a mark, serves for every variant
    only_fp16(folder)
    refuse_misspelt(folder, "fp16")
    with pytest.raises(ModelError, match="model.variant=fp61: .* has no such weights; did you mean fp16?"):
        refuse_misspelt(folder, "fp61")
