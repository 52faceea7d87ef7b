"""The command line as a person typed it, looked over before Hydra reads it: a mistake gets the line that is right."""

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from batchgen.config.check import CHOICES
from batchgen.config.keys import GROUPS_OF_OPTIONS, decimal_point, expected, kinds, meant, no_such_key
from batchgen.config.options import open_word
from batchgen.config.quoting import list_word, text_word
from batchgen.config.shipped import options_of
from batchgen.console import COMMANDS, typed_as
from batchgen.errors import ConfigError

_SWITCHES = ("dry_run", "extend", "retry_failed")
_FLAGS = ("--help", "--version", "--multirun", "--config-dir", "--config-name", "--cfg", "--info", "--resolve")
_OTHER_COMMANDS = {"help": "--help", "version": "--version"}


def arranged(arguments: Sequence[str]) -> list[str]:
    """The arguments in an order that Hydra takes: its options before the settings.

    Raises ConfigError, with the right line, for what can be neither an option nor a setting, and for values that Hydra
    would not read as they are meant.
    """
    arguments = [open_word(word) for word in arguments]
    options, late = _parse(arguments)
    settings = [*options.overrides, *(word for word in late if not word.startswith("-"))]
    if options.shell_completion:
        return list(arguments)
    for flag in late:
        if flag.startswith("-"):
            _refuse_flag(flag, arguments)
    for place, word in enumerate(settings):
        if not word.strip() or word.startswith("="):
            raise ConfigError(f"{word!r} has no key: write key=value; is a variable of the shell empty?")
        if "=" not in word and not word.startswith("~"):
            _refuse_word(place, settings)
    # Where a configuration may ask for a sweep, Hydra itself finds out.
    may_sweep = options.multirun or options.config_name or options.config_path
    may_sweep = may_sweep or any(word.startswith("hydra.mode=") for word in settings)
    for word in settings:
        _check_value(word, arguments, bool(may_sweep))
    early = list(arguments)
    for word in settings:
        early.remove(word)
    return [*early, *settings]


