"""The figures of a run as a file for Prometheus: its own parser reads them. A file that cannot be written is told."""

from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from batchgen.launch.metrics import Metrics, metrics_text
from batchgen.shards.glance import glance
from batchgen.shards.progress import read_progress
from tests.builders import leave_attempt, plan_run


def figures(text):
    """{name: value}, and the labels, by the parser of Prometheus."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = {tuple(sorted(sample.labels.items())) for sample in samples}
    return {sample.name: sample.value for sample in samples}, [dict(one) for one in labels]


def test_the_figures_are_those_of_the_run(tmp_path):
    plan = plan_run(tmp_path, [f"prompt {place}" for place in range(8)])
    leave_attempt(plan, 1)
    progress = replace(read_progress(plan), images_per_s=0.5, eta_s=12.25)
    found, labels = figures(metrics_text(plan, progress, glance(plan)))
    assert found["batchgen_images_planned"] == 8
    assert found["batchgen_images_made"] == progress.images > 0
    assert (found["batchgen_images_per_second"], found["batchgen_eta_seconds"]) == (0.5, 12.25)
    assert found["batchgen_shards_broken"] == 0
    assert labels == [{"job": plan.config.job.name, "run_dir": str(plan.run.root)}]


def test_what_is_not_known_is_left_out(tmp_path):
    plan = plan_run(tmp_path, ["a prompt"])
    found, _ = figures(metrics_text(plan, read_progress(plan), glance(plan)))
    assert "batchgen_eta_seconds" not in found
    assert found["batchgen_images_made"] == 0


def test_names_with_any_characters_are_labels(tmp_path):
    (tmp_path / 'a "b" \\ c').mkdir()
    plan = plan_run(tmp_path / 'a "b" \\ c', ["a prompt"])
    _, labels = figures(metrics_text(plan, read_progress(plan), glance(plan)))
    assert [one["run_dir"] for one in labels] == [str(plan.run.root)]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    plan = plan_run(tmp_path, ["a prompt"])
    (tmp_path / "file").write_text("")
    said = Metrics(plan, tmp_path / "file" / "figures.prom").write(read_progress(plan))
    assert said is not None and said.startswith(
        f"launch.metrics={tmp_path / 'file' / 'figures.prom'} cannot be written"
    )
    assert Metrics(plan, tmp_path / "new" / "figures.prom").write(read_progress(plan)) is None
    assert [path.name for path in Path(tmp_path / "new").iterdir()] == ["figures.prom"]
