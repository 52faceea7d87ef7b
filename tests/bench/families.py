"""Four families at full size on one GPU, one model at a time, each in little memory and beside plain diffusers.

python -m tests.bench.families MODELS [--only KIND ...] [--rows FILE] [--seconds N] [--no-anchors]
    [--keep] [--small]

Each model is made in MODELS with random weights (full_size.py), unless it is there; its cells are measured by the
command, with its own choice of policy (family_cells.py), and then plain diffusers (offloads.py) beside the same other
process; then the model is removed unless --keep. All cells of a model share a cache: fingerprints, and figures from the
first cell on. 1024x1024, 4 steps, batches of 32; a rate is images times steps for each second of denoising, of the last
batch. Rows that FILE holds are kept. --seconds: nothing is begun that would not end by then; the next call goes on.
--no-anchors leaves plain diffusers out.
--small: the whole program with tiny models on a CPU, without another process; its rows are kept in MODELS.
"""

import argparse
import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from batchgen.errors import EXIT_USER
from tests.bench.family_cells import BATCH, Bench, Cell, TimeIsUpError, lora_of, make_lora
from tests.bench.full_shrunk import SHRINK
from tests.bench.full_size import make
from tests.bench.ladder import Rows
from tests.bench.record import RESULTS, Record, device, gpu_name
from tests.bench.refused import Ballast

# In the order of the goals: where time ends, what compares comes last. A batch is enough where no rate is compared.
CELLS = (
    Cell("sdxl", 24, expected_s=60),
    Cell("sdxl", None, expected_s=60),
    Cell("sdxl", None, lora=True, expected_s=60),
    Cell("z_image", 24, expected_s=110),
    Cell("z_image", 8, expected_s=110),
    Cell("z_image", 24, anchor="model", expected_s=80),
    Cell("z_image", 8, anchor="group", expected_s=90),
    Cell("flux_dev", None, expected_s=110),
    Cell("flux_dev", 12, expected_s=120),
    Cell("flux_dev", 24, images=32, expected_s=80),
    Cell("flux_dev", 8, images=32, expected_s=80),
    Cell("flux_dev", 8, images=32, host_gib=32, expected_s=60),
    Cell("flux_dev", 24, anchor="model", expected_s=100),
    Cell("flux_dev", 12, anchor="group", expected_s=120),
    Cell("flux_dev", 8, anchor="group", expected_s=120),
    Cell("sd35_medium", 24, expected_s=120),
)
# Where model offload does not fit in 24 GiB, it is measured on the whole card.
INSTEAD_OF = next(cell for cell in CELLS if (cell.model, cell.anchor) == ("flux_dev", "model"))
WHOLE_INSTEAD = Cell("flux_dev", None, anchor="model", expected_s=100)
KINDS = tuple(dict.fromkeys(cell.model for cell in CELLS))
MAKE_S = {"sdxl": 25, "z_image": 40, "flux_dev": 60, "sd35_medium": 35}
SHARES_WITH = {"sd35_medium": "flux_dev"}  # T5
STREAMED_SHARE, LORA_SHARE, WITHIN = 0.6, 0.97, 0.1
SMALL_EDGE, SMALL_BATCH = 64, 4


class Families:
    """What is measured, each thing once."""

    def __init__(self, rows, bench, kinds, with_anchors=True):
        self._rows, self._bench, self._kinds = rows, bench, kinds
        self._cells = tuple(cell for cell in CELLS if with_anchors or not cell.anchor)

    def measure(self, kind):
        """All cells of a model. Raises TimeIsUpError where there is no time for the next."""
        for cell in self._cells:
            if cell.model == kind:
                row = self._cell(cell)
                if cell == INSTEAD_OF and not row.get("batch"):
                    self._cell(WHOLE_INSTEAD)

    def remove(self, kind):
        """Remove the model, once another that has files of it has its own links to them. Raises TimeIsUpError."""
        if not (self._bench.models / kind).exists():
            return
        for other, source in SHARES_WITH.items():
            if source == kind and other in self._kinds and self._is_missing(other):
                self._make(other)
        shutil.rmtree(self._bench.models / kind)
        shutil.rmtree(self._bench.cache(kind), ignore_errors=True)

    def rows(self):
        """The rows that there are, by cell."""
        found = {cell: self._rows.known(self._key(cell)) for cell in (*CELLS, WHOLE_INSTEAD)}
        return {cell: rows[0] for cell, rows in found.items() if rows}

    def _is_missing(self, kind):
        return any(cell.model == kind and not self._rows.known(self._key(cell)) for cell in self._cells)

    def _cell(self, cell):
        return self._rows.get(self._key(cell), lambda: self._measured(cell))[0]

    def _measured(self, cell):
        self._make(cell.model)
        self._needs(cell.expected_s)
        print(f"{time.strftime('%H:%M:%S')} {cell}", flush=True)
        return [self._bench.measure(cell)]

    def _key(self, cell):
        return cell.key | {"edge": self._bench.edge}

    def _make(self, kind):
        folder = self._bench.models / kind
        if (folder / "model_index.json").exists():
            return
        self._needs(MAKE_S[kind])
        shutil.rmtree(folder, ignore_errors=True)  # what was cut off
        start = time.monotonic()
        shrink = None if self._bench.ballast else SHRINK[kind]
        make(kind, folder, shrink=shrink, share=self._bench.models / SHARES_WITH.get(kind, "none"))
        if kind == "sdxl":
            make_lora(lora_of(folder), shrink)
        print(f"{kind}: made in {time.monotonic() - start:.1f} s", flush=True)

    def _needs(self, seconds):
        if time.monotonic() + seconds > self._bench.end_s:
            raise TimeIsUpError


