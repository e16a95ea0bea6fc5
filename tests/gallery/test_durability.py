"""What was confirmed stays and what was removed is gone, with real processes: two writers, SIGKILL, full disks."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
import zlib
from multiprocessing import get_context

import pytest
import torch

from nl3d.gallery.gallery import Gallery
from nl3d.gallery.store import GalleryFile
from tests.data.pictures import picture
from tests.embedding.people import embeddings

FORK = get_context("fork")


def rows(names):
    """Embeddings of these names; every vector is drawn from its name, to be known again."""
    drawn = [torch.randn(64, generator=torch.Generator().manual_seed(hash_of(name))) for name in names]
    return embeddings(torch.stack(drawn), names=tuple(names), people=tuple(f"person of {name}" for name in names))


def hash_of(name):
    return zlib.crc32(name.encode())


def check_whole(path):
    """Every tracklet has its own vector and its thumbnail."""
    with Gallery(path) as gallery:
        names = [entry.name for entry in gallery.list()]
        if names:
            assert torch.equal(gallery.embeddings().embeddings, rows(names).embeddings)
            assert all(gallery.thumbnail(name) for name in names)
        assert gallery._file.value("PRAGMA integrity_check") == "ok"
    return set(names)


def add(gallery, names):
    made = rows(names)
    gallery.add(made, thumbnails={name: picture((hash_of(name) % 251, 9, 9)) for name in names})


def write_until_killed(path, pipe, number):
    """Add a few at a time, and say so once they are confirmed; remove some of its own."""
    draw = random.Random(number)
    gallery = Gallery(path, create=True)
    for step in range(10**6):
        names = [f"{number}/{step}/{place}" for place in range(draw.randint(1, 4))]
        add(gallery, names)
        os.write(pipe, f"+{' '.join(names)}\n".encode())
        if draw.random() < 0.2:
            os.write(pipe, f"?{names[0]}\n".encode())
            gallery.remove(name=names[0])
            os.write(pipe, f"-{names[0]}\n".encode())


@pytest.mark.parametrize("seed", range(4))
def test_two_writers_and_a_killed_one_lose_nothing_that_was_confirmed(tmp_path, seed):
    path, draw = tmp_path / "people.gallery", random.Random(seed)
    pipes = [os.pipe(), os.pipe()]
    writers = [FORK.Process(target=write_until_killed, args=(path, pipes[place][1], place)) for place in range(2)]
    for writer in writers:
        writer.start()
    time.sleep(draw.uniform(0.2, 1.0))
    os.kill(writers[0].pid, signal.SIGKILL)
    time.sleep(0.3)  # the other one goes on
    os.kill(writers[1].pid, signal.SIGKILL)
    confirmed, perhaps = set(), set()
    for writer, (reading, writing) in zip(writers, pipes, strict=True):
        writer.join()
        os.close(writing)
        with os.fdopen(reading) as lines:
            for line in lines:
                names = set(line[1:].split())
                confirmed = confirmed | names if line[0] == "+" else confirmed - names
                perhaps = perhaps | names if line[0] == "?" else perhaps - names
    assert confirmed
    found = check_whole(path)
    assert confirmed <= found  # what is removed is announced before
    extra = found - confirmed - perhaps
    assert len({name.rsplit("/", 1)[0] for name in extra}) <= 2  # an addition each that was not announced yet
    with Gallery(path) as gallery:
        add(gallery, ["after"])
    assert sorted(name.name for name in tmp_path.iterdir()) == ["people.gallery"]


def test_many_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "people.gallery"

    def work(number):
        gallery = Gallery(path, create=True)
        for step in range(8):
            add(gallery, [f"{number}/{step}"])
        if number % 2:
            gallery.remove(name=[f"{number}/{step}" for step in range(4)])

    writers = [FORK.Process(target=work, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    expected = {f"{number}/{step}" for number in range(4) for step in range(8) if step >= 4 or not number % 2}
    assert check_whole(path) == expected


def test_a_writer_that_waits_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("nl3d.gallery.store.WAIT_SECONDS", 0.2)
    path = tmp_path / "people.gallery"
    gallery = Gallery(path, create=True)
    with GalleryFile(path).writing(), pytest.raises(TimeoutError, match="was in use by another process for 0 s"):
        add(gallery, ["a"])
    add(gallery, ["a"])


def fill(path):
    """Add until the disk is full; gives what was confirmed and the error."""
    confirmed, gallery = [], Gallery(path, create=True)
    for step in range(10**6):
        names = [f"{step}/{place}" for place in range(50)]
        try:
            add(gallery, names)
        except OSError as error:
            return confirmed, str(error)
        confirmed += names
    raise AssertionError


def test_a_full_quota_loses_nothing_that_was_confirmed(tmp_path):
    path = tmp_path / "people.gallery"

    def work(pipe):
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        confirmed, error = fill(path)
        os.write(pipe, f"{len(confirmed)}\n{error}\n".encode())

    reading, writing = os.pipe()
    writer = FORK.Process(target=work, args=(writing,))
    writer.start()
    writer.join()
    os.close(writing)
    with os.fdopen(reading) as lines:
        count, error = lines.read().splitlines()
    assert int(count) >= 100
    assert "people.gallery' cannot be used: " in error
    assert error.endswith("; nothing was changed")
    assert len(check_whole(path)) == int(count)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_loses_nothing_that_was_confirmed(small_disk):
    ballast, path = small_disk / "ballast", small_disk / "people.gallery"
    ballast.write_bytes(bytes(2_400_000))
    confirmed, error = fill(path)
    assert len(confirmed) >= 100
    assert "database or disk is full; nothing was changed" in error
    assert check_whole(path) == set(confirmed)
    with Gallery(path) as gallery:
        with pytest.raises(OSError, match="database or disk is full"):
            gallery.remove(name=confirmed[::2])
        ballast.unlink()
        assert gallery.remove(name=confirmed[::2]) == len(confirmed[::2])
        add(gallery, ["again"])
    assert check_whole(path) == {*confirmed[1::2], "again"}


def everything(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", range(3))
def test_no_byte_of_what_was_removed_is_left(tmp_path, seed):
    """Pieces of vectors, thumbnails, names and people are looked for in every file beside the gallery."""
    draw = random.Random(seed)
    gallery = Gallery(tmp_path / "people.gallery", create=True)
    kept, gone = [], []
    for step in range(12):
        names = [f"tracklet-{draw.getrandbits(64):x}-{step}" for _ in range(draw.randint(20, 60))]
        noise = {name: torch.randint(0, 256, (3, 32, 16), dtype=torch.uint8) for name in names}
        gallery.add(rows(names), thumbnails=noise, camera=f"{step}")
        kept += [(name, *row) for name, row in zip(names, pieces(gallery, names), strict=True)]
        chosen = draw.sample(kept, draw.randint(1, len(kept) // 2))
        gallery.remove(name=[row[0] for row in chosen])
        gone, kept = gone + chosen, [row for row in kept if row not in chosen]
    content = everything(tmp_path)
    for name, *parts in gone:
        assert not [part for part in (name.encode(), *parts) if part in content], name
    for name, *parts in kept:
        assert all(part in content for part in (name.encode(), *parts))
    gallery.prune("0s")
    content = everything(tmp_path)
    assert not [part for name, *parts in kept for part in (name.encode(), *parts) if part in content]


def pieces(gallery, names):
    """Parts of vector and thumbnail of some tracklets, which others do not have."""
    for name in names:
        vector = rows([name]).embeddings.numpy().tobytes()
        jpeg = gallery.thumbnail(name)
        yield vector[:16], vector[120:136], vector[-16:], jpeg[-240:-210], jpeg[-40:-10]


def test_a_removal_that_was_killed_before_its_end_is_finished_by_the_next(tmp_path, monkeypatch):
    gallery = Gallery(tmp_path / "people.gallery", create=True)
    add(gallery, [f"n{place}" for place in range(200)])

    def die():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gallery._file, "rewrite", die)
        with pytest.raises(KeyboardInterrupt):
            gallery.remove(name="n7")
    assert gallery.stats()["rewrite_pending"]
    assert "n7" not in gallery
    assert gallery.prune("30d") == 0
    assert not gallery.stats()["rewrite_pending"]


def test_a_removal_that_cannot_be_rewritten_says_what_was_done(tmp_path, monkeypatch):
    gallery = Gallery(tmp_path / "people.gallery", create=True)
    add(gallery, ["a", "b"])

    def full():
        raise OSError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(gallery._file, "rewrite", full)
        with pytest.raises(OSError, match=r"were removed, but .* until nl3d gallery optimize succeeds: "):
            gallery.remove(name="a")
    assert [entry.name for entry in gallery.list()] == ["b"]
