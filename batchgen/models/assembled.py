"""A model that is put together: from one file, a base that gives what the file lacks, and another VAE.

What comes out is a folder in the cache in the diffusers layout, whose files are links to where the parts are.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError
from batchgen.files import to_json
from batchgen.models.checkpoint import Checkpoint, look
from batchgen.models.families import FAMILIES
from batchgen.models.parts import INDEX_FILE, part_in, read_index, reason_of, refuse_misspelt
from batchgen.models.unpack import Piece, unpacked
from batchgen.places import cache_dir, models_dir

CONFIGS = models_dir() / "configs"
_CHECKER = ("safety_checker", "feature_extractor")
_SCHEDULER = "scheduler/scheduler_config.json"
Get = Callable[[str, str], Path | None]
"""What a setting (its key and its text) names, as a folder or file; None where it is not here."""


def assemble(model: ModelConfig, get: Get, make: bool | None) -> Path | None:
    """The folder of the model; None if something that it is put together from is not here.

    With `make` a file is unpacked if it was not before; with None it is tried whether it could be.
    Raises ModelError, in one line, for what does not belong together, and OSError.
    """
    main = get("model.path", model.path)
    base = None if model.base is None else get("model.base", model.base)
    vae = None if model.vae is None else get("model.vae", model.vae)
    if main is None or (base is None and model.base is not None) or (vae is None and model.vae is not None):
        return None
    checkpoint = None if main.is_dir() else look("model.path", main)
    settings = main if checkpoint is None else _settings(checkpoint, base, vae is not None)
    if checkpoint is None and base is not None:
        raise ModelError(f"model.base={base} is for a model in one file, and {main} is a folder: leave it out")
    replaced = {} if vae is None else _vae(vae, settings, model.variant, make)
    made = main if checkpoint is None else _of_file(checkpoint, settings, make)
    if made is None or replaced is None:
        return None
    if base is None and vae is None:
        return made
    files = _whole(main, model) if checkpoint is None else _files_in(made)
    if base is not None:
        files = _whole(base, model, {*_parts_in(made)}) | files
    if vae is not None:
        files = {place: path for place, path in files.items() if not place.startswith("vae/")} | replaced
    return _view(_json(settings / INDEX_FILE), files)


# One file ---------------------------------------------------------------------------------------------------------


def _settings(checkpoint: Checkpoint, base: Path | None, has_vae: bool) -> Path:
    """The folder with the settings of the file's model: the base, or one in the package.

    Raises ModelError where the file has not all that a model needs, with what to do.
    """
    path, title = checkpoint.path, checkpoint.title
    if checkpoint.kind is None:
        raise ModelError(f"model.path={path} is a VAE alone: name a model, and this file with model.vae=...")
    if base is not None:
        _refuse_other_kind(checkpoint, base)
        return base
    gives = "set model.base to a folder or hub id of a model of its kind, which gives"
    if checkpoint.settings is None:
        raise ModelError(f"{path} ({title}) needs settings and tokenizers that batchgen does not have: {gives} them")
    settings = CONFIGS / checkpoint.settings
    _, kinds = read_index(settings)
    named = _named(checkpoint, settings)
    weighty = [name for name, (library, _) in kinds.items() if (settings / name / "config.json").is_file() and library]
    lacks = sorted(name for name in weighty if name not in named and not (name == "vae" and has_vae))
    if lacks:
        or_vae = ", or the VAE alone with model.vae=..." if lacks == ["vae"] else ""
        raise ModelError(f"{path} ({title}) lacks {', '.join(lacks)}: {gives} the rest{or_vae}")
    return settings


def _refuse_other_kind(checkpoint: Checkpoint, base: Path) -> None:
    pipeline, kinds = read_index(base)
    if pipeline not in FAMILIES:
        raise ModelError(f"model.base={base} is a {pipeline}, which batchgen does not run")
    denoiser = kinds[FAMILIES[pipeline].denoiser][1]
    if denoiser != checkpoint.kind:
        said = f"{checkpoint.path} is {checkpoint.title} ({checkpoint.kind})"
        raise ModelError(f"{said}, but model.base={base} has a {denoiser}: name a base of the file's own kind")


def _of_file(checkpoint: Checkpoint, settings: Path, make: bool | None) -> Path | None:
    """The folder with the parts of the file, and with settings from the package all that a model needs beside them.

    None where it is not unpacked yet. Raises ModelError where it cannot be unpacked.
    """
    _, kinds = read_index(settings)
    pieces = {
        name: Piece(*kinds[name], _json(settings / name / "config.json"), prefix, sorted(tensors))
        for name, (prefix, tensors) in sorted(_named(checkpoint, settings).items())
    }
    more = _package(settings) if settings.parent == CONFIGS else {}
    if checkpoint.predicts_v:
        more[_SCHEDULER] = _v_prediction(settings / _SCHEDULER, checkpoint.ends_in_noise)
    return unpacked(checkpoint, pieces, more, make)


def _named(checkpoint: Checkpoint, settings: Path) -> dict[str, Any]:
    """The file's parts by the names that the model has for them; what it has no name for is left out."""
    pipeline, kinds = read_index(settings)
    denoiser = FAMILIES[pipeline].denoiser
    t5 = next((name for name, (_, kind) in kinds.items() if kind == "T5EncoderModel"), "")
    names = {part: {"denoiser": denoiser, "t5": t5}.get(part, part) for part in checkpoint.parts}
    return {names[part]: found for part, found in checkpoint.parts.items() if names[part] in kinds}


