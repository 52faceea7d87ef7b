"""Textual inversions: the words, their files, and what they fit."""

import json
import math
import re
import shutil
import struct

import pytest

from batchgen.errors import ConfigError, ModelError
from batchgen.models.embeddings import expanded, named, pieces, readable, tensors_of, token, vectors
from batchgen.models.families.texts import TextOptions
from batchgen.models.find import ModelFiles, check_model, locate, settled_paths
from batchgen.models.fingerprint import fingerprint_model
from tests.builders import make_config
from tests.models.test_checkpoint import write
from tests.pipeline.small_models import save

XL = {"clip_l": [2, 32], "clip_g": [2, 32]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("models") / kind) for kind in ("sd15", "sdxl")}


def test_words_are_named_by_files_or_by_hand_and_are_in_lower_case(tmp_path):
    one, other = (write(tmp_path / f"{name}.safetensors", {"emb_params": [2, 8]}) for name in ("BadHands", "x"))
    assert named(None) == () and named(str(one)) == (("badhands", one),)
    assert named([f"<Cat>={one}", f"a=b={other}"]) == (("<cat>", one), ("a=b", other))
    for wrong, said in (
        ([f"x={one}", str(other)], "the word 'x' is there twice"),
        ([f"two words={one}"], "must not have spaces"),
        ([str(tmp_path / "no.safetensors")], "there is no file"),
        ([str(write(tmp_path / "y.pt", {}))], "pickled"),
        ([f"={one}"], "has no word before the ="),
    ):
        with pytest.raises(ModelError, match=said):
            named(wrong)
    (tmp_path / "run=3").mkdir()
    deep = write(tmp_path / "run=3" / "cat.safetensors", {"emb_params": [2, 8]})
    assert named([str(deep), f"dog={deep}"]) == (("cat", deep), ("dog", deep))
    with pytest.raises(ConfigError, match="must be a list of FILE"):
        named({"<cat>": str(one)})


@pytest.mark.parametrize(
    ("shapes", "tensors", "count"),
    [
        ({"emb_params": [3, 8]}, {"text_encoder": "emb_params"}, 3),
        (XL, {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}, 2),
        ({"<cat>": [8]}, {"text_encoder": "<cat>"}, 1),
    ],
)
def test_each_form_is_read(tmp_path, shapes, tensors, count):
    path = write(tmp_path / "a.safetensors", shapes)
    assert (tensors_of(path), vectors(path)) == (tensors, count)


def test_a_word_of_several_vectors_becomes_its_tokens_in_whatever_case():
    one, two = pieces("cat", 2)
    text = "A Cat, catdog and CAT"
    found = expanded(text, {"cat": 2, "catdog": 1})
    assert found == f"A {one} {two}, {token('catdog')} and {one} {two}"
    assert readable(found) == "A cat, catdog and cat"
    assert readable(f"{two}, {one} {two} {one} {two}") == "cat, cat cat"
    assert expanded("a (c+)", {}) == "a (c+)"


@pytest.mark.parametrize(
    ("text", "word", "made"),
    [
        ("a category", "atego", "a category"),
        ("drinking ink, inky", "ink", "drinking #, inky"),
        ("ink_1 ink's (ink) INK-pot 2ink ink2", "ink", "ink_1 #'s (#) #-pot 2ink ink2"),
        ("a<cat>s <CAT> cat", "<cat>", "a# s # cat"),
        ("c+ c++ xc+", "c+", "# #+ xc+"),
        ("\u017fky sky", "sky", "# #"),
    ],
)
def test_only_whole_words_are_found(text, word, made):
    assert expanded(text, {word: 1}).replace(token(word), "#") == made
    assert expanded("<cat>2", {"<cat>": 14}).endswith("_13 2")


