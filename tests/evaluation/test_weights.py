"""Which file the weights of an extractor come from, what its digest is, and downloads that go well and badly."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from support.callbacks import Ear

from sagan_cli.errors import SaganError, UsageError
from sagan_cli.evaluation.extractors import weights
from sagan_cli.evaluation.extractors.extractor import tensor_digest
from sagan_cli.evaluation.extractors.weights import PUBLISHED, Published

INCEPTION = "inception-v3-compat"
BODY = bytes(range(256)) * 12_000
"""3 MB."""


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache of downloads, empty; and no proxy between the tests and their server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def find(ear: Ear, given: Path | None = None, name: str = INCEPTION, **environ: str) -> weights.Weights:
    return weights.find_weights(name, given, environ=environ, **ear.how)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_variable_comes_after_the_flag(ear: Ear, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pth", tmp_path / "two.pth"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert find(ear, SAGAN_FID_WEIGHTS=str(one)).path == one
    assert find(ear, two, SAGAN_FID_WEIGHTS=str(one)).path == two
    with pytest.raises(SaganError, match="SAGAN_OFFLINE is set"):  # the variable is Inception's alone
        find(ear, name="vgg16", SAGAN_FID_WEIGHTS=str(one), SAGAN_OFFLINE="1")


def test_a_given_file_that_is_not_there(ear: Ear, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--weights .*gone\.pth: no such file"):
        find(ear, tmp_path / "gone.pth")
    with pytest.raises(UsageError, match=r"SAGAN_FID_WEIGHTS .*gone\.pth: no such file"):
        find(ear, SAGAN_FID_WEIGHTS=str(tmp_path / "gone.pth"))
    with pytest.raises(UsageError, match=r"--weights .*not a file"):
        find(ear, tmp_path)


def test_another_file_under_the_published_name_is_not_used(ear: Ear, checkpoints: Path) -> None:
    imposter = checkpoints / PUBLISHED[INCEPTION].files[1]
    imposter.write_bytes(b"random weights")
    with pytest.raises(SaganError):
        find(ear, HF_HUB_OFFLINE="TRUE")
    assert len(ear.notes) == 1
    assert str(imposter) in ear.notes[0]
    assert sha256(imposter)[:16] in ear.notes[0]


@pytest.mark.parametrize("value", ["0", "", "false", "off"])
def test_not_offline(value: str) -> None:
    assert weights.offline({"SAGAN_OFFLINE": value}) is None


def test_a_file_that_changes_under_us(ear: Ear, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1)}, path)
    found = find(ear, path)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(SaganError, match="changed while it was being read"):
        weights.load_tensors(found)


def test_the_digest_of_tensors() -> None:
    one = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3, dtype=torch.int64), "e": torch.zeros(0)}
    digest = tensor_digest(one)
    assert digest == tensor_digest(dict(reversed(one.items())))
    assert digest == tensor_digest({**one, "b": one["b"].t().contiguous().t()})
    for other in (
        {**one, "b": one["b"].reshape(3, 2)},
        {**one, "b": one["b"].int()},
        {**one, "b": one["b"] + 1e-6},
        {"c" if k == "a" else k: v for k, v in one.items()},
    ):
        assert tensor_digest(other) != digest
    assert tensor_digest({"h": torch.ones(2, dtype=torch.bfloat16)})


class Handler(BaseHTTPRequestHandler):
    """Serves BODY in the manner that the path names."""

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        manner = self.path.strip("/")
        if manner == "missing":
            return self.send_error(404)
        if manner == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            return self.end_headers()
        self.send_response(200)
        if manner != "no-length":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may hang up
            if manner == "cut":
                self.wfile.write(BODY[:100_000])
            elif manner == "wrong":
                self.wfile.write(BODY[:-1] + b"!")
            elif manner == "silent":
                self.wfile.write(BODY[:1000])
                time.sleep(1.2)
            elif manner == "drip":
                for n in range(40):
                    self.wfile.write(BODY[n : n + 1])
                    time.sleep(0.03)
            else:
                self.wfile.write(BODY)
        self.close_connection = True
        return None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Says where Inception is published; the sha256 is BODY's."""

    def say(url: str) -> str:
        entry = Published(url, hashlib.sha256(BODY).hexdigest(), PUBLISHED[INCEPTION].files)
        monkeypatch.setitem(PUBLISHED, INCEPTION, entry)  # type: ignore[arg-type]
        return url

    return say


@pytest.mark.parametrize("manner", ["good", "moved", "no-length"])
def test_a_download(manner: str, server: str, publish: Callable[[str], str], ear: Ear, checkpoints: Path) -> None:
    url = publish(f"{server}/{manner}")
    found = find(ear)
    assert found == weights.Weights(checkpoints / PUBLISHED[INCEPTION].files[0], PUBLISHED[INCEPTION].sha256, True)
    assert found.path.read_bytes() == BODY
    assert [p.name for p in checkpoints.iterdir()] == [found.path.name]
    assert ear.notes == [f"downloading {url} to {found.path}"]
    done = [d for d, _ in ear.ticks]
    assert done == sorted(done)
    assert ear.ticks[-1] == (4, 4)  # begun megabytes
    assert find(ear, SAGAN_OFFLINE="1") == found


def test_a_download_replaces_an_imposter(
    server: str, publish: Callable[[str], str], ear: Ear, checkpoints: Path
) -> None:
    publish(f"{server}/good")
    (checkpoints / PUBLISHED[INCEPTION].files[0]).write_bytes(b"imposter")
    assert find(ear).path.read_bytes() == BODY
    assert "is not used" in ear.notes[0]


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ("missing", "HTTP 404 Not Found"),
        ("cut", f"the connection ended after 100000 of {len(BODY)} bytes"),
        ("wrong", "the server sent another file, sha256 "),
        ("silent", "timed out"),
        ("drip", r"fewer than 64 KiB in 0\.3 s"),
    ],
)
def test_a_download_that_fails(
    manner: str,
    words: str,
    server: str,
    publish: Callable[[str], str],
    ear: Ear,
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", 0.3)
    url = publish(f"{server}/{manner}")
    begun = time.monotonic()
    with pytest.raises(SaganError, match=words) as caught:
        find(ear)
    assert time.monotonic() - begun < 5
    assert "\n" not in str(caught.value)
    for part in ("--weights FILE", "SAGAN_FID_WEIGHTS", url):
        assert part in str(caught.value)
    assert list(checkpoints.iterdir()) == []


def test_no_server(publish: Callable[[str], str], ear: Ear, checkpoints: Path) -> None:
    publish("http://127.0.0.1:1/file")
    with pytest.raises(SaganError, match=r"could not be downloaded \(.*refused.*\): pass --weights FILE"):
        find(ear)
    assert list(checkpoints.iterdir()) == []
