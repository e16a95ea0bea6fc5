"""The table of commands, and training from the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nl3d.cli
from nl3d.embedding.embeddings import Embeddings
from tests.data.pictures import write_jpeg
from tests.training.toys import WALKERS

ROOT = Path(__file__).parents[2]
COMMANDS = tuple(nl3d.cli._COMMANDS)
TOY = [
    "--dataset=walkers", f"--data-args={json.dumps(WALKERS)}", "--num-pids=4", "--num-tracklets=2", "--num-workers=0",
    "--no-board", "--epochs=1",
]  # fmt: skip


def run(*arguments):
    return nl3d.cli.main([str(argument) for argument in arguments])


def test_no_command_prints_the_help(capsys):
    assert run() == 0
    told = capsys.readouterr()
    assert {*COMMANDS} <= {
        line.split()[0] for line in told.out.splitlines() if line.startswith("    ") and line.strip()
    }
    assert told.err == ""


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_every_help_ends_with_an_example_that_parses(capsys, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as ended:
        run(*command, "--help")
    assert ended.value.code == 0
    example = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert example.startswith(f"example: nl3d {' '.join(command)}")
    nl3d.cli.build_parser().parse_args(example.split()[2:])


def test_bundled_network_is_fine_tuned_exported_and_embeds(tmp_path, capsys):
    for person, colour in (("1", (200, 0, 0)), ("2", (0, 0, 200))):
        write_jpeg(tmp_path / "people" / person / "0.jpg", colour=colour, size=(40, 20))
    arguments = ["train", *TOY, "--weights=bundled", "--output", tmp_path / "run"]
    assert run(*arguments) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {"model": "resnet3d18_nl", "embedding_dim": 256, "last_stride": 1, "dropout": 0.0, "num_frames": 4,
                "frame_step": 8, "height": 96, "width": 48}  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert run("export", tmp_path / "run", "--output", tmp_path / "weights") == 0
    assert run("embed", tmp_path / "people", "--weights", tmp_path / "weights", "--output", tmp_path / "a.safetensors",
               "--device=cpu") == 0  # fmt: skip
    assert Embeddings.load(tmp_path / "a.safetensors").embeddings.shape == (2, 256)
    capsys.readouterr()
    again = [*TOY, "--weights", tmp_path / "run", "--output", tmp_path / "again"]
    assert run("train", *again, "--height=64", "--width=32") == 0
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["model"], config["embedding_dim"], config["height"]) == ("resnet3d18_nl", 256, 64)


def test_interrupted_training_says_how_to_resume(tmp_path):
    small = [
        "--model=small_3d",
        "--height=32",
        "--width=16",
        "--num-frames=2",
        "--epochs=100000",
        "--eval-every=100000",
    ]
    command = [sys.executable, "-m", "nl3d", "train", *TOY, *small, f"--output={tmp_path}"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "last.safetensors").is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "nl3d: interrupted; the same command resumes from the last checkpoint"
    assert "Traceback" not in told


def test_plain_loop_runs():
    command = [sys.executable, str(ROOT / "examples" / "plain_loop.py"), "--epochs=1", "--people=24", "--channels=4"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    assert told.startswith("epoch 1: loss ")
    assert "rank-1 " in told
