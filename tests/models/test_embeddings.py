"""Textual inversions: the words, their files, and what they fit."""

import pytest

from batchgen.errors import ConfigError, ModelError
from batchgen.models.embeddings import expanded, named, tensors_of, vectors
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
    ):
        with pytest.raises(ModelError, match=said):
            named(wrong)
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
    assert expanded("A Cat, catdog and CAT", {"cat": 2, "catdog": 1}) == "A cat cat_1, catdog and cat cat_1"
    assert expanded("a (c+)", {}) == "a (c+)"


@pytest.mark.parametrize(
    ("kind", "shapes", "word", "said"),
    [
        ("sd15", {"emb_params": [1, 32]}, "new", None),
        ("sdxl", XL, "new", None),
        ("sd15", {"emb_params": [1, 40]}, "new", "vectors of 40 numbers, and this model's text_encoder takes 32"),
        ("sd15", XL, "new", "for 2 text encoders, and Stable Diffusion 1.x and 2.x has 1"),
        ("sdxl", {"emb_params": [1, 32]}, "new", "for 1 text encoder, and Stable Diffusion XL has 2"),
        ("sd15", {"emb_params": [1, 32]}, "a", "the model knows the word 'a' already"),
        ("sd15", {"x": [1, 2], "y": [1, 2]}, "new", "is no textual inversion that batchgen knows: it has x, y"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_header(models, tmp_path, kind, shapes, word, said):
    path = write(tmp_path / "a.safetensors", shapes)
    model = ModelFiles(models[kind], embeddings=((word, path),))
    if said is None:
        check_model(model, "model")
        return
    with pytest.raises(ModelError, match=said):
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