def _parse(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Hydra's options, and what is left over: unknown flags, and settings that came after an option."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help says what can be typed")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_known_args(list(arguments))


def _refuse_flag(flag: str, arguments: Sequence[str]) -> NoReturn:
    """Raise ConfigError for an option that does not exist. Most are settings, typed as other programs take them."""
    name, _, value = flag.lstrip("-").partition("=")
    key = name.replace("-", "_")
    after = arguments[list(arguments).index(flag) + 1 :]
    if not value:
        value = "true" if key in _SWITCHES else after[0] if after and after[0][:1] != "-" else "VALUE"
    keys = [key] if key in kinds() or key in GROUPS_OF_OPTIONS else meant(key)
    if keys:
        right = " or ".join(shlex.quote(f"{one}={value}") for one in keys)
        raise ConfigError(f"{flag}: a setting is written without dashes: {right}")
    near = difflib.get_close_matches(f"--{name}", _FLAGS, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help says what can be typed"
    raise ConfigError(f"{flag}: no such option; {hint}")


def _refuse_word(place: int, settings: list[str]) -> NoReturn:
    """Raise ConfigError for an argument without `=`."""
    word, before, after = settings[place], settings[place - 1] if place else "", settings[place + 1 :]
    key = word.lstrip("+").replace("-", "_")
    if after and after[0].startswith("="):
        value = after[0][1:] or (after[1] if len(after) > 1 else "VALUE")
        raise ConfigError(f"{word} {' '.join(after[:2])}: write {word}={value}, without spaces around the =")
    if before and _is_text(_key_of(before)):
        end = next((at for at, one in enumerate(settings) if at > place and "=" in one), len(settings))
        raise ConfigError(
            _in_quotes(" ".join(settings[place - 1 : end]), "a value with spaces, or a list, goes in quotes")
        )
    if key in kinds():
        raise ConfigError(f"{word} needs a value: write {key}={'true' if key in _SWITCHES else 'VALUE'}")
    if key in GROUPS_OF_OPTIONS:
        value = after[0] if after and "=" not in after[0] else "NAME"
        raise ConfigError(f"{word} needs a value: write {key}={value}")
    if (problem := _as_command(place, word, after) or _as_path(word) or _as_option(word)) is not None:
        raise ConfigError(problem)
    name, colon, value = word.partition(":")
    if colon and name in kinds():
        raise ConfigError(f"{word}: write {name}={value}, with =")
    if keys := meant(key):
        value = "true" if keys[0] in _SWITCHES else "VALUE"
        raise ConfigError(f"{word}: no such key; did you mean {' or '.join(f'{one}={value}' for one in keys)}?")
    raise ConfigError(
        f"{word}: write a setting as key=value, such as job.steps=20, or a command: {', '.join(COMMANDS)}; prompts are "
        f"read from a file: job.prompts=FILE"
    )


def _as_command(place: int, word: str, after: Sequence[str]) -> str | None:
    """What to say of a word that stands where a command may, or is one."""
    follows = shlex.join(after) if after else None
    if word in COMMANDS:
        return f"{word} goes first: {typed_as()} {word} {COMMANDS[word][0]}"
    if word in _OTHER_COMMANDS:
        return f"{word}: write {typed_as()} {_OTHER_COMMANDS[word]}"
    if word == "run":
        return f"run is no command: a run begins without one: {typed_as()} {follows or 'job=NAME'}"
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    if near and place == 0 and not Path(word).exists():
        return f"{word}: no such command; did you mean {typed_as()} {near[0]} {follows or COMMANDS[near[0]][0]}?"
    return None


def _as_path(word: str) -> str | None:
    """What to say of a word that is, or looks like, a file or a directory."""
    path, quoted = Path(word), shlex.quote(word)
    if path.suffix in (".yaml", ".yml") and path.parent.name == "job":
        config_dir = shlex.quote(str(path.parent.parent))
        return f"{word} is a job: write {typed_as()} --config-dir {config_dir} job={shlex.quote(path.stem)}"
    if path.is_file():
        return f"{word} is a file: to make its prompts write {typed_as()} {shlex.quote(f'job.prompts={word}')}"
    if path.is_dir() and not (path / "plan").is_dir() and any(path.glob("job/*.yaml")):
        return f"{word} has jobs: write {typed_as()} --config-dir {quoted} job=NAME"
    if path.is_dir() or "/" in word:
        what = "" if path.is_dir() else "; there is no such directory yet"
        return (
            f"{word}: say what to do with it{what}: {typed_as()} status {quoted} shows how far a run is, verify checks "
            f"it; the command that began it, with run_dir={quoted}, goes on"
        )
    return None


def _as_option(word: str) -> str | None:
    """What to say of a word that is the name of a job, a model or the like."""
    for group in GROUPS_OF_OPTIONS:
        if word in options_of(group):
            return f"{word}: write {group}={word}"
    return None


def _check_value(word: str, arguments: Sequence[str], may_sweep: bool) -> None:
    """Raise ConfigError for a setting that Hydra cannot parse, or takes for a sweep where there is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, value = _key_of(word), word.partition("=")[2]
    if key != key.strip():
        raise ConfigError(f"{word}: write {key.strip()}={value.strip()}, without spaces around the =")
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(unparsed(word)) from error
    if key in GROUPS_OF_OPTIONS and not value:
        raise ConfigError(f"{word} needs a value: {key}=NAME; choose one of {', '.join(options_of(key))}")
    if not override.is_sweep_override():
        if key in GROUPS_OF_OPTIONS and value and isinstance(override.value(), bool | int | float | None):
            raise ConfigError(_in_quotes(word, f"{word}: the name of an option is text: put it in quotes"))
        return
    if may_sweep:
        return
    if key == "job.prompts" and not Path(value).is_file():
        listed = list_word(key, [one.strip() for one in value.split(",")])
        raise ConfigError(f"a comma starts a sweep, which needs -m; write a list in quotes: {listed}")
    if _is_text(key):
        raise ConfigError(_in_quotes(word, f"{word}: a comma separates the runs of a sweep; put the text in quotes"))
    if key not in kinds() and key not in GROUPS_OF_OPTIONS:
        raise ConfigError(no_such_key(key, value))
    if key in kinds() and (point := decimal_point(key, value)):
        raise ConfigError(f"{word}: it must be {expected(key)}{point.replace(': ', f': {key}=')}")
    line = f"{typed_as()} -m {shlex.join(arguments)}"
    raise ConfigError(f"{word}: several values make several runs, which needs -m: {line}")


def unparsed(word: str) -> str:
    """What to say of a setting that Hydra cannot parse."""
    key, value = _key_of(word), word.partition("=")[2]
    if key in kinds() and not _is_text(key) and key != "job.prompts":
        if kinds()[key][0] == list[str]:
            return f"{word!r} cannot be parsed: put each text of the list in quotes: {_shell_list(key)}"
        if _is_listable(key):
            return f"{word!r} cannot be parsed: put each text in quotes: {_texts_word(key, value)}"
        number = value.strip("=,;' \"")
        shown = number if re.fullmatch(r"[\w.+-]+", number) else "VALUE"
        return f"{word!r} cannot be parsed: {key} must be {expected(key)}, such as {key}={shown}"
    if key not in kinds() and key not in GROUPS_OF_OPTIONS and meant(key):
        return no_such_key(key, value)
    if (key == "job.prompts" and value[:1] == "[") or key not in kinds():
        return f"{word!r} cannot be parsed: put it in quotes, like \"key='a value'\" or 'key=[a,list]'"
    return _in_quotes(word, f"{word!r} cannot be parsed: put it in quotes")


def _is_listable(key: str) -> bool:
    """Whether the value of a key is text or a list of texts."""
    return kinds()[key][0] is Any and key not in CHOICES


def _texts_word(key: str, value: str) -> str:
    """The setting as a shell takes it, of one text or a list that Hydra cannot parse."""
    if value[:1] != "[":
        return text_word(key, value) or f"{key}=VALUE"
    texts = [one.strip(" '\"") for one in value.strip("[] ").split(",")]
    return list_word(key, [one for one in texts if one] or ["FILE"])


def _shell_list(key: str) -> str:
    return f"\"{key}=['module load cuda','export A=1']\""


def _in_quotes(word: str, problem: str) -> str:
    """The problem, and the setting as a shell takes it."""
    key, value = word.partition("=")[::2]
    right = shlex.quote(word) if value[:1] == "[" and value[-1:] == "]" else text_word(key, value)
    files = [] if value[:1] == "[" else value.split()
    if key == "job.prompts" and len(files) > 1 and not Path(value).is_file() and all(map(_looks_like_file, files)):
        right = list_word(key, files)
    return f"{problem}: {right}" if right else f"{problem}, or set {key} in a job of your own"


def _looks_like_file(word: str) -> bool:
    return bool(Path(word).suffix) or Path(word).exists()


def _key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _is_text(key: str) -> bool:
    """Whether any text may be the value of a key."""
    return key == "job.prompts" or (key in kinds() and kinds()[key][0] is str and key not in CHOICES)
