"""A made-up report in the form that `batchgen.report` writes, of any length, and with texts that would do harm."""

import base64
import io
import math
import random

from PIL import Image

ALARM = "window.harmed = true"
# What a prompt, a column or a name may hold: each would run or break the page where it is taken for markup.
HOSTILE = (
    f"<script>{ALARM}</script>",
    f"</script><script>{ALARM}</script>",
    f'"><img src=x onerror="{ALARM}">',
    f"<!--<script>{ALARM}//",
    f"{{{{report}}}} ${{{ALARM}}} </textarea></title></style><svg onload='{ALARM}'>",
    "\u202egnp.exe \u2028 \u2029 \x07 & &lt; \U0001f600 '\"\\",
)
NOUNS = ("rover", "horse", "astronaut", "dome", "crater", "cat", "lighthouse", "tram")
WAYS = ("at dusk, 35 mm film", "in thick fog", "seen from above, long shadows", "as a woodcut", "in pale morning light")


def thumb(place, width=256, height=256):
    """A picture as the report embeds it."""
    chosen = random.Random(place)
    low, high = ([chosen.randrange(30, 230) for _ in range(3)] for _ in range(2))
    image = Image.new("RGB", (2, 2))
    image.putdata([tuple(low), tuple(high), tuple(reversed(high)), tuple(reversed(low))])
    out = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(out, "webp", quality=60)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def item(place, run_dir="outputs/mars_batch", **fields):
    """A sample of the report."""
    chosen = random.Random(1000 + place)
    key = f"000{place:09d}-00"
    is_failed = place % 17 == 5
    shape = ((256, 256), (256, 192), (192, 256))[place % 7 // 3]
    return {
        "key": key,
        "prompt": f"a {chosen.choice(NOUNS)} on mars, {chosen.choice(WAYS)}, take {place}",
        "negative_prompt": "blurry, low quality" if place % 3 else "",
        "seed": chosen.randrange(1 << 32),
        "width": shape[0] * 4,
        "height": shape[1] * 4,
        "steps": 20 if place % 2 else 30,
        "guidance": 7.5,
        "status": "failed" if is_failed else "ok",
        "reason": "the image is black" if is_failed else None,
        "shard": f"{place // 100:06d}.tar",
        "member": f"{key}.png",
        "extract": f"batchgen export {run_dir} {key} to=exported",
        "columns": {"artist": f"artist {place % 5}", "caption_id": str(place * 31)},
        "thumb": None if is_failed else thumb(place, *shape),
    } | fields


def series(worker, points, peak_gib=9.4):
    """How one worker went."""
    chosen = random.Random(worker)
    return {
        "worker": worker,
        "memory": "device",
        "t_s": [place * 60.0 for place in range(points)],
        "images_per_s": [round(2.6 + 0.3 * math.sin(place / 9) + chosen.random() / 6, 3) for place in range(points)],
        "peak_bytes": [int((peak_gib - chosen.random() / 3) * 2**30) for _ in range(points)],
        "predicted_bytes": [int((peak_gib + 0.35) * 2**30)] * points,
        "device_used_bytes": [int((peak_gib + 1.9) * 2**30)] * points,
    }


def report(images=40, workers=2, points=120, of=10_000, **changes):
    """A report of a finished run of `of` images, `images` of which it shows."""
    items = [item(place) for place in range(images)]
    failed = [one for one in items if one["status"] == "failed"]
    names = [f"node{place // 4 + 1}-gpu{place % 4}" for place in range(workers)]
    return {
        "version": 1,
        "made_at": "2026-11-27T06:12:33+00:00",
        "batchgen": "0.9.0",
        "run": {
            "name": "mars_batch",
            "dir": "outputs/mars_batch",
            "id": "3f6c1a9e2b",
            "state": "done",
            "problems": [],
            "began_at": "2026-11-26T22:04:10+00:00",
            "ended_at": "2026-11-27T06:12:20+00:00",
            "jobs": [],
        },
        "totals": {
            "planned": of,
            "ok": of - 12,
            "failed": 12,
            "filtered": 0,
            "open": 0,
            "shards": 313,
            "shards_done": 313,
            "bytes": 14_873_214_976,
            "wall_s": 29290.0,
            "device_s": 29290.0 * workers,
            "images_per_s": 2.71,
            "ooms": 2,
            "retries": 3,
            "gpu_hours": 16.3,
            "cost": 40.75,
            "workers": workers,
        },
        "workers": [
            {
                "id": name,
                "host": name.partition("-")[0],
                "device": "NVIDIA A100 80GB",
                "images": of // workers,
                "busy_s": 28000.0,
                "images_per_s": 1.36,
                "state": "ended",
            }
            for name in names
        ],
        "series": [series(place, points) | {"worker": name} for place, name in enumerate(names)],
        "series_of": workers,
        "stages": {"encode": 410.2, "denoise": 51022.4, "decode": 4033.9, "write": 2210.0},
        "waits": {"loading the model": 212.0, "choosing a policy": 95.4, "image files and the disk": 1480.2},
        "policies": [
            {
                "at": "2026-11-26T22:05:40+00:00",
                "worker": names[0],
                "size": "1024x1024",
                "policy": {"micro_batch": 8, "decode_chunk": 2, "placement": "resident", "dtype": "bf16"},
                "why": "the fastest of those that fit into 9.8 GiB",
                "count": workers,
            }
        ],
        "events": [
            {
                "at": "2026-11-27T01:20:07+00:00",
                "worker": names[-1],
                "what": "out of memory",
                "text": "denoise of 8 rows; done again in halves",
                "count": 2,
            }
        ],
        "failures": {
            "count": 12,
            "reasons": [{"reason": "the image is black", "count": 11}, {"reason": "not finite", "count": 1}],
            "shown": [{name: one[name] for name in ("key", "prompt", "reason", "shard")} for one in failed],
        },
        "rejects": {
            "count": 3,
            "reasons": [{"reason": "width is not a multiple of 8", "count": 3}],
            "shown": [
                {"file": "prompts/mars.csv", "line": line, "reason": "width is not a multiple of 8"}
                for line in (17, 209, 4410)
            ],
        },
        "settings": {
            "job.name": "mars_batch",
            "job.batch_size": 32,
            "job.prompts": ["prompts/mars.csv"],
            "output.format": "png",
            "output.copy_to": None,
        },
        "versions": {"batchgen": "0.9.0", "torch": "2.13.0", "diffusers": "0.42.1"},
        "model": {"path": "stable-diffusion-v1-5/stable-diffusion-v1-5", "dtype": "bf16", "scheduler": "unipc"},
        "samples": {"of": of, "shown": len(items), "columns": ["artist", "caption_id"], "items": items},
    } | changes


def hostile():
    """A report whose every text is hostile."""
    found = report(images=len(HOSTILE) * 2, of=len(HOSTILE) * 2)
    for place, one in enumerate(found["samples"]["items"]):
        text = HOSTILE[place % len(HOSTILE)]
        one |= dict.fromkeys(("key", "prompt", "negative_prompt", "reason", "shard", "member", "extract"), text)
        one["columns"] = {text: text, "__proto__": text, "artist": text}
    found["samples"]["columns"] = [*HOSTILE, "__proto__", "constructor", "artist"]
    text = HOSTILE[1] + HOSTILE[2]
    found["run"] |= {"name": text, "dir": text, "problems": list(HOSTILE), "began_at": text}
    found["settings"] = {text: text, "job.prompts": list(HOSTILE)}
    found |= {"versions": {text: text}, "model": {"path": text}, "waits": {text: 3.0}, "stages": {text: 2.0}}
    for name in ("workers", "series", "policies", "events"):
        found[name] = [
            {key: text if isinstance(value, str) else value for key, value in one.items()} for one in found[name]
        ]
    shown = {"key": text, "prompt": text, "reason": text, "shard": text, "file": text, "line": 1}
    for name in ("failures", "rejects"):
        found[name] = {"count": 1, "reasons": [{"reason": text, "count": 1}], "shown": [shown]}
    return found
