"""What a worker does that is started before there is a plan."""

import json
import os
import subprocess
import sys

from batchgen.machine.host import Room, as_told
from tests.commands import ROOT, run

ORDER = json.dumps({"world": 3, "told": as_told(Room(7, 5, workers=2))})
STANDS = """
import os, sys
from batchgen.worker.standby import stand_by

def prepare():
    print("printed by a library", flush=True)
    os.write(2, b"and by C\\n")
    {more}

told = stand_by(prepare)
print(told.world, told.printed.decode().split("\\n"), os.environ["BATCHGEN_WORKERS_HERE"], os.read(0, 9))
"""


def standing(more="pass"):
    return subprocess.Popen(
        [sys.executable, "-c", STANDS.format(more=more)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def test_it_gets_ready_and_goes_on_when_it_is_told():
    said, errors = standing().communicate(f"{ORDER}\nrest\n", timeout=60)
    assert (said, errors) == ("3 ['printed by a library', 'and by C', ''] 2 b'rest\\n'\n", "")


def test_what_fails_while_it_gets_ready_is_left_to_the_worker_to_say():
    said, errors = standing("raise ImportError('torch')").communicate(f"{ORDER}\n", timeout=60)
    assert said.startswith("3 ") and errors == ""


def test_it_ends_at_once_when_whoever_started_it_is_gone_also_while_it_gets_ready():
    process = standing("import time; time.sleep(600)")
    said, _ = process.communicate("", timeout=60)
    assert (said, process.returncode) == ("", 75)


# Whatever asks torch for a GPU before the worker has been told which one is its own would fix that for good.
IMPORTS = """
import json, sys
import torch
asked = []
for name in ("is_available", "device_count", "_lazy_init", "current_device", "get_device_properties"):
    def noted(*given, _real=getattr(torch.cuda, name), _name=name, **more):
        asked.append(_name)
        return _real(*given, **more)
    setattr(torch.cuda, name, noted)
from batchgen.worker import standby
standby.leave_out_unused()
standby.try_cuda = lambda: None
standby.get_ready("diffusers.StableDiffusionPipeline,transformers.CLIPTextModel")
known = [name for name in ("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "peft")
         if sys.modules.get(name)]
import gc
print(json.dumps([asked, known, gc.isenabled()]))
"""


def test_the_classes_are_imported_without_asking_for_a_gpu_and_without_what_is_not_used():
    done = run([sys.executable, "-c", IMPORTS])
    assert done.returncode == 0, done.stderr
    asked, known, collects = json.loads(done.stdout)
    assert asked == []
    assert known == ["diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"]
    assert collects


def test_what_is_left_out_stays_where_it_is_imported_already():
    code = "import batchgen.worker.standby as one, sys; sys.modules['peft'] = sys; one.leave_out_unused(); import peft"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0
