"""Fetch what a job needs from the hub before the night: its model, and the LoRA files, VAE and base that go into it.

python -m batchgen.fetch [job=NAME] [key=value ...]
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.__main__ import compose
from batchgen.config.compose import load_any
from batchgen.config.loras import parse_loras
from batchgen.config.schema import Config
from batchgen.console import complain, open_console, typed_as
from batchgen.errors import EXIT_USER, EXIT_WHOLE, BatchgenError, ModelError
from batchgen.models import checkpoint
from batchgen.models.embeddings import named as words
from batchgen.models.find import check_model, download, find_model, in_cache, try_unpacking
from batchgen.models.hub import Repository, is_commit, is_offline
from batchgen.models.lora import Loras, lora_file, refuse_others
from batchgen.models.sources import local, looked_up, wants_of
from batchgen.models.transfer import fetch, free_bytes, require_room
from batchgen.models.wants import Want, names_of
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.units import count, gib

_HELP = """\
usage: {command} [job=NAME] [key=value ...]

Fetches what the job needs from the hub into its cache, with the settings of the command that is to make the run: of
model.path the files that a run loads, and what model.lora, model.vae and model.base name there. What is in the
cache is not fetched again, and what was broken off goes on where it was. Afterwards the job starts without
network, also with HF_HUB_OFFLINE=1.

  {command} job=NAME                      all that a run of the job needs
  {command} model=sdxl                    a model, without a job
  {command} job=NAME dry_run=true         say what would be fetched; writes nothing"""


def main() -> None:
    """The command line. Ends the process with the exit code."""
    open_console()
    if "--help" in sys.argv or "-h" in sys.argv:
        print(_HELP.format(command=typed_as("fetch")))
        return
    compose(_settled, _fetch)


def _settled(composed: Any) -> Config:
    return load_any(composed, "fetch")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is wanted, where it is, and which files of it."""

    want: Want
    repository: Repository
    names: list[str]

    @property
    def bytes(self) -> int:
        """How many bytes its files have."""
        return sum(self.repository.files[name].size_bytes for name in self.names)

    @property
    def bytes_to_fetch(self) -> int:
        """How many of them are not here."""
        return self.repository.bytes_to_fetch(self.names)

    def line(self) -> str:
        """What it is, and how much of it is here."""
        repository, missing = self.repository, self.bytes_to_fetch
        at = repository.commit[:12] if is_commit(repository.revision) else f"{repository.revision}, {repository.commit}"
        here = "all in the cache" if not missing else f"{gib(missing)} to fetch"
        return f"{self.want.key}: {repository.name} ({at}): {count(len(self.names), 'file')}, {gib(self.bytes)}, {here}"


def _fetch(config: Config) -> int:
    config = _as_planned(config)
    model, checker = config.model, config.model.safety_checker != "off"
    found, codes = [], [complain(error) for error in _unusable(config)]
    for want in _not_here(config, is_said=not codes):
        try:
            repository = looked_up(want)
            found.append(_Found(want, repository, names_of(want, repository, model.variant, checker)))
            print(found[-1].line())
        except BatchgenError as error:  # the others are looked at, too, so that all can be mended at once
            codes.append(complain(error))
    if codes:
        return EXIT_USER if EXIT_USER in codes else codes[0]
    if not found:
        return EXIT_WHOLE
    missing_bytes = sum(one.bytes_to_fetch for one in found)
    cache = found[0].repository.cache.parent
    print(f"disk: {gib(missing_bytes)} to fetch into {cache}, {gib(free_bytes(cache))} free")
    require_room(missing_bytes)
    if config.dry_run:
        print("dry run: nothing was written")
        return EXIT_WHOLE
    for one in found:
        fetch(one.repository, one.names)
        print(f"{one.want.key}: {one.want.name} is in the cache, {one.repository.folder / (one.want.file or '')}")
    _check(found, config)
    print("the job starts without network now, also with HF_HUB_OFFLINE=1")
    return EXIT_WHOLE


def _as_planned(config: Config) -> Config:
    """The configuration with the commit of the model that the run, if there is one, was planned with."""
    run = RunDir(Path(config.run_dir))
    if not run.plans():
        return config
    planned = load_plan(run).planned.model
    if config.model.revision is not None or planned.path != config.model.path or not is_commit(planned.revision):
        return config
    print(f"{run.root} was planned with model.revision={planned.revision}")
    return replace(config, model=replace(config.model, revision=planned.revision))


def _unusable(config: Config) -> Iterator[ModelError]:
    """What the run would refuse of the files that are here."""
    model = config.model
    named = {"model.path": model.path, "model.base": model.base, "model.vae": model.vae}
    checks: list[Callable[[], object]] = [partial(_check_file, key, text) for key, text in named.items() if text]
    on_hub = {f"{want.name}/{want.file}" for want in wants_of(model) if want.key == "model.lora"}
    checks += [partial(_check_lora, text) for text, _ in parse_loras(model.lora) if text not in on_hub]
    checks.append(partial(words, model.embeddings))
    for check in checks:
        try:
            check()
        except ModelError as error:
            yield error


def _check_file(key: str, text: str) -> None:
    if (path := local(key, text)) is not None and path.is_file():
        checkpoint.look(key, path)


def _check_lora(text: str) -> None:
    refuse_others(lora_file(text))


def _not_here(config: Config, is_said: bool) -> Iterator[Want]:
    """What is wanted, but for a model that is here for certain, of which a line says so if `is_said`.

    Raises ModelError for a model that is here and could not run.
    """
    model, wants = config.model, wants_of(config.model)
    if is_said and not any(want.key == "model.path" for want in wants):
        if (here := find_model(model)) is not None:
            check_model(here, config.job.scheduler)
        else:
            try_unpacking(model)
        print(f"model.path: {model.path} is no model of the hub, and it is here")
    for want in wants:
        may_be_here = want.key == "model.path" and want.file is None and (is_commit(want.revision) or is_offline())
        if may_be_here and (cached := in_cache(model)) is not None:
            check_model(cached, config.job.scheduler)
            print(f"model.path: {want.name} is in the cache, {cached.folder}")
        else:
            yield want


def _check(found: list[_Found], config: Config) -> None:
    """Unpack a model in one file, see that it and the LoRA can be used, and say how to pin it. Raises ModelError."""
    model = config.model
    pins = [one.repository.commit for one in found if (one.want.key, one.want.file) == ("model.path", None)]
    check_model(download(replace(model, revision=pins[0]) if pins else model), config.job.scheduler)
    Loras(model.lora)()
    if pins and not is_commit(model.revision):
        print(f"to keep to this revision: model.revision={pins[0]}")


if __name__ == "__main__":
    main()
