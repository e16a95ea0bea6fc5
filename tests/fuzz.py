"""Damaged files through every reader: ``python -m tests.fuzz [--minutes N] [--seed S] [--kinds KIND ...]``.

Every case is a valid small file with random damage (:mod:`tests.fuzz_kinds`), read in a process of its own through a
public door. It must end with success or with one of nl3d's refusals (ValueError, TypeError, OSError, ImportError; exit
status 0 or 2 of a command), within twenty seconds of one core, and with at most twice the file plus 400 MiB of
memory. What does not is kept, with its traceback, in the folder that the last line names. A case depends on its seed
alone: ``--kinds KIND --seed S --cases 1`` repeats it.
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
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SECONDS = 20  # of one core
ALLOWED_BYTES = 400 * 2**20
REFUSALS = (ValueError, TypeError, OSError, ImportError)
GOOD = ("read", "refused")
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
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            signal.alarm(10 * SECONDS)  # for what waits instead
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
        outcome = (
            "too long" if number in (signal.SIGALRM, signal.SIGXCPU) else f"killed by {signal.Signals(number).name}"
        )
        return outcome, outcome
    if grown > 2 * len(data) + ALLOWED_BYTES:
        return "memory", f"{grown / 2**20:.0f} MiB for a file of {len(data)} bytes"
    if os.WEXITSTATUS(status) == LEAKED:
        return "traceback", report.read_text()
    return "read" if os.WEXITSTATUS(status) == READ else "refused", ""


def run_cases(worker: int, arguments: argparse.Namespace, failures: Path) -> Counter[tuple[str, str]]:
    """Run every ``workers``-th case until the time is over; gives how often each kind had each outcome."""
    from tests.fuzz_kinds import make_kinds

    outcomes: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="nl3d-fuzz-") as work:
        kinds = make_kinds(Path(work))
        names = [name for name in kinds if arguments.kinds is None or name in arguments.kinds]
        for name in names[worker :: arguments.workers]:
            path, read = kinds[name]
            outcome, seen = run_case(Path(work), name, path, read, path.read_bytes())
            if outcome != "read":
                raise AssertionError(f"the undamaged {name} must be read, but was {outcome} {seen}")
        end = time.monotonic() + 60 * arguments.minutes
        for case in range(worker, arguments.cases, arguments.workers):
            if time.monotonic() > end:
                break
            seed = arguments.seed + case
            name = names[seed % len(names)]
            path, read = kinds[name]
            data = damage(path.read_bytes(), random.Random(seed))
            outcome, seen = run_case(Path(work), name, path, read, data)
            outcomes[name, outcome] += 1
            if outcome not in GOOD:
                (failures / f"{seed}-{name}").write_bytes(data)
                (failures / f"{seed}-{name}.txt").write_text(seen)
    return outcomes


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="+", help="only these kinds of files")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each case has the next number")
    parser.add_argument("--cases", type=int, default=2**31, help="at most as many")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one per core)")
    arguments = parser.parse_args()
    failures = Path(tempfile.mkdtemp(prefix="nl3d-fuzz-"))
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = [pool.submit(run_cases, worker, arguments, failures) for worker in range(arguments.workers)]
        outcomes = sum((future.result() for future in found), Counter())
    bad = 0
    for (name, outcome), count in sorted(outcomes.items()):
        if outcome not in GOOD:
            bad += count
            sys.stdout.write(f"{name}: {count} {outcome}\n")
    total, names = sum(outcomes.values()), {name for name, _ in outcomes}
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused")
    sys.stdout.write(
        f"fuzz: {total} cases from seed {arguments.seed} of {len(names)} kinds, {refused} refused, {bad} bad"
        + (f", kept in {failures}" if bad else "")
        + "\n"
    )
    if not bad:
        shutil.rmtree(failures)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