@pytest.mark.parametrize(
    ("kind", "shapes", "word", "said"),
    [
        ("sd15", {"emb_params": [1, 32]}, "new", None),
        ("sdxl", XL, "new", None),
        ("sd15", {"emb_params": [1, 40]}, "new", "vectors of 40 numbers, and this model's text_encoder takes 32"),
        ("sd15", XL, "new", "for 2 text encoders, and Stable Diffusion 1.x and 2.x has 1"),
        ("sdxl", {"emb_params": [1, 32]}, "new", "for 1 text encoder, and Stable Diffusion XL has 2"),
        ("sd15", {"emb_params": [1, 32]}, "a", "the model knows the word 'a' already"),
        ("sd15", {"emb_params": [1, 32]}, "<|endoftext|>", "the model knows the word '<|endoftext|>' already"),
        ("sd15", {"emb_params": [0, 32]}, "new", "a.safetensors has no vectors"),
        ("sd15", {"emb_params": [76, 32]}, "new", "has 76 vectors, and a text has 75 tokens"),
        ("sd15", {"emb_params": [1, 1, 32]}, "new", "is no textual inversion that batchgen knows"),
        ("sd15", {"emb_params": []}, "new", "is no textual inversion that batchgen knows"),
        ("sdxl", {"clip_l": [2, 32], "clip_g": [3, 32]}, "new", "has 2 and 3 vectors for the text encoders"),
        ("sd15", {}, "new", "it has no tensors"),
        ("sd15", {"x": [1, 2], "y": [1, 2]}, "new", "is no textual inversion that batchgen knows: it has x, y"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_header(models, tmp_path, kind, shapes, word, said):
    path = write(tmp_path / "a.safetensors", shapes)
    model = ModelFiles(models[kind], embeddings=((word, path),))
    if said is None:
        check_model(model, "model")
        return
    with pytest.raises(ModelError, match=re.escape(said)):
        check_model(model, "model")


def values(path, dtype, numbers):
    """A file with one vector of 32 numbers, of which the first bytes are given."""
    data = numbers + bytes(32 * {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1}[dtype] - len(numbers))
    entry = {"emb_params": {"dtype": dtype, "shape": [1, 32], "data_offsets": [0, len(data)]}}
    written = json.dumps(entry).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + data)
    return path


@pytest.mark.parametrize(
    ("dtype", "numbers", "said"),
    [
        ("F32", struct.pack("<f", 3e38), None),
        ("F32", struct.pack("<f", math.nan), "infinite or not a number"),
        ("F64", struct.pack("<d", -math.inf), "infinite or not a number"),
        ("F16", struct.pack("<e", 65504), None),
        ("F16", struct.pack("<e", math.inf), "infinite or not a number"),
        ("BF16", struct.pack("<f", 3e38)[2:], None),
        ("BF16", struct.pack("<f", math.nan)[2:], "infinite or not a number"),
        ("F8_E4M3", b"", "has numbers of F8_E4M3; convert it"),
    ],
)
def test_numbers_that_are_none_are_refused(models, tmp_path, dtype, numbers, said):
    model = ModelFiles(models["sd15"], embeddings=(("new", values(tmp_path / "a.safetensors", dtype, numbers)),))
    if said is None:
        check_model(model, "model")
        return
    with pytest.raises(ModelError, match=said):
        check_model(model, "model")


def test_a_text_of_more_chunks_has_room_for_more_vectors(models, tmp_path):
    path = write(tmp_path / "a.safetensors", {"emb_params": [76, 32]})
    check_model(ModelFiles(models["sd15"], embeddings=(("new", path),), texts=TextOptions(text_chunks=2)), "model")


@pytest.mark.parametrize(("word", "known"), [("cat", True), ("gor", False), ("caf\u00e9", True), ("caf", False)])
def test_words_are_known_as_whole_words_and_not_as_parts_of_others(models, tmp_path, word, known):
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    pieces = ["gor", "caf", "cat", "cat</w>", "caf\u00c3\u00a9</w>"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({one: place for place, one in enumerate(pieces)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    model = ModelFiles(folder, embeddings=((word, write(tmp_path / "a.safetensors", {"emb_params": [1, 32]})),))
    if not known:
        check_model(model, "model")
        return
    with pytest.raises(ModelError, match=f"the model knows the word '{word}' already"):
        check_model(model, "model")


def test_families_without_them_refuse_them_in_a_line(tmp_path):
    from batchgen.models.embeddings import check_embeddings

    path = write(tmp_path / "a.safetensors", {"emb_params": [1, 32]})
    with pytest.raises(ModelError, match="FLUX.1 does not take textual inversions; leave it out"):
        check_embeddings((("new", path),), "FLUX.1", (), [])


def test_words_and_contents_are_in_the_fingerprint_and_paths_are_not(models, tmp_path):
    config = make_config(tmp_path, model__path=str(models["sd15"])).model
    plain = locate(config)
    prints = {fingerprint_model(plain)}
    for name, fill, word in (("a", 0, "one"), ("a", 1, "one"), ("a", 1, "two")):
        config.embeddings = [f"{word}={write(tmp_path / f'{name}.safetensors', {'emb_params': [1, 32]}, fill=fill)}"]
        prints.add(fingerprint_model(locate(config)))
    assert len(prints) == 4
    moved = write(tmp_path / "b.safetensors", {"emb_params": [1, 32]}, fill=1)
    config.embeddings = [f"two={moved}"]
    assert fingerprint_model(locate(config)) in prints
    assert settled_paths(config).embeddings == [f"two={moved.resolve()}"]