def bars(record, rows):
    """The goals, as far as their rows are there."""
    by = {(cell.model, cell.free_gib, cell.lora, cell.host_gib): row for cell, row in rows.items() if not cell.anchor}
    for kind in KINDS:
        if (row := by.get((kind, 24, False, None))) is not None:
            record.bar(f"{kind} in 24 GiB: images of a last batch", row.get("last", {}).get("images", 0), at_least=32)
    whole, little = by.get(("flux_dev", None, False, None)), by.get(("flux_dev", 12, False, None))
    if whole and little:
        share = little.get("rate", 0) / whole["rate"] if whole.get("rate") else 0
        record.bar("flux_dev in 12 GiB: rate over that of the whole card", round(share, 3), at_least=STREAMED_SHARE)
    for name in (("z_image", 8, False, None), ("flux_dev", 8, False, None), ("flux_dev", 8, False, 32)):
        if name in by:
            beside = f", {name[3]} GiB of the host's" if name[3] else ""
            what = f"{name[0]} in 8 GiB{beside}: made, or refused in one line"
            record.bar(what, int(_is_fair(by[name])), at_least=1)
    plain, merged = by.get(("sdxl", None, False, None)), by.get(("sdxl", None, True, None))
    if plain and merged and plain.get("rate"):
        for of in ("rate", "images_per_s"):
            share = merged.get(of, 0) / plain[of]
            record.bar(f"sdxl with a LoRA: {of} over that without", round(share, 3), at_least=LORA_SHARE)
    _bars_of_all(record, by.values())
    _beside(record, rows)


def _is_fair(row):
    return row["code"] == 0 or (row["code"] == EXIT_USER and len(row["said"].splitlines()) == 1)


def _bars_of_all(record, rows):
    crashed = sum(not _is_fair(row) for row in rows)
    record.bar("cells that crashed, were cut off or said more than a line", crashed, below=1)
    peaks = [peak for row in rows for peak in row.get("peaks", ()) if None not in peak]
    if peaks:
        off = max(abs(predicted / measured - 1) for predicted, measured in peaks)
        record.bar("predicted peaks: the farthest from what was measured, share", round(off, 3), below=WITHIN)
    record.bar("times that memory was refused", sum(row.get("ooms", 0) for row in rows))
    record.bar("images that failed", sum(row.get("failed", 0) for row in rows), below=1)


def _beside(record, rows):
    """What plain diffusers makes, beside the same cell of the command."""
    for cell, row in rows.items():
        if cell.anchor:
            own = next((own for one, own in rows.items() if _same_place(one, cell) and own.get("rate")), None)
            free = "the whole card" if cell.free_gib is None else f"{cell.free_gib} GiB"
            rate = round(row.get("rate", 0), 2)
            said = f"{cell.model} in {free}: diffusers' {cell.anchor} offload, batch {row.get('batch')}: rate"
            record.bar(said, rate)
            if own and rate:
                record.bar(f"{cell.model} in {free}: rate over diffusers' {cell.anchor}", round(own["rate"] / rate, 2))


def _same_place(one, cell):
    return (one.model, one.free_gib) == (cell.model, cell.free_gib) and not (one.anchor or one.lora or one.host_gib)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--no-anchors", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    end_s = time.monotonic() + options.seconds
    gpu = gpu_name() or device()
    path = options.rows or (options.models if options.small else RESULTS) / "families.rows.jsonl"
    for folder in (path.parent, options.models):
        folder.mkdir(parents=True, exist_ok=True)
    record = Record("families", gpu)
    with nullcontext() if options.small else Ballast() as ballast:
        edge, batch = (SMALL_EDGE, SMALL_BATCH) if options.small else (1024, BATCH)
        bench = Bench(options.models.resolve(), ballast, end_s, edge, batch)
        families = Families(Rows(path, gpu), bench, options.only, not options.no_anchors)
        try:
            for kind in options.only:
                families.measure(kind)
                if not options.keep:
                    families.remove(kind)
        except TimeIsUpError:
            print("time is up: the same command goes on", flush=True)
    rows = families.rows()
    for row in rows.values():
        record.add(**row)
    bars(record, rows)
    if options.small:
        record.show()
    else:
        record.write()


if __name__ == "__main__":
    main()
