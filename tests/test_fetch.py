"""Downloads over plain addresses, from a real server on loopback: what is resumed, repeated, refused and repaired."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, get_session

from edgeseg.machine.download import PACKAGE, cache_folder, download, fetch, file_sha256, hub_file

from .hub_server import HubServer

CONTENT = bytes(range(256)) * 400
PAGES = [
    b"",
    b"<!DOCTYPE html><title>Sign in</title>",
    b"\xef\xbb\xbf\n<html lang=en>",
    b"<?xml version='1.0'?><Error/>",
]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between requests, which take no time."""
    made: list[float] = []
    monkeypatch.setattr("edgeseg.machine.transfer.time", SimpleNamespace(sleep=made.append))
    return made


@pytest.fixture
def url(hub: HubServer, pauses: list[float]) -> str:
    """The address of a file of 102400 bytes."""
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
    right, wrong = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth", "net-0123456a.pth"
    hub.files |= {f"/{right}": CONTENT, f"/{wrong}": CONTENT}
    assert download(f"{hub.url}/{right}", tmp_path).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="expected 0123456a"):
        download(f"{hub.url}/{wrong}", tmp_path)


def test_a_later_change_is_refused(hub: HubServer, url: str, tmp_path: Path) -> None:
    download(url, tmp_path).unlink()
    hub.files["/net.onnx"] = b"something else"
    with pytest.raises(ValueError, match=r"not the file it should be.*delete .*net\.onnx\.sha256"):
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


def test_unreachable(tmp_path: Path, pauses: list[float]) -> None:
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


