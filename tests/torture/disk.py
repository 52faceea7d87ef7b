"""What a disk may hold after a power cut: the recorded operations of a run, as POSIX promises them and no more.

Bytes of a file are there for certain once it was fsynced, and a name once its directory was. Of what came after the
last fsync each may be there or not, whatever came later: a create, link, unlink or rename in a directory each for
itself; the bytes of a file not at all, as a beginning of whole 512-byte sectors, or with sectors that read as zeros.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


@dataclass
class File:
    """A file: what an fsync made durable, and what was written."""

    durable: bytes = b""
    data: bytearray = field(default_factory=bytearray)

    def sync(self):
        self.durable = bytes(self.data)

    def is_dirty(self):
        return self.durable != self.data

    def after_cut(self, chosen, way):
        """The bytes that are left; `way` is 'all', 'none', 'torn', 'zeros' or 'holes'."""
        if way == "all" or not self.is_dirty():
            return bytes(self.data)
        kept = len(self.durable)
        if way == "none" or self.data[:kept] != self.durable:
            return self.durable
        sectors = range(kept // SECTOR, -(-len(self.data) // SECTOR))
        if way == "torn":
            return bytes(self.data[: max(kept, min(len(self.data), SECTOR * chosen.choice(sectors)))])
        left = bytearray(self.data)
        for sector in sectors:
            if way == "zeros" or chosen.random() < 0.5:
                start, stop = max(kept, sector * SECTOR), min(len(left), (sector + 1) * SECTOR)
                left[start:stop] = bytes(stop - start)
        return bytes(left)


@dataclass
class Directory:
    """A directory: its durable names, and the changes since, each (name, what it names or None)."""

    durable: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)

    def names(self, kept=None):
        """The names with all the changes, or with those at the places `kept`."""
        names = dict(self.durable)
        for place, change in enumerate(self.changes):
            if kept is None or place in kept:
                for name, node in change:
                    if node is None:
                        names.pop(name, None)
                    else:
                        names[name] = node
        return names

    def change(self, *change):
        self.changes.append(change)

    def sync(self):
        self.durable = self.names()
        self.changes = []

    def is_dirty(self):
        return bool(self.changes)


class Disk:
    """The state after the first so many of the recorded events."""

    def __init__(self, base):
        self._base = str(base)
        self.root = Directory()
        self._open = {}
        self.dirty = {}  # by id: every file or directory that has something not durable
        self.appended = {}  # rows of each shard that were promised to be durable

    def _find(self, path):
        node = self.root
        for name in Path(path).relative_to(self._base).parts:
            node = node.names()[name]
        return node

    def _parent(self, path):
        head, _, name = path.rpartition("/")
        return self._find(head), name

    def _note(self, node):
        if node.is_dirty():
            self.dirty[id(node)] = node
        else:
            self.dirty.pop(id(node), None)

    def play(self, event):
        """Do what was recorded. Returns what an fsync was of, else None."""
        kind, *facts = event
        if kind == "fsync":
            node = self._open[facts[0]]
            node.sync()
            self._note(node)
            return node
        if kind == "write":
            handle, at, text = facts
            node = self._open[handle]
            node.data[at : at + len(text)] = text.encode("latin-1")
            self._note(node)
        elif kind == "opendir":
            self._open[facts[1]] = self._find(facts[0])
        elif kind in ("create", "mkdir"):
            parent, name = self._parent(facts[0])
            node = parent.names().get(name)
            if node is None:
                node = File() if kind == "create" else Directory()
                parent.change((name, node))
                self._note(parent)
            elif kind == "create" and facts[2]:
                node.data.clear()
                self._note(node)
            if kind == "create":
                self._open[facts[1]] = node
        elif kind in ("unlink", "rmdir"):
            parent, name = self._parent(facts[0])
            parent.change((name, None))
            self._note(parent)
        elif kind in ("link", "rename"):
            self._give_name(kind, *facts)
        elif facts[0] == "appended":
            self.appended[facts[1]] = facts[2]
        return None

    def _give_name(self, kind, source, target):
        parent, name = self._parent(target)
        node = self._find(source)
        changes = [(name, node)]
        if kind == "rename":
            before, old_name = self._parent(source)
            assert before is parent, "a rename across directories is not modelled"
            changes.append((old_name, None))
        parent.change(*changes)
        self._note(parent)

    def tree(self, chosen, lasting, ways, lost=None):
        """{path: bytes, or None for a directory} after a power cut.

        `lasting` is how likely a change of a directory is there, `ways` what may become of a file. With `lost` that
        is so for one file or directory alone, and the rest is all there.
        """
        found: dict[str, bytes | None] = {}
        contents: dict[int, bytes] = {}

        def walk(directory, path):
            share = lasting if lost is None or directory is lost else 1.0
            kept = {place for place in range(len(directory.changes)) if chosen.random() < share}
            for name, node in sorted(directory.names(kept).items()):
                if isinstance(node, Directory):
                    found[path + name] = None
                    walk(node, f"{path}{name}/")
                    continue
                if id(node) not in contents:
                    way = chosen.choice(ways) if lost is None or node is lost else "all"
                    contents[id(node)] = node.after_cut(chosen, way)
                found[path + name] = contents[id(node)]

        walk(self.root, "")
        return found


def read_events(log):
    """The recorded events, in order."""
    with open(log) as file:
        return [json.loads(line) for line in file]


def build(tree, base):
    """Write a tree to an empty directory; two names of one file become two files."""
    for path, data in tree.items():
        if data is None:
            os.mkdir(base / path)
        else:
            (base / path).write_bytes(data)
