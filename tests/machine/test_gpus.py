"""The machine's GPUs, as nvidia-smi tells of them, and what a worker and the front door make of it."""

import os
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import DeviceError
from batchgen.machine import gpus
from batchgen.machine.gpus import Gpu, check_reached, find_gpus
from tests.builders import plan_run
from tests.commands import front, verify, write_prompts

GIB = 1 << 30
TWO = ("0, GPU-aaa1, Card 6, 24000, 8.6, [N/A]", "1, GPU-bbb2, Card 6, 300, 8.6, [N/A]")


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts an nvidia-smi there which prints these lines; it may be a script of its own."""

    def put(*lines: str, script: str = "") -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n" + script + "".join(f"echo '{line}'\n" for line in lines))
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return put


def test_every_gpu_is_named_by_its_uuid_and_has_its_own_facts(cards: Any) -> None:
    cards(*TWO)
    assert find_gpus() == [
        Gpu("GPU-aaa1", "Card 6", 24000 << 20, (8, 6)),
        Gpu("GPU-bbb2", "Card 6", 300 << 20, (8, 6)),
    ]


@pytest.mark.parametrize(
    ("visible", "names", "free_mib"),
    [
        ("", [], []),
        ("-1", [], []),
        ("1", ["1"], [300]),
        ("GPU-bbb2,GPU-aaa", ["GPU-bbb2", "GPU-aaa"], [300, 24000]),
        ("0,-1,1", ["0"], [24000]),  # CUDA reads no further
        ("MIG-1/2/3", ["MIG-1/2/3"], [None]),
        ("7", ["7"], [None]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    cards: Any, monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str], free_mib: list[int | None]
) -> None:
    cards(*TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpus()
    assert [gpu.device for gpu in found] == names
    assert [None if gpu.free_bytes is None else gpu.free_bytes >> 20 for gpu in found] == free_mib


def test_numbers_of_unlike_gpus_mean_something_only_in_the_order_of_the_bus(
    cards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(TWO[0], "1, GPU-bbb2, Card 7, 300, 8.6, Disabled")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert find_gpus() == [Gpu("1")]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert find_gpus()[0].kind == "Card 7"


def test_an_old_driver_one_without_words_and_one_that_hangs(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cards("0, GPU-aaa1, Card 6, [N/A]", script='case "$*" in *compute_cap*) exit 2;; esac\n')
    assert find_gpus() == [Gpu("GPU-aaa1", "Card 6", None, (7, 0))]
    cards("0, GPU-aaa1, Card 6, 100, 8.6", script='case "$*" in *mig.mode*) exit 2;; esac\n')
    assert find_gpus() == [Gpu("GPU-aaa1", "Card 6", 100 << 20, (8, 6))]
    for code in (6, 9, 12):
        cards(script=f"exit {code}\n")
        assert find_gpus() == []
    cards(TWO[1], "Unable to determine the device handle for GPU0: GPU is lost", script="trap 'exit 15' EXIT\n")
    assert [gpu.device for gpu in find_gpus()] == ["GPU-bbb2"]
    cards("Failed to initialize NVML: Driver/library version mismatch", script="trap 'exit 18' EXIT\n")
    with pytest.raises(DeviceError, match="nvidia-smi failed, .* version mismatch"):
        find_gpus()
    monkeypatch.setattr(gpus, "_LIMIT_S", 0.2)
    cards(script="exec sleep 20\n")
    with pytest.raises(DeviceError, match=r"nvidia-smi did not answer within 0\.2 s"):
        find_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert find_gpus() == [Gpu("0"), Gpu("1")]


SLICED = """case "$*" in -L)
echo 'GPU 0: Card 6 (UUID: GPU-aaa1)'
echo 'GPU 1: Card 6 (UUID: GPU-bbb2)'
echo '  MIG 3g.20gb     Device  0: (UUID: MIG-c1)'
echo '  MIG 1g.5gb      Device  1: (UUID: MIG-c2)'
exit;; esac
"""


def test_a_card_that_is_cut_into_slices_stands_as_its_slices(cards: Any) -> None:
    cards(TWO[0], "1, GPU-bbb2, Card 6, 300, 9.0, Enabled", script=SLICED)
    whole, *slices = find_gpus()
    assert whole == Gpu("GPU-aaa1", "Card 6", 24000 << 20, (8, 6))
    assert slices == [Gpu("MIG-c1", None, None, (9, 0)), Gpu("MIG-c2", None, None, (9, 0))]


@pytest.mark.parametrize("name", ["NoDevFiles", "none"])
def test_words_for_no_gpu_mean_the_cpu(cards: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cards(*TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    assert find_gpus() == []


@pytest.mark.parametrize("names", ["cuda:0", "all", "0,gpu1", "1.5"])
def test_a_name_that_cuda_does_not_read_is_refused_because_it_would_mean_the_cpu(
    cards: Any, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    cards(*TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    with pytest.raises(DeviceError, match=f"CUDA_VISIBLE_DEVICES={names}: .* names no GPU: set it to numbers"):
        find_gpus()


def test_without_nvidia_smi_torch_lists_the_gpus_where_a_driver_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '[["aaa1", "Card 6", 1024, [9, 0]], ["bbb2", "Card 6", 2048, [9, 0]]]'
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gpus, "_ELSEWHERE", ())
    monkeypatch.setattr(gpus, "_DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "_BY_TORCH", f"print('{said}')")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_gpus() == [], "there is no driver, so nobody is asked"
    (tmp_path / "nvidia0").touch()
    both = [Gpu("GPU-aaa1", "Card 6", 1024, (9, 0)), Gpu("GPU-bbb2", "Card 6", 2048, (9, 0))]
    assert find_gpus() == both
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(
        gpus, "_BY_TORCH", f"import os; assert 'CUDA_VISIBLE_DEVICES' not in os.environ; print('{said}')"
    )
    assert find_gpus() == [Gpu("1", "Card 6", 2048, (9, 0))]
    monkeypatch.setattr(gpus, "_BY_TORCH", "raise SystemExit('no torch')")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_gpus() == []
    monkeypatch.setattr(gpus, "_BY_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(gpus, "_LIMIT_S", 0.2)
    with pytest.raises(DeviceError, match="torch did not list the GPUs of this machine within 0.2 s"):
        find_gpus()


def test_a_gpu_that_was_given_is_never_replaced_by_the_cpu(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(*TWO)
    check_reached(True, "")
    with pytest.raises(DeviceError, match=r"GPU-aaa1 \(Card 6\), GPU-bbb2 \(Card 6\): no driver\. Fix that"):
        check_reached(False, "no driver")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # on purpose
    check_reached(False, "no driver")


def test_the_worker_refuses_to_load_on_the_cpu_what_a_gpu_was_given_for(cards: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from batchgen.worker.loop import load_engine

    plan = plan_run(tmp_path)
    load_engine(plan)  # a machine without a GPU
    cards(*TWO)
    with pytest.raises(DeviceError, match="torch cannot use the GPU that this worker was given"):
        load_engine(plan)


def test_a_full_first_gpu_refuses_nothing_that_another_can_do(cards: Any, tmp_path: Path) -> None:
    cards(*reversed(TWO))
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    large = ("job.width=512", "job.height=512")
    shown = front(tmp_path / "run", prompts, "dry_run=true", *large)
    assert shown.returncode == 0, shown.stderr
    assert "policy     512x512: resident, micro-batch" in shown.stdout
    assert "cannot     GPU GPU-bbb2: " in shown.stdout
    done = front(tmp_path / "run", prompts, *large)
    assert done.returncode == 0, done.stderr
    assert "GPU GPU-bbb2 cannot do this job: " in done.stderr
    assert verify(tmp_path / "run").returncode == 0


def test_a_job_that_no_gpu_can_do_is_refused_for_the_one_with_the_most_room(cards: Any, tmp_path: Path) -> None:
    cards("0, GPU-aaa1, Card 6, 300, 8.6, [N/A]", "1, GPU-bbb2, Card 6, 750, 8.6, [N/A]")
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    for more in ((), ("dry_run=true",)):
        refused = front(tmp_path / "run", prompts, "job.width=2048", "job.height=2048", *more)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert "only 0.05 GiB are free" in refused.stderr


def test_bf16_is_refused_only_where_no_gpu_has_it(cards: Any, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    cards("0, GPU-aaa1, Card 5, 24000, 7.5, [N/A]", "1, GPU-bbb2, Card 6, 24000, 8.6, [N/A]")
    shown = front(tmp_path / "run", prompts, "dry_run=true", "model.dtype=bf16")
    assert shown.returncode == 0, shown.stderr
    assert "bf16 on cuda" in shown.stdout and "cannot     GPU GPU-aaa1: model.dtype=bf16" in shown.stdout
    cards("0, GPU-aaa1, Card 5, 24000, 7.5, [N/A]")
    assert front(tmp_path / "run", prompts, "dry_run=true", "model.dtype=bf16").returncode == 2
