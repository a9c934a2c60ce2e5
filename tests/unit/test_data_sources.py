"""Sources: the local root, the pinned table, downloads that are retried, resumed and checked."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub import Hub
from tiny import build_data_root

from infosteer_bench.benchmark import TASKS
from infosteer_bench.data import download as download_module
from infosteer_bench.data.download import download
from infosteer_bench.data.roots import open_source
from infosteer_bench.data.sources import (
    GSM8K_PARQUET,
    GSM8K_TRAIN,
    LocalRoot,
    SourceFile,
    Upstream,
    load_json_records,
    pinned,
)
from infosteer_bench.errors import UserError

BOOLQ = "dataset/boolq/test.json"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of the loopback hub with one raw file of 200 kB."""
    path = tmp_path / "hub" / "raw" / BOOLQ
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"instruction": f"question {n}", "answer": "true"} for n in range(4000)]))
    return tmp_path / "hub"


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pins_cover_every_test_file_and_every_training_file() -> None:
    files = {f"dataset/{folder}/test.json" for folder in (row.folder for row in TASKS.values())}
    commonsense = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
    files |= {f"dataset/{TASKS[name].folder}/train.json" for name in commonsense}
    assert set(pinned()) == {*files, GSM8K_TRAIN}
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in pinned().values())


def test_real_root_names_its_two_stand_ins(data_root: Path) -> None:
    source = LocalRoot(data_root)
    present = [relative for relative in pinned() if source.has(relative)]
    stand_ins = {relative for relative in present if source.get(relative).stand_in}
    assert stand_ins == {"dataset/hellaswag/test.json", "dataset/winogrande/train.json"}
    assert set(pinned()) - set(present) == {"dataset/hellaswag/train.json"}


