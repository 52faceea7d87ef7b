"""What needs torch is asked of a process of its own: a request on its input, an answer on its output, as JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from batchgen.errors import BatchgenError, ModelError
from batchgen.files import to_json


def ask(command: Sequence[str], request: Any, failed: str) -> dict[str, Any]:
    """What the process answers. Raises ModelError for a problem that it names.

    Where it ends without an answer, BatchgenError says `failed` and its last words.
    """
    done = subprocess.run(command, input=to_json(request), capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BatchgenError(f"{failed}: {last}") from error
    if "problem" in answer:
        raise ModelError(answer["problem"])
    return answer


def answer(act: Callable[[Any], dict[str, Any]]) -> int:
    """Be that process: answer with what `act` makes of the request, or name the problem where it raises ModelError."""
    request = json.loads(sys.stdin.read())
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    try:
        found = act(request)
    except ModelError as error:
        found = {"problem": str(error)}
    with open(answers, "w") as file:
        file.write(json.dumps(found))
    return 0
