"""Downloads over plain addresses, from a real server on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from edgeseg.machine.download import cache_folder, download, fetch, file_sha256

from .hub_server import HubServer

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def url(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a file of 102400 bytes."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("edgeseg.machine.download.CHUNK", 1000)
    hub.files["/net.onnx"] = CONTENT
    return f"{hub.url}/net.onnx"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_download_once(hub: HubServer, url: str, tmp_path: Path) -> None:
    path = download(url, tmp_path / "a")
    assert path.read_bytes() == CONTENT
    assert download(url, tmp_path / "a") == path
    assert hub.paths("GET") == ["/net.onnx"]
    assert files(tmp_path / "a") == ["net.onnx", "net.onnx.sha256"]
    assert (tmp_path / "a/net.onnx.sha256").read_text().strip() == hashlib.sha256(CONTENT).hexdigest()


def test_cut_download_resumes(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.cut["/net.onnx"] = [5000, 60000]
    assert download(url, tmp_path / "a").read_bytes() == CONTENT
    assert [wanted for *_, wanted in hub.requests] == [None, "bytes=5000-", "bytes=65000-"]


def test_a_later_process_resumes(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.cut["/net.onnx"] = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(OSError, match=r"net\.onnx"):
        download(url, tmp_path / "a")
    assert "net.onnx" not in files(tmp_path / "a")
    hub.requests.clear()
    assert download(url, tmp_path / "a").read_bytes() == CONTENT
    assert [wanted for *_, wanted in hub.requests] == ["bytes=5000-"]


def test_a_file_that_changed_meanwhile_starts_over(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.cut["/net.onnx"] = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(OSError, match=r"net\.onnx"):
        download(url, tmp_path / "a")
    hub.files["/net.onnx"] = CONTENT[::-1]
    assert download(url, tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_killed_before_the_rename(hub: HubServer, url: str, tmp_path: Path) -> None:
    """All bytes are there, the server has none left to send."""
    (tmp_path / ".net.onnx.partial").write_bytes(CONTENT)
    (tmp_path / ".net.onnx.partial.version").write_text(f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    assert download(url, tmp_path).read_bytes() == CONTENT


def test_wrong_hash(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not the file it should be: sha256 .*expected 0000.*removed"):
        download(url, tmp_path / "a", sha256="0000")
    assert files(tmp_path / "a") == []
    assert download(url, tmp_path / "a", sha256=hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_hash_in_the_name(hub: HubServer, tmp_path: Path) -> None:
    """torchvision's files carry the first digits of theirs."""
    right, wrong = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth", "net-01234567.pth"
    hub.files |= {f"/{right}": CONTENT, f"/{wrong}": CONTENT}
    assert download(f"{hub.url}/{right}", tmp_path).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="expected 01234567"):
        download(f"{hub.url}/{wrong}", tmp_path)


def test_a_later_change_is_refused(hub: HubServer, url: str, tmp_path: Path) -> None:
    download(url, tmp_path).unlink()
    hub.files["/net.onnx"] = b"something else"
    with pytest.raises(ValueError, match=r"not the file it should be.*delete the .sha256 file"):
        download(url, tmp_path)
    hub.files["/net.onnx"] = CONTENT
    assert download(url, tmp_path).read_bytes() == CONTENT


def test_mirrors_in_turn(hub: HubServer, url: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    hub.files["/old/net.onnx"] = b"an older version"
    mirrors = [f"{hub.url}/missing/net.onnx", f"{hub.url}/old/net.onnx"]
    path = fetch([*mirrors, url], "name.tag", sha256=digest)
    assert path == cache_folder() / "name.tag" / "net.onnx"
    assert file_sha256(path) == digest
    path.unlink()
    with pytest.raises(
        ValueError, match=r"(?s)all addresses of the file failed.*missing/net.onnx.*404.*old/net.onnx is not"
    ):
        fetch(mirrors, "name.tag", sha256=digest)


def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9/net\.onnx"):
        download("http://127.0.0.1:9/net.onnx", tmp_path)


def test_offline(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download(url, tmp_path / "a")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(url, tmp_path / "a") == path
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE is set and .*net.onnx is not in the cache"):
        download(url, tmp_path / "b")


@pytest.mark.parametrize(
    "target", ["http://example.com/net.onnx", "file:///etc/hostname", "ftp://example.com/net.onnx"]
)
def test_only_https(hub: HubServer, tmp_path: Path, target: str) -> None:
    hub.redirects["/moved.onnx"] = target
    with pytest.raises(ValueError, match=r"refused .*: weights are downloaded over https only"):
        download(f"{hub.url}/moved.onnx", tmp_path)
    with pytest.raises(ValueError, match="https only"):
        download(target, tmp_path)
    assert not (tmp_path / "moved.onnx").exists()


def test_redirects_are_followed(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.redirects["/moved.onnx"] = url
    assert download(f"{hub.url}/moved.onnx", tmp_path).read_bytes() == CONTENT


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


FETCH = "import sys; from pathlib import Path; from edgeseg.machine.download import download\n"


def test_two_processes_at_once(hub: HubServer, url: str, tmp_path: Path) -> None:
    processes = [run(f"{FETCH}print(download(sys.argv[1], Path(sys.argv[2])))", url, tmp_path) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == [str(tmp_path / "net.onnx")] * 2
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert len(hub.paths("GET")) == 1


def test_full_disk(url: str, tmp_path: Path) -> None:
    """A process that may write no more than 50000 bytes leaves nothing under the final name; the next one goes on."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
    process = run(f"{limit}{FETCH}download(sys.argv[1], Path(sys.argv[2]))", url, tmp_path)
    assert "OSError" in process.communicate()[1]
    assert "net.onnx" not in files(tmp_path)
    assert download(url, tmp_path).read_bytes() == CONTENT
