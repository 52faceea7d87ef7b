"""Prompt files as real programs write them: each is read, or refused in a line that was followed and then read.

pandas, pyarrow, openpyxl and `datasets` write theirs here. Of jq, sqlite and PowerShell the output is kept; where jq
and sqlite3 are installed it is compared with what they write.
"""

import codecs
import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batchgen.types import Columns, Row
from tests.commands import front, samples, verify
from tests.prompts.reading import error_of, prompts, read, rejects, rows, write

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
openpyxl = pytest.importorskip("openpyxl")
datasets = pytest.importorskip("datasets")

TEXTS = ["a red car, parked", 'a "small" café', "日本 🦊"]
FRAME = {
    "prompt": TEXTS,
    "Negative Prompt": ["blurry", None, None],
    "seed": [1, None, 3],
    "CFG Scale": [7.5, None, 3],
    "sampler": ["ddim", "ddim", None],
}


def check_frame(path: Path, **settings: Any) -> list[Row]:
    """The rows of FRAME, whatever wrote it."""
    items = read(path, **settings)
    assert rejects(items) == []
    good = rows(items)
    assert [row.prompt for row in good] == TEXTS
    assert [row.negative_prompt for row in good] == ["blurry", None, None]
    assert [row.seed for row in good] == [1, None, 3]
    assert [row.guidance for row in good] == [7.5, None, 3.0]
    assert good[0].extra["sampler"] == "ddim"
    json.dumps([row.extra for row in good], allow_nan=False)
    return good


@pytest.mark.parametrize("index", [True, False])
def test_pandas_csv(tmp_path: Path, index: bool) -> None:
    pd.DataFrame(FRAME).to_csv(tmp_path / "p.csv", index=index)
    assert "1.0" in (tmp_path / "p.csv").read_text()
    good = check_frame(tmp_path / "p.csv")
    assert set(good[0].extra) == {"sampler"}


def test_pandas_csv_as_excel_in_german_has_it(tmp_path: Path) -> None:
    pd.DataFrame(FRAME).to_csv(tmp_path / "p.csv", sep=";", decimal=",", encoding="utf-8-sig", index=False)
    assert "7,5" in (tmp_path / "p.csv").read_text("utf-8-sig")
    check_frame(tmp_path / "p.csv")


@pytest.mark.parametrize("name", ["p.csv.gz", "p.csv"])
def test_pandas_packed(tmp_path: Path, name: str) -> None:
    pd.DataFrame(FRAME).to_csv(tmp_path / name, compression="gzip")
    check_frame(tmp_path / name)