def test_redirects_without_end(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.redirects["/moved.onnx"] = f"{hub.url}/moved.onnx"
    with pytest.raises(OSError, match=r"moved\.onnx: more than 20 redirects"):
        download(f"{hub.url}/moved.onnx", tmp_path)


# Answers that are no files


def check(path: Path) -> None:
    """Reads a file as what it should be."""
    if path.read_bytes() != CONTENT:
        raise ValueError(f"{path} is no network")


@pytest.mark.parametrize("page", PAGES, ids=["empty", "html", "html with a mark", "xml"])
def test_pages_are_refused(page: bytes, hub: HubServer, url: str, tmp_path: Path) -> None:
    """Without a hash and without a reader: neither the page nor its hash is kept, and mirrors are asked."""
    hub.files["/login/net.onnx"] = page
    with pytest.raises(ValueError, match=r"login/net\.onnx is not the file it should be: it is .*; it was removed$"):
        download(f"{hub.url}/login/net.onnx", tmp_path)
    assert files(tmp_path) == []
    assert fetch([f"{hub.url}/login/net.onnx", url], "name.tag").read_bytes() == CONTENT


def test_unreadable_answers_are_not_remembered(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files["/old/net.onnx"] = b"an error in words"
    hub.unmeasured["/net.onnx"] = 50000
    with pytest.raises(ValueError, match=r"old/net\.onnx is not .* no network; .*so too for 1 more"):
        fetch([f"{hub.url}/old/net.onnx", url], "name.tag", check=check)
    assert files(cache_folder() / "name.tag") == []
    del hub.unmeasured["/net.onnx"]
    assert fetch([f"{hub.url}/old/net.onnx", url], "name.tag", check=check).read_bytes() == CONTENT


def test_a_reader_that_did_not_expect_the_content(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files["/net.zip"] = b"an error in words"
    with pytest.raises(ValueError, match=r"net\.zip is not the file it should be: File is not a zip file"):
        download(f"{hub.url}/net.zip", tmp_path, check=zipfile.ZipFile)
    assert files(tmp_path) == []


def test_a_file_without_a_record_is_read_first(url: str, tmp_path: Path) -> None:
    """Such as that of a process which was killed between the download and the check."""
    (tmp_path / "net.onnx").write_bytes(b"half a netw")
    with pytest.raises(ValueError, match="no network"):
        download(url, tmp_path, check=check)
    (tmp_path / "net.onnx").write_bytes(CONTENT)
    assert download(url, tmp_path, check=check).read_bytes() == CONTENT
    assert files(tmp_path) == ["net.onnx", "net.onnx.sha256"]


# Files that change on this machine


def flip(path: Path) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download(url, tmp_path)
    flip(path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"net\.onnx has changed since .*, and HF_HUB_OFFLINE is set"):
        download(url, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.warns(UserWarning, match=r"net\.onnx has changed since it was downloaded, and is downloaded again"):
        download(url, tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_flipped_bit_in_the_cache_of_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["me/net"] = {"model.safetensors": CONTENT}
    path = hub_file("me/net/model.safetensors")
    flip(path)
    with pytest.warns(UserWarning, match=r"has changed since it was downloaded, and is downloaded again"):
        assert hub_file("me/net/model.safetensors").read_bytes() == CONTENT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_file("me/net/model.safetensors").read_bytes() == CONTENT


def test_a_flipped_bit_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeseg.machine.download.package_file", lambda address: tmp_path / address.removeprefix(PACKAGE)
    )
    (tmp_path / "net").write_bytes(CONTENT)
    digest = file_sha256(tmp_path / "net")
    assert fetch([f"{PACKAGE}net"], "name.tag", sha256=digest) == tmp_path / "net"
    flip(tmp_path / "net")
    with pytest.raises(ValueError, match=r"net has changed: sha256 .*; install edgeseg again"):
        fetch([f"{PACKAGE}net"], "name.tag", sha256=digest)


# Errors that pass


def test_errors_that_pass(hub: HubServer, url: str, tmp_path: Path, pauses: list[float]) -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    hub.statuses["/net.onnx"] = [(500, {}), (503, {}), (429, {"Retry-After": "7"}), (429, {"Retry-After": date})]
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert pauses[:3] == [1, 2, 7]
    assert 20 < pauses[3] <= 30
    assert len(pauses) == 4


def test_errors_that_stay(hub: HubServer, url: str, tmp_path: Path, pauses: list[float]) -> None:
    """Requests are bounded, and no server is waited for as long as it likes."""
    for answers, waited in (
        ([(500, {})] * 9, [1, 2, 4, 8, 8]),
        ([(404, {})], []),
        ([(429, {"Retry-After": "3600"})], []),
    ):
        hub.statuses["/net.onnx"] = list(answers)
        with pytest.raises(OSError, match=rf"net\.onnx: the server answers {answers[0][0]} "):
            download(url, tmp_path)
        assert pauses == waited
        pauses.clear()


def test_errors_of_the_hub_that_pass(hub: HubServer, pauses: list[float]) -> None:
    hub.repos["me/net"] = {"model.safetensors": CONTENT}
    hub.statuses["/me/net/resolve/main/model.safetensors"] = [(500, {}), (500, {})]
    assert hub_file("me/net/model.safetensors").read_bytes() == CONTENT
    assert pauses == [1, 2]


def test_threads_leave_no_trace(hub: HubServer, url: str, tmp_path: Path) -> None:
    """Downloads at once that are cut, redirected and refused change nothing in what all of huggingface_hub shares."""
    before = {key: list(hooks) for key, hooks in get_session().event_hooks.items()}
    hub.cut["/net.onnx"] = [5000] * 4
    hub.redirects |= {"/away.onnx": "http://example.com/net.onnx", "/moved.onnx": url}
    urls = [url, f"{hub.url}/moved.onnx", f"{hub.url}/away.onnx", f"{hub.url}/missing.onnx"] * 5
    with ThreadPoolExecutor(8) as pool:
        got = [pool.submit(download, each, tmp_path / str(i)) for i, each in enumerate(urls)]
    assert [type(each.exception()) for each in got] == [type(None), type(None), ValueError, OSError] * 5
    assert get_session().event_hooks == before
    assert get_session().get(f"{hub.url}/moved.onnx").content == CONTENT


def test_threads_share_a_file(hub: HubServer, url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: download(url, tmp_path), range(16)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(hub.paths("GET")) == 1


def test_the_token_is_for_the_hub_alone(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.private.add("me/net")
    hub.repos["me/net"] = {"model.safetensors": CONTENT}
    hub.redirects["/moved.onnx"] = url
    assert download(f"{hub.url}/moved.onnx", tmp_path).read_bytes() == CONTENT
    assert hub_file("me/net/model.safetensors").read_bytes() == CONTENT
    assert hub.tokens == {"/me/net/resolve/main/model.safetensors"}


def test_no_key_in_messages(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files["/page.onnx"] = PAGES[1]
    for path in ("missing.onnx", "page.onnx", ""):
        address = f"{hub.url.replace('//', '//me:password@')}/{path}?key=secret"
        with pytest.raises((OSError, ValueError)) as caught:
            download(address, tmp_path)
        assert "password" not in str(caught.value)
        assert "secret" not in str(caught.value)


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
    assert f"NotWritten: cannot write {tmp_path / 'net.onnx'}: File too large" in (process.communicate()[1])
    assert "net.onnx" not in files(tmp_path)
    assert download(url, tmp_path).read_bytes() == CONTENT
