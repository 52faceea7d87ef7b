"""The shape of the package: small modules, imports one way, a front door without torch, everything said."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import batchgen

PACKAGE = Path(batchgen.__file__).parent
MAX_LINES = 300
# The two orders. Between wings: each imports only from the ground and from wings that come before it; within a wing, as
# within ground and doors: each file imports only from files that come before it.
GROUND = [
    "batchgen", "errors", "types", "units", "placements", "padding", "policy", "engine", "places", "plan_dir", "paths",
    "files", "events", "quality", "console",
]  # fmt: skip
# Families know nothing of each other.
FAMILIES = [
    f"families.{path.stem}"
    for path in sorted(PACKAGE.glob("models/families/*.py"))
    if path.stem not in ("__init__", "texts", "scales", "base", "clip")
]
WINGS = {
    "config": [
        "bounds", "loras", "schema", "sbatch", "check", "shipped", "keys", "quoting", "options", "arguments", "syntax",
        "own_files", "run_dir", "site", "compose", "explain", "describe",
    ],
    "stores": ["filesystem", "bucket", "hub", "target", "outage"],
    "prompts": [
        "records", "settings", "sniff", "mapping", "advice", "found", "values", "remedies", "json_items", "lines",
        "json_files", "parquet", "rows", "tables", "formats", "fetch", "find",
    ],
    "machine": [
        "dtype", "gpus", "growth", "host", "oom", "pinned", "meters", "mounts", "process", "readahead", "slurm",
        "versions", "imported",
    ],
    "plan": [
        "cutting", "drafts", "planner", "inputs", "recipe", "free", "records", "contents", "nearby", "store", "rejects",
        "replan", "settled", "edits", "stream",
    ],
    "models": [
        "aside", "parts", "hub", "transfer", "families.texts", "families.scales", "families.base", "families.clip",
        *FAMILIES, "families", "checkpoint", "embeddings", "wants", "sources", "unpack", "assembled", "find", "beside",
        "lora", "admit", "fingerprint", "editions", "staging",
    ],
    "shards": [
        "images", "infotext", "records", "failures", "leases", "copies", "closing", "memory_log", "journal", "samples",
        "tars", "attempt", "settled", "ends", "eta", "worker_log", "crew", "amounts", "starting", "roster", "progress",
        "index", "glance", "finish",
    ],
    "memory": [
        "defaults", "refused", "streaming_costs", "figures", "cache", "estimate", "placement_bytes", "host_bytes",
        "loading", "costs",
        "choose", "stepdown", "worth", "probe", "measure", "frozen", "forecast",
    ],
    "speed": ["worth", "kept", "levers"],
    "pipeline": [
        "guidance", "levers", "levers.activations", "levers.attention", "levers.prefix", "levers.norms",
        "levers.upsampling", "levers.graphs", "levers.compiled", "levers.traced", "noise", "schedulers", "inversion",
        "load", "rehearse", "lora_file", "check", "convert", "streaming", "placement", "lora", "apply", "strict",
        "tiling", "engine",
    ],
    "launch": [
        "metrics", "display", "local", "ahead", "notable", "deadline", "drain", "spare", "requeue", "ranks", "word",
        "copier", "copying", "arrays", "notes", "elements", "script", "submit", "wait",
    ],
    "report": [
        "listing", "made", "told", "picks", "where", "facts", "gather", "jobs", "thumbs", "sheet", "page", "table",
        "card", "write", "night", "__main__",
    ],
    "worker": ["out_of_memory", "shard", "spread", "standby", "hand_out", "loop", "__main__"],
    "evening": [
        "lines", "work", "pace", "kept", "measured", "takes", "ending", "disk", "outlook", "array", "policies", "start",
        "cuts", "download", "trial", "told",
    ],
    "site": ["findings", "disk", "devices", "material", "cluster"],
    "bench": [
        "place", "rows", "task", "timing", "guide", "compiled", "own", "row", "apart", "job", "kept", "expected",
        "table", "measure",
    ],
}  # fmt: skip
DOORS = [
    "prepare", "dry_run", "here", "run", "join", "cancel", "__main__", "fetch", "doctor", "status", "verify", "repair",
    "export", "bench.__main__",
]  # fmt: skip
ORDER = [
    *GROUND,
    *(name for wing, files in WINGS.items() for name in (*(f"{wing}.{file}" for file in files), wing)),
    *DOORS,
]
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "pyarrow")


def sources() -> dict[str, Path]:
    """Every module by its name in ORDER."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or "batchgen"] = path
    return found


SOURCES = sources()


def imported(tree: ast.Module) -> Iterator[str]:
    """The batchgen modules that a module imports anywhere, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            # `from batchgen import files` imports a module, `from batchgen.files import put` a part of one.
            longer = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("batchgen.") in SOURCES else str(node.module) for name in longer]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "batchgen":
                yield name.removeprefix("batchgen.")


def public_definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public classes, their public methods and public functions; what is inside a function is its own affair."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def unannotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """What of a function's signature has no annotation."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    missing = [one.arg for one in every if one.annotation is None and one.arg not in ("self", "cls")]
    return missing + ([] if function.returns else ["return"])


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted(ORDER) == sorted(SOURCES)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_to_earlier_modules(module: str) -> None:
    earlier = ORDER[: ORDER.index(module)]
    wrong = [name for name in imported(ast.parse(SOURCES[module].read_text())) if name not in earlier]
    assert wrong == []


def test_modules_are_small() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in SOURCES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize("module", SOURCES)
def test_everything_public_has_a_docstring_and_annotations(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text())
    undocumented = [] if ast.get_docstring(tree) else ["the module"]
    untyped = []
    for node in public_definitions(tree.body):
        undocumented += [] if ast.get_docstring(node) else [node.name]
        if not isinstance(node, ast.ClassDef) and (missing := unannotated(node)):
            untyped.append((node.name, missing))
    assert (undocumented, untyped) == ([], [])


@pytest.mark.parametrize(
    "module",
    [
        "__main__",
        "run",
        "fetch",
        "doctor",
        "status",
        "verify",
        "repair",
        "export",
        "prepare",
        "worker.loop",
        "bench.__main__",
        "bench.measure",
    ],
)
def test_the_front_door_does_not_load_torch(module: str) -> None:
    code = f"import sys, batchgen.{module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []


# Doors that tests go through as commands, and what holds types alone.
UNTESTED_BY_NAME = {"__main__", "worker.__main__", "report.__main__", "bench.__main__", "engine", "policy", "types"}


def test_the_tests_of_a_module_are_under_its_name() -> None:
    tests = Path(__file__).parent
    modules = [name for name, path in SOURCES.items() if path.name != "__init__.py" and name not in UNTESTED_BY_NAME]
    files = {name: tests.joinpath(*name.split(".")[:-1], f"test_{name.split('.')[-1]}.py") for name in modules}
    assert [name for name, path in files.items() if not path.is_file()] == []


def test_the_top_holds_few_entries() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 45
