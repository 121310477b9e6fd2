"""Where outputs may go, and that they appear whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from write_helpers import checkpoint, save, weight

from nnopt_cli.errors import NnoptError, UnreadableError
from nnopt_cli.formats import atomic
from nnopt_cli.formats.atomic import new_file, new_folder
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.syscalls import exchange, rename_new
from nnopt_cli.formats.target import check_target, human
from nnopt_cli.formats.weight import FileWeight, InputFile, MemoryWeight


def source_at(path: Path, **container):
    """A checkpoint that says it was read from `path`."""
    return checkpoint({"w": weight("w")}, path=path, files=(path,), **container)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_existing_output_is_refused_without_force_and_replaced_with_it(tmp_path):
    out = tmp_path / "out.pt"
    out.write_bytes(b"mine")
    source = source_at(tmp_path / "in.pt")
    with pytest.raises(NnoptError, match="already exists") as caught:
        save(source, out)
    assert "--force" in str(caught.value.hint)
    assert out.read_bytes() == b"mine"
    save(source, out, force=True)
    assert out.read_bytes()[:2] == b"PK"
    assert names(tmp_path) == ["out.pt"]


def link_by_name(a: Path, b: Path) -> None:
    b.symlink_to(a)


def link_hard(a: Path, b: Path) -> None:
    b.hardlink_to(a)


def link_through_folder(a: Path, b: Path) -> None:
    (b.parent / "folder").symlink_to(a.parent)
    b.symlink_to(Path("folder") / a.name)


@pytest.mark.parametrize("link", [link_by_name, link_hard, link_through_folder, None])
def test_the_input_itself_is_refused_even_with_force_through_any_link(tmp_path, link):
    given, out = tmp_path / "in.pt", tmp_path / "out.pt"
    given.write_bytes(b"input")
    if link is None:
        out = tmp_path / "x" / ".." / "in.pt"
        (tmp_path / "x").mkdir()
    else:
        link(given, out)
    with pytest.raises(NnoptError, match="is the input itself"):
        save(source_at(given), out, force=True)
    with pytest.raises(NnoptError, match="is the input itself"):
        save(source_at(out), given, force=True)
    assert given.read_bytes() == b"input"


def test_outputs_in_or_around_an_input_folder_are_refused(tmp_path):
    given = tmp_path / "home" / "model"
    given.mkdir(parents=True)
    shard = given / "model.safetensors"
    shard.write_bytes(b"data")
    settings = {"path": given, "files": (shard,), "format": "safetensors", "shards": {"w": shard.name}}
    source = checkpoint({"w": weight("w")}, **settings)
    (tmp_path / "link").symlink_to(given)
    for out, words in [
        (given, "is the input itself"),
        (tmp_path / "link", "is the input itself"),
        (given / "pruned", "lies inside the input folder"),
        (given / "pruned.safetensors", "lies inside the input folder"),
        (tmp_path / "home", "holds the input"),
    ]:
        with pytest.raises(NnoptError, match=words):
            save(source, out, force=True)
    assert names(given) == ["model.safetensors"]
    assert shard.read_bytes() == b"data"


def test_a_link_is_followed_and_stays(tmp_path):
    real, out = tmp_path / "disk" / "real.pt", tmp_path / "out.pt"
    real.parent.mkdir()
    real.write_bytes(b"old")
    out.symlink_to(real)
    save(source_at(tmp_path / "in.pt"), out, force=True)
    assert out.is_symlink()
    assert real.read_bytes()[:2] == b"PK"
    assert names(real.parent) == ["real.pt"]
    dangling = tmp_path / "dangling.pt"
    dangling.symlink_to(tmp_path / "disk" / "new.pt")
    save(source_at(tmp_path / "in.pt"), dangling)
    assert (tmp_path / "disk" / "new.pt").is_file()


def test_a_path_through_a_linked_folder_means_what_the_system_says(tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    save(source_at(tmp_path / "in.pt"), tmp_path / "link" / ".." / "out.pt")
    assert names(tmp_path / "disk") == ["deep", "out.pt"]


def test_places_that_cannot_be_written_are_said(tmp_path):
    source = source_at(tmp_path / "in.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe.pt")
    for out, words in [
        (tmp_path / "missing" / "out.pt", "missing does not exist"),
        (tmp_path / "folder.pt", "is a folder, and the output is a file"),
        (tmp_path / "file", "is a file, and the output is a folder"),
        (tmp_path / "pipe.pt", "not a regular file"),
        (tmp_path / "file" / "out.pt", "does not exist"),
        (Path("/"), "not a name"),
        (tmp_path / ("x" * 300 + ".pt"), "cannot be written: File name too long"),
    ]:
        with pytest.raises(NnoptError, match=words):
            save(source, out, force=True)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(NnoptError, match="Permission denied"):
        save(source_at(tmp_path / "in.pt"), tmp_path / "locked" / "out.pt")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_and_folders_get_the_mode_of_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save(source_at(tmp_path / "in.pt"), tmp_path / "out.pt")
        save(source_at(tmp_path / "in.pt"), tmp_path / "folder")
    finally:
        os.umask(before)
    assert (tmp_path / "out.pt").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder" / "model.safetensors").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_force_does_not_replace_a_folder_that_is_not_a_models(tmp_path):
    source = source_at(tmp_path / "in.pt")
    precious = tmp_path / "precious"
    (precious / "photos").mkdir(parents=True)
    with pytest.raises(NnoptError, match="other than a model's files"):
        save(source, precious, force=True)
    (precious / "model.safetensors").write_text("")
    with pytest.raises(NnoptError, match="other than a model's files"):
        save(source, precious, force=True)
    (precious / "photos").rmdir()
    with pytest.raises(NnoptError, match="already exists"):
        save(source, precious)
    save(source, precious, force=True)
    assert names(precious) == ["model.safetensors"]
    empty = tmp_path / "empty"
    empty.mkdir()
    save(source, empty)
    assert names(empty) == ["model.safetensors"]
    assert names(tmp_path) == ["empty", "precious"]


@pytest.mark.parametrize("plain", [False, True], ids=["rename-with-flags", "without"])
def test_what_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, plain):
    if plain:
        monkeypatch.setattr("nnopt_cli.formats.syscalls._rename", lambda *args: False)
    out = tmp_path / "out.pt"
    target = check_target(out, folder=False, force=False, inputs=[])
    with pytest.raises(NnoptError, match="already exists"), new_file(target, 3):
        out.write_bytes(b"theirs")
    assert out.read_bytes() == b"theirs"
    folder = check_target(tmp_path / "folder", folder=True, force=False, inputs=[])
    with pytest.raises(NnoptError, match="already exists"), new_folder(folder, 3):
        (tmp_path / "folder" / "theirs").mkdir(parents=True)
    assert names(tmp_path) == ["folder", "out.pt"]
    free = check_target(tmp_path / "free", folder=False, force=False, inputs=[])
    with new_file(free, 3) as file:
        file.write_at(b"new", 0)
    assert free.path.read_bytes() == b"new"


def test_renames_without_hard_links_still_refuse(tmp_path, monkeypatch):
    def refused(*args, **options):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("nnopt_cli.formats.syscalls._rename", lambda *args: False)
    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a", tmp_path / "b")
    rename_new(tmp_path / "a", tmp_path / "c")
    assert names(tmp_path) == ["b", "c"]


def test_exchange_swaps_two_folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot swap names")
    assert names(tmp_path / "a") == ["b"]


def test_a_folder_that_cannot_be_placed_is_put_back(tmp_path, monkeypatch):
    old = tmp_path / "folder"
    old.mkdir()
    (old / "model.safetensors").write_bytes(b"old")
    monkeypatch.setattr(atomic, "exchange", lambda a, b: False)
    rename = Path.rename

    def fails_once_moved(self, to):
        if self.name.endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails_once_moved)
    with pytest.raises(NnoptError, match="Input/output error"):
        save(source_at(tmp_path / "in.pt"), old, force=True)
    assert (old / "model.safetensors").read_bytes() == b"old"
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors", "folder"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_leaves_nothing_behind(tmp_path, name, error):
    def fail(words, start):
        raise error

    fail.unit = 1
    source = checkpoint({"w": weight("w").edited(fail)})
    with pytest.raises(error):
        save(source, tmp_path / name)
    assert names(tmp_path) == []


def test_an_input_that_ends_early_leaves_nothing_behind(tmp_path):
    (tmp_path / "in").write_bytes(bytes(100))
    w = FileWeight("w", DTYPES["float32"], (50,), InputFile(tmp_path / "in"), 0)
    with pytest.raises(UnreadableError):
        save(checkpoint({"w": w}), tmp_path / "out.pt")
    assert names(tmp_path) == ["in"]


def test_leftovers_of_dead_writers_of_the_same_output_are_removed_and_no_others(tmp_path):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    dead = f".out.pt.nnopt-{pid}-0123abcd.tmp"
    own = f".out.pt.nnopt-{os.getpid()}-0123abcd.tmp"  # every run in a container may have the same id
    live = f".out.pt.nnopt-{os.getppid()}-0123abcd.tmp"
    others = [f".other.pt.nnopt-{pid}-0123abcd.tmp", ".out.pt.swp", f".out.pt.nnopt-{pid}.tmp", "out.pt.bak"]
    for name in (dead, own, live, *others):
        (tmp_path / name).touch()
    (tmp_path / f".out.pt.nnopt-{pid}-0123abce.tmp").mkdir()
    save(source_at(tmp_path / "in.pt"), tmp_path / "out.pt")
    assert names(tmp_path) == sorted([live, *others, "out.pt"])


def test_two_writers_of_one_output_do_not_disturb_each_other(tmp_path):
    target = check_target(tmp_path / "out", folder=False, force=True, inputs=[])
    with new_file(target, 5) as first:
        first.write_at(b"first", 0)
        with new_file(target, 6) as second:  # same process id: only the lock tells that `first` is alive
            second.write_at(b"second", 0)
        assert target.path.read_bytes() == b"second"
    assert target.path.read_bytes() == b"first"
    assert names(tmp_path) == ["out"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)

    class Small:
        f_bavail, f_frsize, f_blocks = 1, 4096, real.f_blocks

    monkeypatch.setattr(os, "statvfs", lambda path: Small)
    unread = MemoryWeight("w", DTYPES["float32"], np.zeros(5000, np.float32))
    monkeypatch.setattr(MemoryWeight, "read_into", None)
    with pytest.raises(NnoptError, match=r"the disk is full: 2\d\.\d kB needed, 4\.1 kB free"):
        save(checkpoint({"w": unread}), tmp_path / "out.pt")
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync", "posix_fallocate"])
@pytest.mark.parametrize("name", ["out.pt", "folder"])
def test_a_disk_that_fills_up_meanwhile_is_said_and_nothing_is_left(tmp_path, monkeypatch, call, name):
    if not hasattr(os, call):
        pytest.skip(f"no {call} here")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(NnoptError, match="the disk is full"):
        save(source_at(tmp_path / "in.pt"), tmp_path / name)
    assert names(tmp_path) == []


def test_a_file_past_the_systems_limit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would leave half of it
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(NnoptError, match=r"2\d\.\d kB are more than one file may hold"):
            save(checkpoint({"w": weight("w", shape=(5000,))}), tmp_path / "out.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_a_file_system_without_preallocation_works(tmp_path, monkeypatch):
    def unknown(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    save(source_at(tmp_path / "in.pt"), tmp_path / "out.pt")
    assert (tmp_path / "out.pt").stat().st_size > 0


def test_long_names_work(tmp_path):
    out = tmp_path / ("x" * 250 + ".pt")
    save(source_at(tmp_path / "in.pt"), out)
    assert names(tmp_path) == [out.name]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (5e9, "5.0 GB"), (2e13, "20.0 TB")],
)
def test_sizes_for_people(size, text):
    assert human(size) == text
