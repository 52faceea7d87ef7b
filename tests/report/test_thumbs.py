"""Small pictures: never larger than asked for, all within the bound, and none where there is no image."""

import base64
import io
import random

from PIL import Image

from batchgen.report.listing import Listed, listed
from batchgen.report.thumbs import data_url, thumbnail, thumbnails
from tests.builders import finish_run, make_prompt, plan_run


def stored(tmp_path, images):
    """The images in one file, as if it were a tar."""
    path, found = tmp_path / "images.tar", []
    with path.open("wb") as file:
        for data in images:
            found.append(Listed(make_prompt(), 0, "ok", None, "a.png", "", path, file.tell(), len(data)))
            file.write(data)
    return found


def picture(width, height, seed=0, kind="PNG", mode="RGB"):
    data = random.Random(seed).randbytes(width * height * len(mode))
    file = io.BytesIO()
    Image.frombytes(mode, (width, height), data).save(file, kind)
    return file.getvalue()


def test_a_picture_is_a_small_webp_of_the_same_shape(tmp_path):
    for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("PNG", "RGBA"), ("PNG", "L")):
        (one,) = stored(tmp_path, [picture(1000, 500, kind=kind, mode=mode)])
        thumb = thumbnail(one, 320, 80)
        assert thumb is not None
        with Image.open(io.BytesIO(thumb)) as image:
            assert (image.format, image.size) == ("WEBP", (320, 160))


def test_a_small_image_is_not_made_larger(tmp_path):
    plan = plan_run(tmp_path)
    finish_run(plan)
    (thumb,) = thumbnails(list(listed(plan)))
    assert thumb is not None
    with Image.open(io.BytesIO(thumb)) as image:
        assert image.size == (64, 64)
    url = data_url(thumb)
    assert url is not None and base64.b64decode(url.removeprefix("data:image/webp;base64,")) == thumb


def test_without_an_image_there_is_no_picture(tmp_path):
    whole = picture(64, 64)
    (torn,) = stored(tmp_path, [whole[: len(whole) // 2]])
    failed = Listed(make_prompt(), 0, "failed", "black", "a.png")
    gone = Listed(make_prompt(), 0, "ok", None, "a.png", "", tmp_path / "gone.tar", 0, 9)
    assert thumbnails([torn, failed, gone]) == [None, None, None]
    assert thumbnails([]) == []
    assert data_url(None) is None


def test_all_pictures_stay_within_the_bound_whatever_they_hold(tmp_path):
    images = stored(tmp_path, [picture(400, 400, seed) for seed in range(40)])
    free = sum(len(one or b"") for one in thumbnails(images))
    for budget in (free // 2, free // 20, free // 200):
        found = thumbnails(images, budget)
        assert sum(len(one or b"") for one in found) <= budget
        assert [one for one in found if one]
    assert all(thumbnails(images, free // 20))


def test_the_bound_holds_where_a_trial_misleads(tmp_path):
    # Of every fourth image the trial sees the first, which is plain.
    plain = io.BytesIO()
    Image.new("RGB", (400, 400)).save(plain, "PNG")
    noise = picture(400, 400)
    images = stored(tmp_path, [plain.getvalue() if place % 4 == 0 else noise for place in range(96)])
    found = thumbnails(images, 500_000)
    assert all(found)
    assert sum(len(one or b"") for one in found) <= 500_000
