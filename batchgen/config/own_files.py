"""What is wrong in a configuration file of a user's own, with its line. It is asked only when something went wrong.

A file that composes is never looked at here, so that whatever Hydra accepts stays right.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batchgen.config.keys import GROUPS_OF_OPTIONS, decimal_point, expected, kinds, meant, no_such_key
from batchgen.config.sbatch import option_name
from batchgen.config.schema import OPEN, Config, known_keys
from batchgen.config.shipped import options_of
from batchgen.config.syntax import read_text, syntax_problem

_ENTRY = re.compile(r"(?P<override>override\s+)?(?P<slash>/?)(?P<group>[\w/]+)(?P<rest>[@:].*)?")
_REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_][\w.]*)(\}|:)")
_GLOBAL = "# @package _global_"
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Found:
    """Something in a file: its line, counted from 1, and what is to be said of it."""

    line: int
    problem: str


class OwnFile:
    """A file that Hydra opened. `name`: its path below the folder that Hydra searches, such as job/venus."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.group, _, self.option = name.removesuffix(".yaml").rpartition("/")
        self._above: str | None = None  # the prefix of the file that names this one in its defaults

    @property
    def shown(self) -> str:
        """The path as a person finds it from here."""
        relative = os.path.relpath(self.path)
        return str(self.path) if relative.startswith("..") else relative

    def problem(self, missing: Collection[str] = ()) -> str | None:
        """The first thing that is wrong, with file and line; None if nothing is.

        `missing`: the options that Hydra did not find, such as model/sdxxl.
        """
        text = read_text(self.path)
        if not isinstance(text, str):
            return f"{self.shown}{text.place}: {text.problem}"
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line, problem = syntax_problem(error, text)
            return f"{self.shown}:{line}: {problem}"
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            return f"{self.shown}:{line}: it has a character that YAML does not allow (0x{error.character:02x})"
        found = next(self._problems(node, text, missing), None)
        return f"{self.shown}:{found.line}: {found.problem}" if found else None

    def place(self, key: str) -> str | None:
        """File and line where a dotted key is set; None if the file does not set it, or cannot be read."""
        text = read_text(self.path)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader) if isinstance(text, str) else None
        except yaml.YAMLError:
            return None
        if not isinstance(node, yaml.MappingNode) or not isinstance(text, str):
            return None
        entries = list(_entries(node, self._prefix(text)))
        for full, _, value in [one for one in entries if one[0] in OPEN and isinstance(one[2], yaml.MappingNode)]:
            entries += [(f"{full}.{option_name(name.value)}", name, option) for name, option in value.value]
        lines = [_line(name) for full, name, _ in entries if full == key]
        return f"{self.shown}:{lines[-1]}" if lines else None

    def _package(self, text: str) -> str | None:
        from hydra.plugins.config_source import ConfigSource

        try:
            return ConfigSource._get_header_dict(text).get("package")
        except ValueError:  # a header of no form
            return None

    def _prefix(self, text: str) -> str:
        """What Hydra puts before the file's keys: "", or a group with a dot."""
        group = self.group.replace("/", ".")
        package = self._package(text)
        if package is None and self._above is not None:
            return self._above
        package = group if package is None else package.replace("_group_", group).replace("_name_", self.option)
        package = package.removeprefix("_global_").lstrip(".")
        return f"{package}." if package else ""

    def _problems(self, node: yaml.Node | None, text: str, missing: Collection[str]) -> Iterator[Found]:
        if node is None:
            needed = "job: and, under it, prompts" if _GLOBAL in text else f"{_GLOBAL} and, under job:, prompts"
            needed = needed if self.group == "job" else "keys with values"
            yield Found(1, f"the file is empty: it needs {needed}")
            return
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "text"
            yield Found(_line(node), f"the file holds {kind} where keys with values are needed, such as job: or model:")
            return
        prefix = self._prefix(text)
        for name, value in node.value:
            if name.value == "defaults":
                yield from self._default_problems(value, missing)
        yield from _twice(node)
        values = yaml.load(text, Loader=_Loader)
        for full, name, value in _entries(node, prefix):
            if full.split(".")[0] == "hydra" or full == f"{prefix}defaults":
                continue
            if self._package(text) is None and prefix and full.removeprefix(prefix) in (*GROUPS_OF_OPTIONS, "run_dir"):
                yield Found(1, f"the first line must be {_GLOBAL}: without it, {name.value}: is read as {full}")
            else:
                plain = _pick(values, full.removeprefix(prefix).split("."))
                yield from (Found(_line(name), problem) for problem in _entry_problems(full, value, plain, text))

    def _default_problems(self, node: yaml.Node, missing: Collection[str]) -> Iterator[Found]:
        if not isinstance(node, yaml.SequenceNode):
            yield Found(_line(node), "defaults must be a list: a line such as - override /model: sdxl for each")
            return
        for item in node.value:
            if isinstance(item, yaml.ScalarNode) and f"{self.group}/{item.value}".lstrip("/") in missing:
                yield Found(_line(item), f"- {item.value}: {self._not_beside(item.value)}")
            pair = item.value[0] if isinstance(item, yaml.MappingNode) and item.value else None
            entry = _ENTRY.fullmatch(pair[0].value) if pair else None
            if pair is None or entry is None:
                continue
            group, option = entry["group"], pair[1].value
            written = f"- {pair[0].value}: {option}"
            if group in GROUPS_OF_OPTIONS and self.group and not (entry["override"] and entry["slash"]):
                yield Found(_line(item), f"{written}: write - override /{group}: {option}")
            elif group not in GROUPS_OF_OPTIONS and (entry["override"] or f"{group}/{option}" in missing):
                near = difflib.get_close_matches(group, GROUPS_OF_OPTIONS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(GROUPS_OF_OPTIONS)}"
                yield Found(_line(item), f"{written}: there is no group {group}; {hint}")
            elif f"{group}/{option}" in missing:
                yield Found(_line(item), f"{written}: {group} has no option {option}")

    def named_beside(self) -> list[str]:
        """The options of its own group that its defaults name, such as base of - base; [] if it cannot be read."""
        text = read_text(self.path)
        try:
            values = yaml.load(text, Loader=_Loader) if isinstance(text, str) else None
        except yaml.YAMLError:
            return []
        listed = values.get("defaults") if isinstance(values, dict) else None
        return [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []

    def lend_prefix(self, other: "OwnFile") -> None:
        """Tell a file that this one names in its defaults where its keys go, if it does not say so itself."""
        text = read_text(self.path)
        other._above = self._prefix(text) if isinstance(text, str) else None

    def _not_beside(self, name: str) -> str:
        groups = [group for group in GROUPS_OF_OPTIONS if name in options_of(group)]
        if groups:
            return f"write - override /{groups[0]}: {name}"
        beside = [path.stem for path in self.path.parent.glob("*.yaml") if path != self.path]
        near = difflib.get_close_matches(name, beside, n=1)
        hint = f"did you mean - {near[0]}?" if near else "a model is chosen by a line - override /model: NAME"
        return f"there is no {name}.yaml beside this file; {hint}"


def linked(files: list[OwnFile]) -> list[OwnFile]:
    """The same files, in the order in which they were opened, each with the prefix that the one above it lends it."""
    for file in files:
        named = file.named_beside()
        for other in files:
            if other is not file and other.group == file.group and other.option in named:
                file.lend_prefix(other)
    return files


class _Loader(yaml.SafeLoader):
    """YAML's plain values; a tag that is not known gives the text."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: str(node.value))


def _entries(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Any, yaml.Node]]:
    """Each key of a mapping and of those within it: the dotted key, and the nodes of its last word and of its value."""
    for name, value in node.value:
        full = f"{prefix}{name.value}"
        yield full, name, value
        if isinstance(value, yaml.MappingNode) and full in known_keys() and full not in kinds():
            yield from _entries(value, f"{full}.")


def _entry_problems(full: str, node: yaml.Node, value: Any, text: str) -> Iterator[str]:
    """What is wrong with a key and its value."""
    shown = _shown(full, node, text)
    if full == "default":
        yield f"{full}: no such key; did you mean defaults?"
    elif full not in known_keys():
        wrong, _, rest = no_such_key(full).partition(": ")
        yield f"{shown if not isinstance(node, yaml.MappingNode) else wrong}: {rest}"
    elif full not in kinds():
        if value is None:
            yield f"{full}: there is nothing under it: indent its lines by two spaces more than {full}:"
        elif not isinstance(value, dict):
            yield f"{shown}: {_choose(full, value)}"
    else:
        yield from _value_problems(full, node, value, shown)


def _choose(group: str, value: Any) -> str:
    if group in GROUPS_OF_OPTIONS and group != "job" and isinstance(value, str):
        return f"a group is chosen in a list at the top: a line defaults: and under it - override /{group}: {value}"
    return f"there must be keys under {group}:"


def _value_problems(full: str, node: yaml.Node, value: Any, shown: str) -> Iterator[str]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    nested: Any = value
    for word in reversed(full.split(".")):
        nested = {word: nested}
    try:
        OmegaConf.merge(OmegaConf.structured(Config), nested)
    except OmegaConfBaseException:
        texts = isinstance(node, yaml.SequenceNode) and kinds()[full][0] is str
        joined = ", ".join(str(one.value) for one in node.value) if texts else ""
        hint = f', such as "{joined}"' if joined else ""
        if isinstance(value, str) and "${" in value:
            yield f"{shown}: what follows ${{ is no key; to mean the text, write \\${{"
        else:
            yield f"{shown}: it must be {expected(full)}{hint}{decimal_point(full, value)}"
    if full == "job.prompts" and (value is None or isinstance(value, dict)):
        yield f"{shown}: it must be {expected(full)}"
    for name, end in _REFERENCE.findall(value) if isinstance(value, str) else ():
        known = OmegaConf.has_resolver(name) if end == ":" else name in known_keys() or name.startswith("hydra.")
        if not known:
            near = meant(name) if end == "}" else []
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            yield f"{shown}: there is no key {name}{hint}; to mean the text, write \\${{{name}{end}"


def _twice(node: yaml.MappingNode, prefix: str = "") -> Iterator[Found]:
    """The keys that a mapping has twice."""
    first: dict[str, int] = {}
    for name, value in node.value:
        if name.value in first:
            where = f"{prefix}{name.value}: is already in line {first[name.value]}"
            yield Found(_line(name), f"{where}: put all of it in one place")
        first.setdefault(str(name.value), _line(name))
        if isinstance(value, yaml.MappingNode):
            yield from _twice(value, f"{prefix}{name.value}.")


def _pick(values: Any, words: list[str]) -> Any:
    for word in words:
        values = values.get(word) if isinstance(values, dict) else None
    return values


def _shown(full: str, node: yaml.Node, text: str) -> str:
    """A key with its value as the file has it."""
    written = text[node.start_mark.index : node.end_mark.index].strip() if node.start_mark else ""
    if isinstance(node, yaml.MappingNode) or "\n" in written:
        return full
    short = written if len(written) <= _LONGEST_VALUE else f"{written[:_LONGEST_VALUE]}..."
    return f"{full}={short}" if short else full


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