@pytest.mark.parametrize("compression", ["zip", "bz2", "xz"])
def test_pandas_packed_otherwise_is_refused_and_runs_unpacked(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "p.csv"
    pd.DataFrame(FRAME).to_csv(path, compression=compression)
    error_of(lambda: read(path), "unpack it")
    pd.read_csv(path, compression=compression).to_csv(path)
    check_frame(path)


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
@pytest.mark.parametrize(("lines", "indent"), [(True, None), (False, None), (False, 2)])
def test_pandas_json(tmp_path: Path, name: str, lines: bool, indent: int | None) -> None:
    pd.DataFrame(FRAME).to_json(tmp_path / name, orient="records", lines=lines, indent=indent)
    check_frame(tmp_path / name)


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table"])
def test_pandas_json_of_other_orients_is_refused_and_runs_as_records(tmp_path: Path, orient: str) -> None:
    path = tmp_path / "p.json"
    pd.DataFrame(FRAME).to_json(path, orient=orient)
    message = error_of(lambda: read(path), "pandas: to_json(orient='records', lines=True)")
    assert str(path) in message
    pd.DataFrame(FRAME).to_json(path, orient="records", lines=True)
    check_frame(path)


@pytest.mark.parametrize("nullable", [True, False])
def test_pandas_parquet(tmp_path: Path, nullable: bool) -> None:
    frame = pd.DataFrame(FRAME)
    frame = frame.astype({"seed": "Int64", "prompt": "string"}) if nullable else frame
    frame.to_parquet(tmp_path / "p.parquet")
    check_frame(tmp_path / "p.parquet")


def test_pyarrow_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(TEXTS, pa.large_string()),
            "Negative": pa.array(["blurry", "blurry", "dark"]).dictionary_encode(),
            "seed": pa.array([2**63, 5, None], pa.uint64()),
            "steps": pa.array([20, 30, None], pa.int8()),
            "cfg": pa.array([7.5, float("nan"), 3], pa.float32()),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    good = rows(read(tmp_path / "p.parquet"))
    assert [row.prompt for row in good] == TEXTS
    assert [row.negative_prompt for row in good] == ["blurry", "blurry", "dark"]
    assert [(row.seed, row.steps, row.guidance) for row in good] == [(0, 20, 7.5), (5, 30, None), (None, None, 3.0)]
    assert [row.extra for row in good] == [{"tags": ["a"], "seed": 2**63}, {"tags": []}, {"tags": None}]


@pytest.mark.parametrize("large", [True, False])
def test_pyarrow_lists_of_captions(tmp_path: Path, large: bool) -> None:
    captions = pa.array([TEXTS[:2], TEXTS[2:], []], (pa.large_list if large else pa.list_)(pa.string()))
    pq.write_table(pa.table({"caption": captions, "img_id": [1, 2, 3]}), tmp_path / "p.parquet")
    items = read(tmp_path / "p.parquet")
    assert prompts(items) == [*TEXTS, None]
    assert rejects(items)[0].reason == "empty prompt: a list without captions"
    assert [(row.row, row.caption, row.extra) for row in rows(items)] == [
        (0, 0, {"img_id": 1}), (0, 1, {"img_id": 1}), (1, 0, {"img_id": 2}),
    ]  # fmt: skip


def test_an_excel_file_is_refused_and_its_csv_runs(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(list(FRAME))
    for values in zip(*FRAME.values(), strict=True):
        book.active.append(values)
    book.active.append([None, None, None, None, " "])
    book.save(tmp_path / "p.xlsx")
    error_of(lambda: read(tmp_path / "p.xlsx"), "a spreadsheet cannot be read", "CSV UTF-8")
    shutil.copy(tmp_path / "p.xlsx", tmp_path / "p.csv")
    error_of(lambda: read(tmp_path / "p.csv"), "a spreadsheet (xlsx, ods)", "CSV UTF-8")
    with (tmp_path / "p.csv").open("w", newline="", encoding="utf-8-sig") as file:
        sheet = openpyxl.load_workbook(tmp_path / "p.xlsx").active
        csv.writer(file, delimiter=";").writerows(sheet.iter_rows(values_only=True))
    assert (tmp_path / "p.csv").read_bytes().endswith(b";;;; \r\n"), "a row without anything in it"
    check_frame(tmp_path / "p.csv")


# What Excel writes as 'CSV (Trennzeichen-getrennt)': cp1252, no mark; after some rows it leaves empty cells out
EXCEL = "Prompt;Negative Prompt;Seed;Steps\r\na red car;blurry;5;20\r\nun café;;6\r\na cat\r\n;;;\r\n"


def test_excel_csv_with_semicolons(tmp_path: Path) -> None:
    for data in (EXCEL.encode("utf-8-sig"), b"sep=;\r\n" + EXCEL.encode(), EXCEL.encode("utf-16")):
        good = rows(read(write(tmp_path / "p.csv", data)))
        assert [(row.prompt, row.seed, row.steps) for row in good] == [
            ("a red car", 5, 20), ("un café", 6, None), ("a cat", None, None),
        ]  # fmt: skip


def test_excel_csv_of_windows_loses_no_row_once_its_encoding_is_set(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", EXCEL.encode("cp1252"))
    (bad,) = rejects(read(path))
    assert bad.reason == "not valid utf-8: byte 0xe9"
    assert prompts(read(path, encoding="cp1252")) == ["a red car", "un café", "a cat"]


def check_output(command: list[str], stdin: str, kept: str) -> None:
    """Compare what is kept of a program's output with what it writes, where it is installed."""
    if shutil.which(command[0]) is not None:
        assert subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout == kept


JQ_INPUT = '[{"prompt":"a red car","seed":5.0},{"prompt":"un caf\\u00e9","seed":18446744073709551615}]'
JQ_COMPACT = '{"prompt":"a red car"}\n{"prompt":"un café"}\n'
JQ_PRETTY = '{\n  "prompt": "a red car"\n}\n{\n  "prompt": "un café"\n}\n'
JQ_ARRAY = '[\n  {\n    "prompt": "a red car"\n  },\n  {\n    "prompt": "un café"\n  }\n]\n'
JQ_TEXTS = '"a red car"\n"un café"\n'
JQ_RAW = "a red car\nun café\n"


@pytest.mark.parametrize(
    ("arguments", "kept", "names"),
    [
        (["-c", ".[] | {prompt}"], JQ_COMPACT, ["p.jsonl", "p.json", "p.ndjson"]),
        (["[.[] | {prompt}]"], JQ_ARRAY, ["p.json", "p.jsonl"]),
        ([".[].prompt"], JQ_TEXTS, ["p.jsonl", "p.json"]),
        (["-r", ".[].prompt"], JQ_RAW, ["p.txt"]),
    ],
)
def test_jq(tmp_path: Path, arguments: list[str], kept: str, names: list[str]) -> None:
    check_output(["jq", *arguments], JQ_INPUT, kept)
    for name in names:
        assert prompts(read(write(tmp_path / name, kept))) == ["a red car", "un café"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_jq_over_several_lines_is_refused_and_runs_with_its_option(tmp_path: Path, name: str) -> None:
    check_output(["jq", ".[] | {prompt}"], JQ_INPUT, JQ_PRETTY)
    path = write(tmp_path / name, JQ_PRETTY)
    error_of(lambda: read(path), "jq -c '.' FILE > NEW.jsonl writes a row on each line")
    assert prompts(read(write(path, JQ_COMPACT))) == ["a red car", "un café"]


def powershell(lines: list[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)


EXPORTED = ['"prompt","seed","note"', '"a ""red"" car","5",""', '"un café",,"x"']


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF16_LE + powershell(TEXTS).encode("utf-16-le"),  # Out-File, and > before version 6
        codecs.BOM_UTF8 + powershell(TEXTS).encode(),  # -Encoding utf8BOM, and utf8 before version 6
        codecs.BOM_UTF16_BE + powershell(TEXTS).encode("utf-16-be"),  # -Encoding bigendianunicode
        codecs.BOM_UTF32_LE + powershell(TEXTS).encode("utf-32-le"),  # -Encoding utf32
        powershell(TEXTS).encode(),  # -Encoding utf8NoBOM
        codecs.BOM_UTF8 + powershell(TEXTS[:2]).encode() + codecs.BOM_UTF8 + powershell(TEXTS[2:]).encode(),  # copy /b
    ],
)
def test_powershell_out_file(tmp_path: Path, data: bytes) -> None:
    assert prompts(read(write(tmp_path / "p.txt", data))) == TEXTS


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_powershell_export_csv(tmp_path: Path, delimiter: str, typed: bool, encoding: str) -> None:
    first = ["#TYPE System.Management.Automation.PSCustomObject"] if typed else []
    text = powershell([*first, *(line.replace(",", delimiter) for line in EXPORTED)])
    good = rows(read(write(tmp_path / "p.csv", text.encode(encoding))))
    assert [(row.prompt, row.seed, row.extra) for row in good] == [
        ('a "red" car', 5, {"note": ""}), ("un café", None, {"note": "x"}),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_datasets(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.Dataset.from_dict(FRAME | {"seed": [1, None, 3]})
    path = tmp_path / f"p.{suffix}"
    getattr(data, f"to_{suffix}")(str(path))
    check_frame(path)


def test_datasets_with_captions_and_images(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "annotations": [{"caption": datasets.Value("string"), "id": datasets.Value("int64")}],
        }
    )
    records = [
        {"image": {"bytes": b"\xff", "path": "x.png"}, "annotations": [{"caption": text, "id": 1}]} for text in TEXTS
    ]
    datasets.Dataset.from_list(records, features=features).to_parquet(str(tmp_path / "p.parquet"))
    assert prompts(read(tmp_path / "p.parquet")) == TEXTS
    datasets.Dataset.from_list(records, features=features).remove_columns("image").to_json(str(tmp_path / "p.jsonl"))
    assert prompts(read(tmp_path / "p.jsonl")) == TEXTS


def test_coco_captions(tmp_path: Path) -> None:
    coco = {
        "info": {"description": "COCO 2017 Dataset", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution"}],
        "images": [{"license": 4, "file_name": "1.jpg", "height": 427, "width": 640, "id": 9}],
        "annotations": [{"image_id": 9, "id": number, "caption": text} for number, text in enumerate(TEXTS)],
    }
    good = rows(read(write(tmp_path / "captions_val2017.json", json.dumps(coco))))
    assert [(row.prompt, row.extra["id"], row.width) for row in good] == [
        (text, n, None) for n, text in enumerate(TEXTS)
    ]


def test_diffusiondb_metadata(tmp_path: Path) -> None:
    count = len(TEXTS)
    table = pa.table(
        {
            "image_name": ["x.png"] * count,
            "prompt": TEXTS,
            "part_id": pa.array([1] * count, pa.uint16()),
            "seed": pa.array([2615452796, 5, 4294967295], pa.uint32()),
            "step": pa.array([50, 25, 10], pa.uint16()),
            "cfg": pa.array([7.0, 12.0, 0.5], pa.float32()),
            "sampler": pa.array([8] * count, pa.uint8()),
            "width": pa.array([512, 768, 512], pa.uint16()),
            "height": pa.array([512] * count, pa.uint16()),
            "user_name": ["0f" * 32] * count,
            "timestamp": pa.array([1_660_000_000_000_000] * count, pa.timestamp("us", "UTC")),
            "image_nsfw": pa.array([0.1, 2.0, float("nan")], pa.float32()),
            "prompt_nsfw": pa.array([0.01] * count, pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "metadata.parquet")
    good = rows(read(tmp_path / "metadata.parquet"))
    assert [(row.prompt, row.seed, row.steps, row.guidance, row.width) for row in good] == [
        (TEXTS[0], 2615452796, None, 7.0, 512), (TEXTS[1], 5, None, 12.0, 768), (TEXTS[2], 4294967295, None, 0.5, 512),
    ]  # fmt: skip
    assert [row.extra["step"] for row in good] == [50, 25, 10]
    assert [row.steps for row in rows(read(tmp_path / "metadata.parquet", Columns(steps="step")))] == [50, 25, 10]
    json.dumps(good[2].extra, allow_nan=False)


def test_coyo_is_rejected_by_its_size_and_runs_with_the_keys_that_it_is_told(tmp_path: Path) -> None:
    table = {"id": [1, 2, 3], "url": ["u"] * 3, "text": TEXTS, "width": [500, 640, 8], "height": [333, 427, 8]}
    pd.DataFrame(table).to_parquet(tmp_path / "coyo.parquet")
    items = read(tmp_path / "coyo.parquet")
    assert prompts(items) == [None] * 3
    assert all("job.columns.width=null job.columns.height=null" in bad.reason for bad in rejects(items))
    good = rows(read(tmp_path / "coyo.parquet", Columns(width=None, height=None)))
    assert [(row.prompt, row.width, row.extra["width"]) for row in good] == [
        (TEXTS[0], None, 500), (TEXTS[1], None, 640), (TEXTS[2], None, 8),
    ]  # fmt: skip


def test_parti_prompts(tmp_path: Path) -> None:
    lines = [
        "Prompt\tCategory\tChallenge\tNote",
        'a sign that says "Deep Learning"\tWorld Knowledge\tWriting & Symbols\t',
        '"G I G G L E" painted on a wall\tArts\tWriting & Symbols\t"x"',
    ]
    good = rows(read(write(tmp_path / "PartiPrompts.tsv", "\n".join(lines) + "\n")))
    assert [row.prompt for row in good] == [line.split("\t")[0] for line in lines[1:]]
    assert good[0].extra == {"Category": "World Knowledge", "Challenge": "Writing & Symbols", "Note": ""}


def test_drawbench(tmp_path: Path) -> None:
    path = write(tmp_path / "DrawBench.csv", "Prompts,Category\r\nA red colored car.,Colors\r\n")
    assert prompts(read(path)) == ["A red colored car."]


def test_styles_of_the_webui(tmp_path: Path) -> None:
    with (tmp_path / "styles.csv").open("w", encoding="utf-8-sig", newline="") as file:  # as modules/styles.py does
        writer = csv.DictWriter(file, fieldnames=["name", "prompt", "negative_prompt"])
        writer.writeheader()
        writer.writerow({"name": "film", "prompt": "{prompt}, film grain", "negative_prompt": "blurry, lowres"})
        writer.writerow({"name": "none", "prompt": "", "negative_prompt": "text"})
    items = read(tmp_path / "styles.csv")
    assert prompts(items) == ["{prompt}, film grain", None]
    assert rows(items)[0].negative_prompt == "blurry, lowres" and rejects(items)[0].reason == "empty prompt"


SQLITE = """create table p (id integer, prompt text, seed integer);
insert into p values (1, 'a red, red car', 5), (2, 'a cat', null);"""
SQLITE_BARE = '1,"a red, red car",5\r\n2,"a cat",\r\n'
SQLITE_HEADER = "id,prompt,seed\r\n" + SQLITE_BARE


def test_sqlite_without_its_header_is_refused_and_runs_with_it(tmp_path: Path) -> None:
    check_output(["sqlite3", "-csv", ":memory:", SQLITE + "select * from p"], "", SQLITE_BARE.replace("\r\n", "\n"))
    path = write(tmp_path / "p.csv", SQLITE_BARE)
    error_of(lambda: read(path), "put a line with the names of all 3 columns, such as b,prompt,c, before it")
    check_output(
        ["sqlite3", "-csv", "-header", ":memory:", SQLITE + "select * from p"], "", SQLITE_HEADER.replace("\r\n", "\n")
    )
    good = rows(read(write(path, SQLITE_HEADER)))
    assert [(row.prompt, row.seed, row.extra) for row in good] == [
        ("a red, red car", 5, {"id": "1"}), ("a cat", None, {"id": "2"}),
    ]  # fmt: skip


def test_what_such_files_say_reaches_the_tars(tmp_path: Path) -> None:
    lines = [
        {"caption": TEXTS[:2], "Seed": 2**50 + 3, "score": 0.5},
        {"caption": TEXTS[2], "num_inference_steps": 3.0, "n": 9},
    ]
    path = write(tmp_path / "p.json", "\n\n".join(map(json.dumps, lines)))
    done = front(tmp_path / "run", path)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "run").returncode == 0
    made = samples(tmp_path / "run")
    assert [made[f"{key}.txt"].decode() for key in ("000000000000-00", "000000000000-01", "000000000002-00")] == TEXTS
    first, last = (json.loads(made[f"{key}.json"]) for key in ("000000000000-00", "000000000002-00"))
    assert (first["seed"], json.loads(first["row_json"])) == (3, {"score": 0.5, "Seed": 2**50 + 3})
    assert (last["steps"], json.loads(last["row_json"])) == (3, {"n": 9})
