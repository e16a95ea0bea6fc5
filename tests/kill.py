"""SIGKILL at random moments over whatever writes: ``python -m tests.kill [--times N] [--seed S] [--jobs JOB ...]``.

Each job runs in a process of its own, which is killed at a random moment, and is then repeated to its end. After the
kill its output must be the old one, whole, or the new one, whole; after the repetition it must be the new one, and
nothing else may be left beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

import nl3d
from nl3d.cli import main as nl3d_main
from nl3d.models.resnet3d import ResNet3d
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet, embeddings
from tests.training.toys import toy_config

SMALL = {"block": "basic", "block_counts": (1, 1, 1, 1), "base_width": 4}


class Job(NamedTuple):
    """What is killed.

    Attributes:
        work: Writes its output, given the folder; may be repeated.
        check: Refuses, by an assertion, a folder that holds neither the old output nor the new one; says which it is.
        leftovers: Names beside the output that may be there after a finished run.
    """

    work: Callable[[Path], None]
    check: Callable[[Path], str]
    leftovers: set[str]


def _command(*arguments: object) -> None:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):  # noqa: PTH123
        assert nl3d_main([str(argument) for argument in arguments]) == 0


def make_jobs(shared: Path) -> dict[str, Job]:
    """Write the inputs that jobs share, and describe the jobs."""
    for number in range(24):
        write_jpeg(shared / "frames" / f"{number:04d}.jpg", (10 * number, 90, 30))
    rows = [f"frames/{number:04d}.jpg,{number % 3},{number % 2},t{number // 2}" for number in range(0, 24, 2)]
    (shared / "table.csv").write_text("\n".join(["path,pid,camid,tracklet", *rows]) + "\n")
    torch.manual_seed(0)
    net, people = TinyNet().eval(), embeddings(torch.randn(400, 64))
    old, new = ResNet3d(**SMALL), ResNet3d(**{**SMALL, "embedding_dim": 16})
    people.save(shared / "gallery.safetensors")

    def embed(folder: Path) -> None:
        output = folder / "out.safetensors"
        nl3d.embed_to_file(shared / "table.csv", net, output, batch_size=1, batches_per_part=1, progress=False)

    def check_embedded(folder: Path) -> str:
        output = folder / "out.safetensors"
        if not output.exists():
            return "none"
        assert len(nl3d.Embeddings.load(output)) == 12
        return "new"

    def save(folder: Path) -> None:
        people.save(folder / "people.safetensors", overwrite=True)

    def check_saved(folder: Path) -> str:
        path = folder / "people.safetensors"
        if not path.exists():
            return "none"
        assert torch.equal(nl3d.Embeddings.load(path).embeddings, people.embeddings)
        return "new"

    def save_network(folder: Path) -> None:
        if not (folder / "network").exists():
            old.save_pretrained(folder / "network")
        new.save_pretrained(folder / "network")

    def check_network(folder: Path) -> str:
        if not (folder / "network" / "model.safetensors").exists():
            return "none"
        width = ResNet3d.from_pretrained(folder / "network").embedding_dim
        assert width in (16, 512)
        return "new" if width == 16 else "old"

    def index(folder: Path) -> None:
        gallery = shared / "gallery.safetensors"
        _command("rank", gallery, gallery, "--top", "2", "--index", "faiss", "--index-kind", "ivfpq",
                 "--index-file", folder / "gallery.index", "--recall-queries", "0", "--rebuild-index")  # fmt: skip

    def check_index(folder: Path) -> str:
        path = folder / "gallery.index"
        if not path.exists():
            return "none"
        from nl3d.retrieval.search.index import GalleryIndex

        GalleryIndex.open(path, people)
        return "new"

    def gallery(folder: Path) -> None:
        with nl3d.Gallery(folder / "people.gallery", create=True) as opened:
            for prefix in "abcd":
                if f"{prefix}t0" not in opened:
                    opened.add(people, prefix=prefix, person=prefix, thumbnails=False)
            if "at0" in opened and "dt0" in opened and len(opened) == 4 * len(people):
                opened.remove(name=["at1"])
            opened.optimize()

    def check_gallery(folder: Path) -> str:
        path = folder / "people.gallery"
        if not path.exists() or not path.stat().st_size:
            return "none"
        with nl3d.Gallery(path) as opened:
            count = len(opened)
            assert count % len(people) == 0 or count == 4 * len(people) - 1
            if count:
                stored = opened.embeddings(person="b" if "bt0" in opened else "a").embeddings
                assert torch.equal(stored, people.embeddings)
        return "new" if count == 4 * len(people) - 1 else "old"

    def train(folder: Path) -> None:
        from nl3d.training.run import run_training

        run_training(toy_config(epochs=2, checkpoint_every=1), folder / "run", board=False)

    def check_trained(folder: Path) -> str:
        from nl3d.training.load import load_run

        if not (folder / "run" / "last.safetensors").exists():
            return "none"
        load_run(folder / "run")
        return "new" if (folder / "run" / "result.json").exists() else "old"

    def convert(folder: Path) -> None:
        from weights_tools.cli import main as weights_main

        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # noqa: PTH123
            output = folder / "converted.safetensors"
            output.unlink(missing_ok=True)
            assert weights_main(["convert", str(shared / "foreign.pth"), "--output", str(output)]) == 0

    def check_converted(folder: Path) -> str:
        path = folder / "converted.safetensors"
        if not path.exists():
            return "none"
        nl3d.from_checkpoint(path)
        return "new"

    torch.save({"state_dict": old.state_dict()}, shared / "foreign.pth")
    return {
        "embed": Job(embed, check_embedded, {"out.safetensors"}),
        "save": Job(save, check_saved, {"people.safetensors"}),
        "save_pretrained": Job(save_network, check_network, {"network"}),
        "index": Job(index, check_index, {"gallery.index"}),
        "gallery": Job(gallery, check_gallery, {"people.gallery"}),
        "train": Job(train, check_trained, {"run"}),
        "convert": Job(convert, check_converted, {"converted.safetensors"}),
    }


def in_process(work: Callable[[Path], None], folder: Path, *, kill_after: float | None = None) -> float:
    """Run in a process of its own, killed after some seconds or left alone; gives how long it ran."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            work(folder)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert kill_after is not None or status == 0, f"the job failed with status {status}"
    return time.monotonic() - started


