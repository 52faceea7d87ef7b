"""Where a bench measures."""

from batchgen.bench import place
from batchgen.machine.gpus import Gpu


def test_the_first_gpu_is_named_and_handed_on(monkeypatch):
    gpus = [Gpu("GPU-1", "NVIDIA A", 1 << 30, (8, 0)), Gpu("GPU-2", "NVIDIA A", 1 << 30, (8, 0))]
    monkeypatch.setattr(place, "find_gpus", lambda: gpus)
    found = place.find_place()
    assert (found.name, found.gpu, found.capability, found.is_gpu) == ("NVIDIA A", "GPU-1", (8, 0), True)
    assert found.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(place, "find_gpus", lambda: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = place.find_place()
    assert not found.is_gpu and found.name == place.cpu_name() and found.name.endswith("cores")
    assert found.environment()["CUDA_VISIBLE_DEVICES"] == ""