def test_real_files_have_the_published_number_of_items(data_root: Path) -> None:
    items = {"boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376}
    items |= {"arc_challenge": 1172, "openbookqa": 500, "gsm8k": 1319, "addsub": 395, "singleeq": 508}
    items |= {"multiarith": 600, "aqua": 254, "mawps": 238, "svamp": 1000}
    source = open_source(data_root)
    found = {name: len(load_json_records(source.get(f"dataset/{TASKS[name].folder}/test.json"))) for name in items}
    assert found == items
    assert len(load_json_records(source.get(GSM8K_TRAIN))) == 7473


def test_data_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build_data_root(tmp_path / "root")
    monkeypatch.setenv("INFOSTEER_DATA_ROOT", str(root))
    file = open_source(None).get(BOOLQ)
    assert file.path == root / BOOLQ
    assert file.stand_in
    monkeypatch.delenv("INFOSTEER_DATA_ROOT")
    assert isinstance(open_source(None), Upstream)


def test_useless_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds none of the data files"):
        open_source(tmp_path)
    source = open_source(build_data_root(tmp_path / "root"))
    assert not source.has("dataset/nothing/test.json")
    with pytest.raises(UserError, match=r"has no dataset/nothing/test\.json"):
        source.get("dataset/nothing/test.json")


def test_a_changed_file_gets_its_new_digest(tmp_path: Path) -> None:
    source = open_source(build_data_root(tmp_path / "root"))
    before = source.get(BOOLQ)
    before.path.write_text("[{}]")
    assert source.get(BOOLQ).sha256 == _sha(before.path) != before.sha256


def test_upstream_downloads_once_and_checks_on_every_use(raw: Path) -> None:
    pins = {BOOLQ: _sha(raw / "raw" / BOOLQ)}
    with Hub(raw) as hub:
        source = Upstream(base_url=hub.raw_url + "/", pins=pins)
        first = source.get(BOOLQ)
        assert (first.sha256, first.stand_in) == (pins[BOOLQ], False)
        assert source.get(BOOLQ) == first
        assert hub.count(BOOLQ) == 1
        first.path.write_text("damaged")
        assert _sha(source.get(BOOLQ).path) == pins[BOOLQ]
        assert hub.count(BOOLQ) == 2
    assert source.has(BOOLQ)
    assert not source.has("dataset/other.json")
    with pytest.raises(UserError, match="not one of the pinned"):
        source.get("dataset/other.json")


def test_other_bytes_are_refused_and_not_kept(raw: Path, tmp_path: Path) -> None:
    pins = {BOOLQ: _sha(raw / "raw" / BOOLQ)}
    with Hub(raw, faults={BOOLQ: ["wrong"]}) as hub:
        source = Upstream(base_url=hub.raw_url, pins=pins)
        with pytest.raises(UserError, match="not the pinned"):
            source.get(BOOLQ)
        assert [path for path in (tmp_path / "cache").rglob("*.json*") if path.suffix != ".lock"] == []
        assert _sha(source.get(BOOLQ).path) == pins[BOOLQ]  # the mirror was repaired


@pytest.mark.parametrize("fault", ["500", "truncate"])
def test_passing_faults_are_retried(raw: Path, tmp_path: Path, fault: str) -> None:
    target = tmp_path / "out" / "file.json"
    heard: list[tuple[str, int, int | None]] = []
    with Hub(raw, faults={BOOLQ: [fault]}) as hub:
        download(
            f"{hub.raw_url}/{BOOLQ}", target, sha256=_sha(raw / "raw" / BOOLQ), wait_s=0.01,
            progress=lambda *told: heard.append(told),
        )  # fmt: skip
        assert hub.count(BOOLQ) == 2
    size = (raw / "raw" / BOOLQ).stat().st_size
    assert heard[-1] == ("file.json", size, size)
    assert sorted(path.name for path in target.parent.iterdir()) == ["file.json", "file.json.lock"]


def test_a_download_that_stalls_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the body and then nothing: another attempt asks for the rest. Only no way to the server is final."""
    body, asked = b"x" * 1000, []

    class Stalling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            rest = body[500:] if asked[-1] else body
            self.send_response(206 if asked[-1] else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:500])
            self.wfile.flush()
            if not asked[-1]:
                time.sleep(1.0)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.3)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/file"
        download(url, tmp_path / "file", sha256=hashlib.sha256(body).hexdigest(), wait_s=0.01)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == [None, "bytes=500-"]
    assert (tmp_path / "file").read_bytes() == body


def test_an_interrupted_download_goes_on_where_it_stopped(raw: Path, tmp_path: Path) -> None:
    content = (raw / "raw" / BOOLQ).read_bytes()
    target = tmp_path / "file.json"
    part = tmp_path / "file.json.part"
    part.write_bytes(content[:1000])
    heard: list[int] = []
    with Hub(raw) as hub:
        download(
            f"{hub.raw_url}/{BOOLQ}", target, sha256=hashlib.sha256(content).hexdigest(),
            progress=lambda name, have, total: heard.append(have),
        )  # fmt: skip
        assert hub.count(BOOLQ) == 1  # were it not resumed, the check would fail and a second request follow
    assert target.read_bytes() == content
    assert heard[0] > 1000


@pytest.mark.parametrize("kept", [b"another file's beginning", b"x" * 10_000_000], ids=["wrong", "too long"])
def test_a_useless_part_is_thrown_away(raw: Path, tmp_path: Path, kept: bytes) -> None:
    target = tmp_path / "file.json"
    (tmp_path / "file.json.part").write_bytes(kept)
    with Hub(raw) as hub:
        download(f"{hub.raw_url}/{BOOLQ}", target, sha256=_sha(raw / "raw" / BOOLQ), wait_s=0.01)
    assert target.read_bytes() == (raw / "raw" / BOOLQ).read_bytes()


def test_unreachable_absent_and_malformed_addresses(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)
    with Hub(raw) as hub:
        gone = hub.raw_url
        with pytest.raises(UserError, match=r"says 404.*--data-root"):
            download(f"{hub.raw_url}/none", tmp_path / "none", sha256="0" * 64)
        assert hub.count("/raw/none") == 1  # no use in trying again
    with pytest.raises(UserError, match=r"cannot be had: .*--data-root"):
        Upstream(base_url=gone).get(BOOLQ)
    with pytest.raises(UserError, match="not an http"):
        Upstream(base_url="ftp://example.org").get(BOOLQ)


def _gsm8k_hub(root: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "datasets" / "openai" / "gsm8k" / GSM8K_PARQUET
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_gsm8k_comes_from_the_hub_as_the_local_rows(
    data_root: Path, tmp_path: Path, online: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_json_records(LocalRoot(data_root).get(GSM8K_TRAIN))
    _gsm8k_hub(tmp_path / "hub", rows)
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        file = Upstream(base_url=hub.raw_url).get(GSM8K_TRAIN)
        assert hub.count("gsm8k") > 0
        seen = len(hub.requests)
        assert Upstream(base_url=hub.raw_url).get(GSM8K_TRAIN) == file
        assert len(hub.requests) == seen
    assert (file.sha256, file.stand_in) == (pinned()[GSM8K_TRAIN], False)
    assert load_json_records(file) == rows


def test_changed_gsm8k_rows_on_the_hub_are_refused(
    tmp_path: Path, online: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gsm8k_hub(tmp_path / "hub", [{"question": "1+1?", "answer": "#### 3"}])
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(UserError, match="not the pinned"):
            Upstream(base_url=hub.raw_url).get(GSM8K_TRAIN)
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_gsm8k_without_a_hub_points_to_the_data_root() -> None:
    with pytest.raises(UserError, match=r"openai/gsm8k cannot be had.*--data-root"):
        Upstream(base_url="http://127.0.0.1:9").get(GSM8K_TRAIN)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "no JSON list"),
        ("a.json", "[{}, 3]", r"a\.json, record 2 is not a JSON object"),
        ("a.json", "[{}", "not valid JSON"),
        ("a.json", "[]", "no records"),
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n', r"a\.jsonl, line 3 is not valid JSON"),
        ("a.jsonl", '{"a": 1}\n7\n', r"line 2 is not a JSON object"),
        ("a.jsonl", "\n", "no records"),
    ],
)
def test_broken_files_name_file_and_record(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_json_records(SourceFile(path, name, "", stand_in=False))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe[")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        load_json_records(SourceFile(path, "a.json", "", stand_in=False))


def test_a_line_separator_inside_a_record_splits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y"}\n', encoding="utf-8")
    assert load_json_records(SourceFile(path, "a.jsonl", "", stand_in=False)) == [{"a": "x\u2028y"}]
