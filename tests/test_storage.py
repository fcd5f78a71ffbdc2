"""What is written is whole or not there, and what is damaged is said to be."""

import errno
import json
import math
import os

import pytest
import torch

from genkl import storage
from genkl.learn import Checkpoint
from genkl.storage import (
    DamagedFileError,
    load_tensors,
    save_tensors,
    write_atomically,
    write_json,
    write_together,
)

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}


def test_tensors_and_values_come_back_as_they_were(tmp_path):
    halves = {"half": torch.ones(3, dtype=torch.bfloat16), "bytes": torch.arange(4).byte()}
    values = {"step": 3, "rate": 0.1 + 0.2, "best": math.inf, "none": None, "list": [1, 2.5]}
    save_tensors(tmp_path / "deep" / "a.safetensors", TENSORS | halves, values)
    tensors, read = load_tensors(tmp_path / "deep" / "a.safetensors")
    assert read == values
    assert set(tensors) == set(TENSORS | halves)
    for name, tensor in (TENSORS | halves).items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_that_share_memory_or_are_transposed_can_be_kept(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    save_tensors(tmp_path / "a.safetensors", {"a": base, "b": base, "t": base.T}, {})
    tensors, _ = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["a"], tensors["b"])
    assert torch.equal(tensors["t"], base.T)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off_is_called_damaged(tmp_path, share):
    path = save_tensors(tmp_path / "a.safetensors", TENSORS, {"step": 1})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedFileError, match=r"a\.safetensors is damaged"):
        load_tensors(path)


def test_every_changed_byte_is_noticed(tmp_path):
    path = save_tensors(tmp_path / "a.safetensors", TENSORS, {"step": 1})
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            tensors, values = load_tensors(path)
        except DamagedFileError:
            continue
        # What a changed byte may leave unnoticed is white space in the header, nothing else.
        assert values == {"step": 1}
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_somebody_elses_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "other.safetensors")
    with pytest.raises(DamagedFileError, match="of another kind"):
        load_tensors(tmp_path / "other.safetensors")


def test_a_pickle_is_never_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save(Evil(), tmp_path / "a.safetensors")
    with pytest.raises(DamagedFileError):
        load_tensors(tmp_path / "a.safetensors")
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = write_json(tmp_path / "a.json", {"step": 1})

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.json can't be written .*No space.*free .* MB") as caught:
        write_json(path, {"step": 2})
    assert caught.value.errno == errno.ENOSPC
    assert json.loads(path.read_text()) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_limit_that_the_system_sets_leaves_what_was_there(tmp_path):
    resource = pytest.importorskip("resource")
    import signal

    path = write_atomically(tmp_path / "a.bin", b"good")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="can't be written"):
            write_atomically(path, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"good"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_belong_together_are_replaced_together(tmp_path, monkeypatch):
    write_together({tmp_path / "a": b"old"})
    replace = os.replace

    def refuse(source, target):
        if target.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", refuse)
        with pytest.raises(OSError, match=r"b can't be written \(Permission denied\): look"):
            write_together({tmp_path / "new" / "c": b"new", tmp_path / "b": b"new"})
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "new"}
    with pytest.raises(OSError, match="can't be written"):  # a file where a folder should be
        write_together({tmp_path / "a": b"new", tmp_path / "a" / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["link", "fsync"])
def test_a_share_without_links_or_folder_syncs_is_written_to(tmp_path, monkeypatch, kind):
    synced = os.fsync

    def refuse(handle, *_):
        if kind == "link" or os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(38 if kind == "link" else 22, "no")
        synced(handle)

    monkeypatch.setattr(storage.os, kind, refuse)
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    for step in range(3):
        checkpoint.save({"model": TENSORS}, {"step": step})
    assert checkpoint.load()[1]["step"] == 2
    checkpoint.path.unlink()
    assert checkpoint.load()[1]["step"] == 1
    checkpoint.remove()
    assert not list(tmp_path.iterdir())
