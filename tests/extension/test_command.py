"""A command of another package, found by its entry point, and one of this process."""

import sys

import pytest

import nl3d.cli

MODULE = """
import sys


def add_parser(commands):
    parser = commands.add_parser("count", help="count letters", description="Count the letters of a word.")
    parser.add_argument("word")
    parser.set_defaults(run=run)


def run(args):
    if not args.word.isalpha():
        raise ValueError(f"word must be of letters, got {args.word!r}")
    sys.stdout.write(f"{len(args.word)}\\n")
    return 3 if len(args.word) > 5 else None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package with a command, one without the module that it names, and one of a name that is taken."""
    (tmp_path / "toy_nl3d_command.py").write_text(MODULE)
    about = tmp_path / "toy_nl3d_command-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-nl3d-command\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[nl3d.commands]\ncount = toy_nl3d_command:add_parser\nbroken = toy_nl3d_missing:add_parser\n"
        "embed = toy_nl3d_command:add_parser\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_command_of_a_package(capsys):
    assert nl3d.cli.main(["count", "walker"]) == 3
    assert capsys.readouterr().out == "6\n"
    assert nl3d.cli.main(["count", "gait"]) == 0
    assert nl3d.cli.main(["count", "3d"]) == 2
    told = capsys.readouterr().err
    assert "nl3d: word must be of letters, got '3d'" in told
    assert "command 'broken' of toy_nl3d_missing:add_parser cannot be loaded: ModuleNotFoundError" in told
    assert "command 'embed' of toy_nl3d_command:add_parser is left out, since the name is taken" in told
    assert nl3d.cli.main([]) == 0
    assert "count letters" in capsys.readouterr().out


def test_command_of_this_process(monkeypatch, capsys):
    monkeypatch.setattr(nl3d.cli, "_registered", {})

    def add_parser(commands):
        commands.add_parser("hello", help="say hello").set_defaults(
            run=lambda args: sys.stdout.write("hello\n") and None
        )

    nl3d.cli.register_command("hello", add_parser)
    assert nl3d.cli.main(["hello"]) == 0
    assert capsys.readouterr().out == "hello\n"
    for taken in ("hello", "train"):
        with pytest.raises(ValueError, match=f"must have a name of its own, got '{taken}', which is taken"):
            nl3d.cli.register_command(taken, add_parser)
