"""Damaged files through every reader: ``python -m tests.fuzz [--minutes N] [--kinds KIND ...] [--seed S]``.

Every case is a valid small file with random damage, read in a process of its own through a public door. It must end
with success or with one of nl3d's refusals (ValueError, TypeError, OSError, ImportError; exit status 0 or 2 of a
command), within twenty seconds, and with at most twice the file plus 400 MiB of memory. What does not is kept, with its
traceback, in the folder that the last line names; ``--kinds KIND --seed S --cases 1`` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SECONDS = 20
ALLOWED_BYTES = 400 * 2**20
REFUSALS = (ValueError, TypeError, OSError, ImportError)
READ, LEAKED, REFUSED = 0, 1, 2  # exit statuses of the process that reads

NUMBERS = [
    b"-1", b"0", b"1e308", b"-1e308", b"nan", b"inf", b"3.0", b"0x10", b"99999999999999999999", b"9223372036854775808",
    b"", b"1_0", b"1e-400", b"4294967295", b"'7'", b'"7', "\u0663".encode(),
]  # fmt: skip
BYTES = [
    b"\x00" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b'"',
]


def damage(data: bytes, draw: random.Random) -> bytes:
    """Change a file in one to four places."""
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data) + 1)
        end = min(len(data), place + draw.choice([1, 1, 2, 4, 8, 64, 4096]))
        kind = draw.randrange(8)
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[:place] + data[end:]
        elif kind == 2:
            data = data[:place] + data[place:end] * draw.choice([2, 3, 50]) + data[end:]
        elif kind == 3:
            data = data[:place] + draw.randbytes(end - place) + data[end:]
        elif kind == 4:
            piece = draw.choice(BYTES)
            data = data[:place] + piece + data[place + len(piece) :]
        elif kind == 5 and data:
            bit = draw.randrange(8 * len(data))
            data = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        elif kind == 6:
            lines = data.split(b"\n")
            draw.shuffle(lines)
            data = b"\n".join(lines)
        else:
            numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[:100_000]))
            if numbers:
                found = draw.choice(numbers)
                data = data[: found.start()] + draw.choice(NUMBERS) + data[found.end() :]
    return data


def command(*arguments: object) -> None:
    """Run a command of nl3d in this process; exit status 2 is a refusal."""
    from nl3d.cli import main

    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):  # noqa: PTH123
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
    if status == 2:
        raise ValueError("refused")
    if status:
        raise AssertionError(f"exit status {status}")


def make_seeds(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Write one valid file of each kind; gives the file to damage and what reads it."""
    import numpy as np
    import torch

    import nl3d
    from tests.data.films import film, write_boxes, write_video
    from tests.data.pictures import write_jpeg
    from tests.embedding.people import TinyNet, embeddings

    torch.set_num_threads(1)
    net = TinyNet().eval()
    kinds: dict[str, tuple[Path, Callable[[Path], object]]] = {}

    def add(name: str, path: Path, read: Callable[[Path], object]) -> None:
        kinds[name] = path, read

    def embed(source: Path, **options: object) -> object:
        return nl3d.embed(source, net, progress=False, output_layer="features", **options)

    # checkpoints
    small = {"block": "basic", "block_counts": (1, 1, 1, 1), "base_width": 4}
    from nl3d.models.resnet3d import ResNet3d

    network = ResNet3d(**small)
    tensors = network.state_dict()
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "zip.pth")
    torch.save({"state_dict": tensors}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    network.save_pretrained(folder / "saved")
    import pickle

    (folder / "plain.pkl").write_bytes(pickle.dumps({"blobs": {k: v.numpy() for k, v in tensors.items()}}, protocol=2))
    for name in ("zip.pth", "legacy.pth", "plain.pkl"):
        add(name, folder / name, nl3d.from_checkpoint)
    add("model.safetensors", folder / "saved" / "model.safetensors", nl3d.from_checkpoint)
    add("config.json", folder / "saved" / "config.json", lambda path: ResNet3d.from_pretrained(path.parent))

    # embeddings and labels
    people = embeddings(torch.randn(6, 4), pids=torch.tensor([1, 1, 2, 2, 3, -1]), camids=torch.tensor([1, 2] * 3))
    people.save(folder / "own.safetensors")
    columns = {"embeddings": people.embeddings, "pids": people.pids, "camids": people.camids}
    arrays = {name: values.numpy() for name, values in columns.items()}
    np.savez(folder / "other.npz", names=np.array(people.names), **arrays)
    np.save(folder / "other.npy", arrays["embeddings"])
    torch.save({**columns, "names": list(people.names)}, folder / "other.pt")
    for name in ("own.safetensors", "other.npz", "other.pt"):
        add(name, folder / name, lambda path: command("evaluate", path))
    rows = [f"{name},{pid},{cam}" for name, pid, cam in zip(people.names, [1, 1, 2, 2, 3, -1], [1, 2] * 3, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["tracklet,pid,camid", *rows]) + "\n")
    add(
        "labels.csv",
        folder / "labels.csv",
        lambda path: command("evaluate", folder / "own.safetensors", "--labels", path),
    )
    add("other.npy", folder / "other.npy", lambda path: command("evaluate", path, "--labels", folder / "labels.csv"))
    add("rank", folder / "own.safetensors", lambda path: command("rank", path, path, "--top", "2"))

    # tables, images, boxes, videos
    for number in range(1, 5):
        write_jpeg(folder / "frames" / f"{number:06d}.jpg", (40 * number, 90, 30), (48, 64))
    table = [f"frames/{n:06d}.jpg,{n % 2},{n % 2 + 1},{'ab'[n % 2]},query,{n}" for n in range(1, 5)]
    (folder / "table.csv").write_text("\n".join(["path,pid,camid,tracklet,part,frame", *table]) + "\n")
    add("table.csv", folder / "table.csv", embed)
    add("manifest.csv", folder / "table.csv", nl3d.data.read_manifest)
    (folder / "one.csv").write_text("path\nframes/000001.jpg\n")
    add("image.jpg", folder / "frames" / "000001.jpg", lambda path: embed(folder / "one.csv"))
    from PIL import Image

    for suffix in ("png", "webp"):
        Image.fromarray(film(1)[0]).save(folder / f"image.{suffix}")
        (folder / f"{suffix}.csv").write_text(f"path\nimage.{suffix}\n")
        add(f"image.{suffix}", folder / f"image.{suffix}", lambda path: embed(folder / f"{path.suffix[1:]}.csv"))
    boxes = [(frame, track, 5 * track, 4, 12, 30) for frame in range(1, 5) for track in (1, 2)]
    write_boxes(folder / "boxes.txt", boxes)
    add("boxes.txt", folder / "boxes.txt", lambda path: embed(folder / "frames", tracks=path))
    write_video(folder / "film.mkv", film(4))
    add("film.mkv", folder / "film.mkv", lambda path: embed(path, tracks=folder / "boxes.txt"))
    import scipy.io

    tracks = np.array([[1, 4, 1, 1], [5, 8, 2, 2]])
    scipy.io.savemat(folder / "tracks.mat", {"track_test_info": tracks})
    from nl3d.data.readers.matfiles import read_mat

    add("tracks.mat", folder / "tracks.mat", lambda path: read_mat(path, "track_test_info"))
    return kinds


def run_case(folder: Path, name: str, path: Path, read: Callable[[Path], object], data: bytes) -> tuple[str, str]:
    """Read the damaged file in a process of its own; gives the outcome and, where it is bad, what was seen."""
    report = folder / "report.txt"
    report.write_text("")
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        code = LEAKED
        try:
            path.write_bytes(data)
            signal.alarm(SECONDS)
            here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = here + 4 * 2**30  # a bomb must not eat the machine; the finer bound is looked at afterwards
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):  # noqa: PTH123
                read(path)
            code = READ
        except REFUSALS:
            code = REFUSED
        except BaseException:
            report.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    path.write_bytes(before)
    grown = usage.ru_maxrss * 1024 - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        outcome = "too long" if number == signal.SIGALRM else f"killed by {signal.Signals(number).name}"
        return outcome, outcome
    if grown > 2 * len(data) + ALLOWED_BYTES:
        return "memory", f"{grown / 2**20:.0f} MiB for a file of {len(data)} bytes"
    if os.WEXITSTATUS(status) == LEAKED:
        return "traceback", report.read_text()
    return "read" if os.WEXITSTATUS(status) == READ else "refused", ""


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="+", help="only these kinds of files")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each case has the next number")
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="at most as many")
    arguments = parser.parse_args()
    failures = Path(tempfile.mkdtemp(prefix="nl3d-fuzz-"))
    outcomes: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="nl3d-fuzz-") as work:
        kinds = make_seeds(Path(work))
        names = [name for name in kinds if arguments.kinds is None or name in arguments.kinds]
        for name, (path, read) in kinds.items():
            outcome, seen = run_case(Path(work), name, path, read, path.read_bytes())
            if outcome != "read":
                raise AssertionError(f"the undamaged {name} must be read, but was {outcome} {seen}")
        end = time.monotonic() + 60 * arguments.minutes
        seed = arguments.seed
        while time.monotonic() < end and seed - arguments.seed < arguments.cases:
            draw = random.Random(seed)
            name = names[seed % len(names)]
            path, read = kinds[name]
            data = damage(path.read_bytes(), draw)
            outcome, seen = run_case(Path(work), name, path, read, data)
            outcomes[name, outcome] += 1
            if outcome not in ("read", "refused"):
                (failures / f"{seed}-{name}").write_bytes(data)
                (failures / f"{seed}-{name}.txt").write_text(seen)
            seed += 1
    bad = 0
    for (name, outcome), count in sorted(outcomes.items()):
        if outcome not in ("read", "refused"):
            bad += count
            sys.stdout.write(f"{name}: {count} {outcome}\n")
    total = sum(outcomes.values())
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused")
    sys.stdout.write(
        f"{total} cases of {len(names)} kinds, {refused} refused, {bad} bad"
        + (f", kept in {failures}" if bad else "")
        + "\n"
    )
    if not bad:
        shutil.rmtree(failures)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
