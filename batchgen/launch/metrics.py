"""How far a run is, as a text file of Prometheus: the textfile collector of node_exporter, for one, reads such files.

The form is https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from collections.abc import Iterator
from pathlib import Path

from batchgen.errors import in_one_line
from batchgen.files import replace
from batchgen.plan.store import Plan
from batchgen.shards.glance import Glance, glance
from batchgen.shards.progress import Progress

EVERY_S = 15.0


class Metrics:
    """Writes the figures of a run to a file that other programs read. It never raises: the work goes on without it."""

    def __init__(self, plan: Plan, path: Path) -> None:
        self._plan, self._path = plan, path
        self._glance: Glance | None = None

    def write(self, progress: Progress) -> str | None:
        """Replace the file as a whole. Returns why that was not possible, in one line, or None."""
        try:
            self._glance = glance(self._plan, self._glance)
            text = metrics_text(self._plan, progress, self._glance)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace(self._path, text.encode())
        except Exception as error:  # a disk that is full, a run that is damaged: others say so
            return f"launch.metrics={self._path} cannot be written: {in_one_line(error)}"
        return None


def metrics_text(plan: Plan, progress: Progress, seen: Glance) -> str:
    """The figures, in Prometheus' text format. One that is not known is left out."""
    labels = f'{{job="{_escaped(plan.config.job.name)}",run_dir="{_escaped(str(plan.run.root))}"}}'
    lines = []
    for name, help_text, value in _figures(progress, seen):
        if value is not None:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", f"{name}{labels} {value!r}"]
    return "\n".join(lines) + "\n"


def _figures(progress: Progress, seen: Glance) -> Iterator[tuple[str, str, float | None]]:
    yield "batchgen_images_planned", "Images that the run makes.", progress.planned_images
    yield "batchgen_images_made", "Images that are on the disk or denoised, failed ones included.", progress.images
    yield "batchgen_images_failed", "Images that failed, in the shards that are finished.", seen.failed_images
    yield "batchgen_shards_planned", "Shards that the run has.", progress.planned_shards
    yield "batchgen_shards_finished", "Shards that are finished.", progress.shards
    yield "batchgen_shards_broken", "Finished shards that came to harm.", len(seen.states.broken)
    yield "batchgen_workers_working", "Workers that hold a live lease.", progress.workers
    yield "batchgen_workers_starting", "Workers that have not begun with an image.", len(progress.starting)
    yield "batchgen_images_per_second", "Images that all workers made in a second of late.", progress.images_per_s
    yield "batchgen_eta_seconds", "Seconds until all images are made.", progress.eta_s
    yield "batchgen_peak_memory_bytes", "The peak of device memory of recent batches.", progress.peak_bytes


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
