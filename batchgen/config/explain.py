"""The wording of every error that comes out of composing the configuration: which key, which value, where, what to set.

A mistake in a user's own file is told with the file and its line; one of the command line with the right argument.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from batchgen.config.arguments import unparsed
from batchgen.config.check import did_you_mean
from batchgen.config.keys import decimal_point, expected, kinds, no_such_key
from batchgen.config.own_files import OwnFile
from batchgen.config.quoting import text_word
from batchgen.config.schema import OPEN, known_keys
from batchgen.errors import ConfigError

_LIBRARIES = ("hydra", "omegaconf", "yaml", "antlr4", "codecs")
_KEY = re.compile(r"(?P<key>[a-z_]+(\.[a-z_-]+)*)(?=[=: ])")

_MARKS = "'\""


def explain(error: Exception, files: Sequence[OwnFile] = (), arguments: Sequence[str] = ()) -> ConfigError | None:
    """An error of Hydra, OmegaConf or YAML in one or two lines that say what is valid; None for any other error.

    `files`: the user's own files that were opened; `arguments`: the settings of the command line.
    """
    from omegaconf.errors import OmegaConfBaseException

    chain = [error, error.__cause__, error.__context__]
    cause = next((one for one in chain if isinstance(one, OmegaConfBaseException)), error.__cause__ or error)
    text = f"{error}\n{cause}"
    if (told := _of_arguments(error, text)) is not None:
        return ConfigError(told)
    missing = re.findall(r"Could not (?:find|load) '([^']+)'", text)
    for file in files:
        if (problem := file.problem(missing)) is not None:
            return ConfigError(problem)
    if missing:
        return ConfigError(_missing_option(missing[0], getattr(error, "options", None) or [], arguments))
    if not _comes_from_hydra(error):
        return None
    key = str(getattr(cause, "full_key", None) or "")
    if "issing mandatory value" in text or type(cause).__name__ == "MissingMandatoryValue":
        where = f"in {files[-1].shown}" if files else "in the job"
        return ConfigError(f"{key}: it must be set, {where} or as {key}=VALUE")
    return ConfigError(located(_of_value(key, cause, arguments), files, arguments))


def _comes_from_hydra(error: Exception) -> bool:
    """Whether Hydra or what it stands on raised an error, and not the run behind it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES


def located(message: str, files: Sequence[OwnFile], arguments: Sequence[str]) -> str:
    """The message of an error, with file and line before it if it begins with a key that a user's own file sets."""
    if message.startswith("no prompt file"):
        named = located(f"job.prompts: {message}", files, arguments)
        return message if named.startswith("job.prompts") else named
    found = _KEY.match(message)
    key = found["key"] if found else None
    if key is not None and key.startswith("hydra."):
        key = "hydra"
    elif key is None or not _is_known(key) or _argument(key, arguments) is not None:
        return message
    places = [place for file in files if (place := file.place(key)) is not None]
    return f"{places[-1]}: {message}" if places else message


def _is_known(key: str) -> bool:
    return key in known_keys() or any(key.startswith(f"{one}.") for one in OPEN)


def _of_arguments(error: Exception, text: str) -> str | None:
    """What to say of an error that Hydra's own words ascribe to a setting of the command line."""
    if text.startswith("In '"):  # of a file
        return None
    if unknown := re.search(r"Could not override '([^']+)'", text):
        value = re.search(rf"\+{re.escape(unknown[1])}=(.*)", text)
        return no_such_key(unknown[1], value[1].strip("'\"") if value else None)
    if there := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{there[1]}: it has a value already: write {there[1]}=VALUE, without the +"
    if override := getattr(error, "override", None):
        return unparsed(str(override))
    if text.startswith("Ambiguous value"):
        return "a comma starts a sweep, which needs -m; write a list in quotes: 'key=[a,b]'"
    if folder := re.search(r"Additional config directory '([^']+)' not found", text):
        return f"--config-dir: there is no directory {folder[1]}"
    return None


def _missing_option(name: str, options: Sequence[str], arguments: Sequence[str]) -> str:
    """What to say of an option that no folder of the configuration holds. `name`: GROUP/OPTION."""
    group, _, option = name.partition("/")
    path = Path(option)
    if not option:
        return f"--config-name={group}: there is no such file in the configuration"
    if group == "model" and ("/" in option or path.exists()):
        return f"model={option}: no such option; a folder or a hub id is {shlex.quote(f'model.path={option}')}"
    if group == "job" and path.suffix in (".yaml", ".yml"):
        config_dir = path.parent.parent if path.parent.name == "job" else path.parent
        return f"job={option}: write --config-dir {shlex.quote(str(config_dir))} job={path.stem}"
    if group == "job" and path.is_file():
        return f"job={option}: no such option; prompts of a file are {shlex.quote(f'job.prompts={option}')}"
    for folder in _config_dirs(arguments):
        if folder.joinpath(group, f"{option}.yml").is_file():
            return f"{group}={option}: name the file {folder / group / option}.yaml, not .yml"
        if folder.joinpath(f"{option}.yaml").is_file():
            right = folder.parent if folder.name == group else f"{folder}, with {group}/{option}.yaml in it"
            return f"{group}={option}: no such option; --config-dir names the folder above {group}/: {right}"
    return f"{group}={option}: no such option{did_you_mean(option, options)}"


def _config_dirs(arguments: Sequence[str]) -> list[Path]:
    """The folders that --config-dir names."""
    named: list[str] = []
    for place, word in enumerate(arguments):
        if word in ("--config-dir", "-cd"):
            named += arguments[place + 1 : place + 2]
        elif word.startswith("--config-dir="):
            named.append(word.partition("=")[2])
    return [Path(one) for one in named]


def _of_value(key: str, cause: BaseException, arguments: Sequence[str]) -> str:
    """What to say of a key whose value OmegaConf refuses."""
    if type(cause).__name__ == "ConfigKeyError":
        return no_such_key(key)
    if not key and "Interpolation" in type(cause).__name__:  # Hydra's --resolve does not say where
        key = next((word.partition("=")[0] for word in arguments if "${" in word), "a value")
    given = _argument(key, arguments)
    shown = key if given is None else f"{key}={given}"
    text = text_word(key, given) if given is not None and key in kinds() and kinds()[key][0] is str else None
    if "Interpolation" in type(cause).__name__:
        right = text or "\\${ in place of ${"
        return f"{shown}: {_first_line(str(cause))}; to mean the text, write {right}"
    if key in known_keys() and key not in kinds():
        first = next(one for one in known_keys() if one.startswith(f"{key}."))
        return f"{shown}: it is a group of keys; set one of them, such as {first}=VALUE"
    if given == "null" and key in kinds():
        return f"{key}=null: it must be {expected(key)}" + (f"; no text is {key}=" if kinds()[key][0] is str else "")
    if text is not None:
        return f"{key}={given}: it must be {expected(key)}; write {text}"
    if given is not None and key in kinds():
        return f"{key}={given}: it must be {expected(key)}{decimal_point(key, given.strip(_MARKS))}"
    first = _first_line(str(cause))
    return f"{key}: {first}" if key and key not in first else first


def _argument(key: str, arguments: Sequence[str]) -> str | None:
    """The value that the command line gives a key; None if it gives none."""
    given = [word.partition("=")[2] for word in arguments if word.partition("=")[0].lstrip("+") == key and "=" in word]
    return given[-1] if given else None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "the configuration could not be composed"