def _package(settings: Path) -> dict[str, bytes]:
    """What a whole model has beside weights, from the package: its index, scheduler and tokenizers."""
    more = {INDEX_FILE: (settings / INDEX_FILE).read_bytes(), _SCHEDULER: (settings / _SCHEDULER).read_bytes()}
    for tokenizer in sorted(path.name for path in settings.glob("tokenizer*")):
        name = f"{tokenizer}/tokenizer_config.json"
        more[name] = (settings / name).read_bytes()
        more |= {f"{tokenizer}/{file}": data for file, data in clip_words().items()}
    return more


@cache
def clip_words() -> dict[str, bytes]:
    """The files of CLIP's tokenizer: merges.txt, and vocab.json, which follows from it.

    A vocabulary is the 256 bytes by the characters that stand for them, the same at the end of a word, what each merge
    makes, and two marks (github.com/openai/CLIP, simple_tokenizer.py).
    """
    merges = (CONFIGS / "clip" / "merges.txt").read_bytes()
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [256 + place for place in range(256 - len(plain))]
    letters = [chr(one) for one in (*plain, *others)]
    made = ["".join(line.split()) for line in merges.decode().splitlines()[1:]]
    pieces = [*letters, *(f"{one}</w>" for one in letters), *made, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = json.dumps({piece: place for place, piece in enumerate(pieces)}, ensure_ascii=False)
    return {"merges.txt": merges, "vocab.json": vocabulary.encode()}


def _v_prediction(path: Path, ends_in_noise: bool) -> bytes:
    told = {"prediction_type": "v_prediction"} | ({"rescale_betas_zero_snr": True} if ends_in_noise else {})
    return (json.dumps(_json(path) | told, indent=2) + "\n").encode()


# Another VAE ------------------------------------------------------------------------------------------------------


def _vae(given: Path, settings: Path, variant: str | None, make: bool | None) -> dict[str, Path] | None:
    """The files of the VAE that model.vae names, by their places in a model; None where it is not unpacked yet.

    `settings`: the folder with those of the model. Raises ModelError for another kind of VAE than the model's own.
    """
    kinds = read_index(settings)[1]
    if "vae" not in kinds:
        raise ModelError(f"{settings} has no VAE that model.vae={given} could replace: copy the whole model")
    kind, own = kinds["vae"][1], _json(settings / "vae" / "config.json")
    if given.is_file():
        checkpoint = look("model.vae", given)
        if "vae" not in checkpoint.parts:
            raise ModelError(f"model.vae={given} holds no VAE")
        prefix, tensors = checkpoint.parts["vae"]
        first = tensors.get(f"{prefix}decoder.conv_in.weight")
        _refuse_channels(given, None if first is None else first.shape[1], own)
        alone = Checkpoint(given, {"vae": checkpoint.parts["vae"]}, None, "VAE", None, False, False)
        made = unpacked(alone, {"vae": Piece("diffusers", kind, dict(own), prefix, sorted(tensors))}, {}, make)
        return None if made is None else _files_in(made)
    folder = given / "vae" if (given / "vae" / "config.json").is_file() else given
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.vae={given} has no config.json: name the folder of a VAE, a whole model, or a file")
    config = _json(folder / "config.json")
    if config.get("_class_name") != kind:
        raise ModelError(f"model.vae={given} is a {config.get('_class_name')}, but this model decodes with a {kind}")
    _refuse_channels(given, config.get("latent_channels"), own)
    part = part_in(folder.parent, folder.name, "diffusers", kind, variant)
    return {f"vae/{name}": path.resolve() for name, path in part.files.items()}


def _refuse_channels(given: Path, channels: object, own: Mapping[str, Any]) -> None:
    wanted = own.get("latent_channels", 4 if own.get("_class_name") == "AutoencoderKL" else None)
    if channels is not None and wanted is not None and channels != wanted:
        raise ModelError(
            f"model.vae={given} decodes latents of {channels} channels, and this model makes {wanted}: it belongs to "
            "another family of models"
        )


# Folders ----------------------------------------------------------------------------------------------------------


def _whole(folder: Path, model: ModelConfig, without: set[str] | None = None) -> dict[str, Path]:
    """The files that a run loads of a model's folder, by their places in it, but for the parts `without`."""
    refuse_misspelt(folder, model.variant)
    left_out = {"image_encoder", *(() if model.safety_checker != "off" else _CHECKER), *(without or ())}
    files: dict[str, Path] = {}
    for name, (library, kind) in read_index(folder)[1].items():
        if name not in left_out:
            if not (folder / name).is_dir():
                raise ModelError(f"{folder} lacks {name}: copy the whole model")
            part = part_in(folder, name, library, kind, model.variant)
            files |= {f"{name}/{file}": path.resolve() for file, path in part.files.items()}
    return files


def _files_in(folder: Path) -> dict[str, Path]:
    return {f"{path.parent.name}/{path.name}": path.resolve() for path in sorted(folder.glob("*/*"))}


def _parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {reason_of(error)}; download or copy it again") from error
    return values


def _view(index: Mapping[str, Any], files: Mapping[str, Path]) -> Path:
    """A folder in the cache with links to these files. Its name tells what is in it, so it is made only once."""
    listed = to_json([index, sorted((place, str(path)) for place, path in files.items())])
    target = cache_dir() / "models" / hashlib.sha256(listed.encode()).hexdigest()[:32]
    if (target / INDEX_FILE).is_file():
        return target
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.draft")
    try:
        for place, path in files.items():
            (draft / place).parent.mkdir(parents=True, exist_ok=True)
            (draft / place).symlink_to(path)
        (draft / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
        os.rename(draft, target)
    except OSError:
        if not (target / INDEX_FILE).is_file():  # else another command was first
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
