"""report.html from the report: one file that needs no network, with its styles, scripts, pictures and data.

What a run holds, such as prompts and columns, is data that anybody may have written. It enters the page as JSON that
no script runs, and the page shows it as text only. A content security policy lets nothing run but the scripts of
`assets/`, by their hashes, and nothing be loaded but pictures that are in the file.
"""

import base64
import hashlib
import html
import re
from importlib.resources import files
from typing import Any

from batchgen.files import to_json

_STYLES = ("uPlot.min.css", "page.css")
_CODE = ("format.js", "sheet.js", "charts.js", "page.js")
_ALONE = ("theme.js", "uPlot.iife.min.js")  # scripts of their own
_SLOT = re.compile(r"\{\{([\w.]+)\}\}")
_IN_SCRIPT = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"}


def render(report: dict[str, Any]) -> str:
    """The page of a report; it belongs into a file in UTF-8. docs/report.md tells what is in a report.

    Raises ValueError where the report holds a number that JSON does not have, such as NaN.
    """
    name = html.escape(str(report["run"]["name"])).encode("ascii", "xmlcharrefreplace").decode()
    slots = {
        "style": "\n".join(map(_asset, _STYLES)),
        "code": "\n".join(map(_asset, _CODE)),
        **{script: _asset(script) for script in _ALONE},
    }
    slots |= {
        "policy": _policy([slots["style"]], [slots[script] for script in (*_ALONE, "code")]),
        "name": name,
        "report": to_json(report).translate(_IN_SCRIPT),
    }
    # In one pass: nothing that was put in is looked at again.
    return _SLOT.sub(lambda slot: slots[slot[1]], _asset("page.html"))


def _policy(styles: list[str], scripts: list[str]) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_hashes(styles)}; script-src {_hashes(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _asset(name: str) -> str:
    return files("batchgen.report").joinpath("assets", name).read_text("utf-8")
