"""onnxruntime-web's files: from a folder, from the cache, from npm, and what is said where there are none."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from sagan_cli.errors import SaganError, UsageError
from sagan_cli.export import web_runtime


def test_runtimes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--runtime .*nowhere: no such folder"):
        web_runtime.find_runtime(tmp_path / "nowhere", pytest.fail)
    with pytest.raises(SaganError, match=r"has no ort.wasm.bundle.min.mjs and .*: name an unpacked onnxruntime-web"):
        web_runtime.find_runtime(tmp_path, pytest.fail)
    put_package(tmp_path / "dist", "1.2.3", wasm=b"<html>")
    with pytest.raises(SaganError, match="are not those of onnxruntime-web"):
        web_runtime.find_runtime(tmp_path, pytest.fail)
    put_package(tmp_path / "dist", "1.2.3")
    (tmp_path / "LICENSE").write_text("its own", encoding="utf-8")
    said: list[str] = []
    for folder in (tmp_path, tmp_path / "dist"):
        found = web_runtime.find_runtime(folder, said.append)
        assert found.version == "1.2.3"
        assert found.files["LICENSE"] == b"its own"
    assert said[0].endswith(f"onnxruntime-web 1.2.3; the page was tested with {web_runtime.VERSION}")


def put_package(dist: Path, version: str, wasm: bytes = b"\0asm rest") -> None:
    dist.mkdir(exist_ok=True)
    (dist / "ort.wasm.bundle.min.mjs").write_text(f"/*! ONNX Runtime Web v{version} */", encoding="utf-8")
    (dist / "ort-wasm-simd-threaded.wasm").write_bytes(wasm)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called npm that runs what is in its file `does`; the cache is empty."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "npm"
    program.write_text('#!/bin/sh\n. "$(dirname "$0")/does"\n', encoding="utf-8")
    program.chmod(0o755)
    return tmp_path / "does"


def archive(version: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in ((web_runtime.SCRIPT, f"/*! ONNX Runtime Web v{version} */".encode()),
                           (web_runtime.WASM, b"\0asm rest")):  # fmt: skip
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_npm_is_asked_once_and_its_answer_checked(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(web_runtime.VERSION)
    (tmp_path / "made.tgz").write_bytes(data)
    npm.write_text(f'echo "$@" >> {tmp_path}/asked; cp {tmp_path}/made.tgz onnxruntime-web.tgz', encoding="utf-8")
    with pytest.raises(
        SaganError, match=r"is not that of onnxruntime-web 1.30.0: unpack onnxruntime-web .* --runtime DIR"
    ):
        web_runtime.find_runtime(None, lambda _: None)
    monkeypatch.setattr(web_runtime, "SHA512", base64.b64encode(hashlib.sha512(data).digest()).decode())
    said: list[str] = []
    for _ in range(2):
        assert web_runtime.find_runtime(None, said.append).version == web_runtime.VERSION
    assert len(said) == 1
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert len(asked) == 2  # one was refused, one kept
    assert asked[0].startswith(f"pack onnxruntime-web@{web_runtime.VERSION} --ignore-scripts")


def test_without_npm_both_ways_out_are_named(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm.write_text("echo 'npm error code ENOTFOUND' >&2; exit 1", encoding="utf-8")
    with pytest.raises(SaganError, match=r"\(npm error code ENOTFOUND\): try again, or unpack .* by --runtime DIR"):
        web_runtime.find_runtime(None, lambda _: None)
    monkeypatch.setenv("SAGAN_OFFLINE", "1")
    with pytest.raises(SaganError, match="SAGAN_OFFLINE forbids fetching it: unpack"):
        web_runtime.find_runtime(None, lambda _: None)
    monkeypatch.delenv("SAGAN_OFFLINE")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SaganError, match=r"install npm, which fetches it, or unpack .* name that folder by --runtime"):
        web_runtime.find_runtime(None, lambda _: None)
