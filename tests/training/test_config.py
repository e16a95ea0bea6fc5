import argparse
import dataclasses

import pytest

from nl3d.training.config import TrainingConfig, add_options, config_from, read_config, recipe


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return config_from(parser.parse_args(arguments))


def test_defaults_are_the_paper_s_recipe():
    config = TrainingConfig()
    expected = {
        "model": "resnet3d50_nl", "num_frames": 8, "frame_step": 8, "height": 256, "width": 128, "enlarge": 1.125,
        "optimizer": "adam", "lr": 3e-4, "weight_decay": 5e-4, "epochs": 300, "schedule": "exponential",
        "decay_start": 0.5, "final_factor": 0.001, "num_pids": 32, "num_tracklets": 4, "label_smoothing": 0.1,
        "margin": 0.3, "dropout": 0.5, "last_stride": 2, "ema": 0.0, "erasing": 0.0, "warmup": 0.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert recipe("paper") == config == parse()


def test_modern_recipe_and_each_part_of_it_switched_off():
    config = recipe("modern")
    assert (config.last_stride, config.schedule, config.head) == (1, "cosine", "bnneck")
    assert config.warmup > 0
    assert config.erasing > 0
    assert config.ema > 0
    assert parse("--recipe", "modern") == config
    given = parse("--recipe", "modern", "--ema", "0", "--head", "bottleneck", "--last-stride", "2")
    assert given == dataclasses.replace(config, ema=0.0, head="bottleneck", last_stride=2)


def test_command_line_reads_every_kind_of_option():
    config = parse(
        "--dataset", "ilids-vid", "--root", "here", "--data-args", '{"seed": 3}', "--lr", "1e-3", "--epochs", "7",
        "--compile", "--precision", "bf16", "--split", "9", "--weights", "runs/mars",
    )  # fmt: skip
    assert (config.root, config.data_args, config.lr, config.epochs) == ("here", {"seed": 3}, 1e-3, 7)
    assert (config.compile, config.precision, config.split, config.weights) == (True, "bf16", 9, "runs/mars")


@pytest.mark.parametrize(
    "arguments", [("--data-args", "[1]"), ("--data-args", "{"), ("--precision", "fp4"), ("--x", "1")]
)
def test_command_line_refuses(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert arguments[0] in capsys.readouterr().err


def test_help_shows_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for item in dataclasses.fields(TrainingConfig):
        assert f"--{item.name.replace('_', '-')}" in shown
    assert "learning rate (default: 0.0003)" in shown


def test_json_there_and_back(tmp_path):
    config = recipe("modern", data_args={"size": [64, 32]}, seed=3)
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path / "config.json") == config
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_config(tmp_path / "other")
    with pytest.raises(ValueError, match=r"options of this version only, got .*speed"):
        TrainingConfig.from_json('{"speed": 1}')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"num_tracklets": 1}, "num_tracklets must be at least 2, got 1"),
        ({"flip": 1.5}, "flip must be from 0 to 1, got 1.5"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, got 1.0"),
        ({"enlarge": 0.9}, "enlarge must be at least 1, got 0.9"),
        ({"accumulate": 5}, "accumulate must divide num_pids=32"),
        ({"accumulate": 32, "mining": "micro"}, "leave two to mine in, got 32"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, got 'lion'"),
        ({"weights": "a", "inflate_from": "b"}, "must not both be given"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_refuses_unknown_recipes_and_options():
    with pytest.raises(ValueError, match="recipe must be one of paper, modern, got 'best'"):
        recipe("best")
    with pytest.raises(TypeError, match="learning_rate"):
        recipe("paper", learning_rate=1.0)