def kill_once(job: Job, draw: random.Random, seconds: float) -> str:
    """Kill a job at a random moment of its usual duration, repeat it; gives what was there after the kill."""
    with tempfile.TemporaryDirectory(prefix="nl3d-kill-") as name:
        folder = Path(name)
        in_process(job.work, folder, kill_after=draw.uniform(0, seconds))
        found = job.check(folder)
        in_process(job.work, folder)
        assert job.check(folder) == "new"
        beside = {path.name for path in folder.iterdir()} - job.leftovers
        hidden = {path.name for pattern in (".*", "*unfinished*") for path in folder.rglob(pattern)} - {".lock"}
        assert not beside | hidden, f"left behind: {sorted(beside | hidden)}"
    return found


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="kills in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", help="only these jobs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw, outcomes, bad = random.Random(arguments.seed), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory(prefix="nl3d-kill-") as shared:
        jobs = make_jobs(Path(shared))
        names = arguments.jobs or list(jobs)
        seconds = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                seconds[name] = in_process(jobs[name].work, Path(folder))
        for number in range(arguments.times):
            name = names[number % len(names)]
            try:
                outcomes[name, kill_once(jobs[name], draw, seconds[name])] += 1
            except (AssertionError, ValueError, OSError) as error:
                bad += 1
                sys.stdout.write(f"{name}, kill {number}: {error}\n")
    for (name, found), count in sorted(outcomes.items()):
        sys.stdout.write(f"{name}: {count} times {found} after the kill\n")
    sys.stdout.write(f"{arguments.times} kills, {bad} bad\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
