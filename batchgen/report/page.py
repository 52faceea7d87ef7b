"""The page of a report: one HTML file without network."""

import html
from typing import Any


def render(report: dict[str, Any]) -> str:
    """The page as text. Texts of prompts and columns are escaped."""
    run, samples = report["run"], report["samples"]
    shown = "".join(
        f'<figure><img src="{one["thumb"]}" alt=""><figcaption>{html.escape(one["prompt"])}</figcaption></figure>'
        for one in samples["items"]
        if one["thumb"]
    )
    title = html.escape(f"{run['name']}: {run['state']}")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}<body><h1>{title}</h1>{shown}</body></html>\n"
