"""The example scripts as they are run, at toy size, and what a run becomes afterwards."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from nl3d.cli import main
from nl3d.deploy.export import export
from nl3d.models.resnet3d import ResNet3d
from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.load import load_run
from nl3d.training.run import run_training
from nl3d.training.summary import split_summary
from tests.data.layouts import write_ilids, write_mars
from tests.data.pictures import write_jpeg
from tests.training.toys import WALKERS, toy_config

EXAMPLES = Path(__file__).parents[2] / "examples"
TOY = [
    "--dataset", "walkers", "--data-args", json.dumps(WALKERS), "--model-args", '{"base_width": 4}', "--height", "32",
    "--width", "16", "--num-frames", "2", "--frame-step", "4", "--num-pids", "4", "--num-tracklets", "2",
    "--num-workers", "0", "--embedding-dim", "8",
]  # fmt: skip


def run_example(monkeypatch, name, *arguments):
    """Run an example in this process, as its command line would."""
    monkeypatch.setattr(sys, "argv", [f"examples/{name}.py", *map(str, arguments)])
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    if not name.startswith("table"):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return ended.value.code
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(module.__doc__, module.ROWS, module.changes)


def test_train_runs_refuses_and_does_not_repeat(monkeypatch, tmp_path, capsys):
    arguments = ["--output", tmp_path / "run", "--epochs", "1", "--no-board", "--model", "small_3d_nl", *TOY]
    assert run_example(monkeypatch, "train", *arguments) == 0
    first = capsys.readouterr().out
    assert "walkers: rank-1" in first
    assert "8 of 8 queries" in first
    assert run_example(monkeypatch, "train", *arguments) == 0
    assert capsys.readouterr().out == first
    assert run_example(monkeypatch, "train", *arguments, "--lr", "-1") == 2
    assert capsys.readouterr().err == "nl3d: lr must be above 0, got -1.0\n"
    assert run_example(monkeypatch, "train", *arguments, "--all-splits") == 2
    assert "--all-splits needs a data set with splits, ilids-vid or prid2011" in capsys.readouterr().err


def test_fine_tuning_from_mars_on_all_splits_of_ilids(monkeypatch, tmp_path, capsys):
    write_mars(tmp_path / "mars")
    write_ilids(tmp_path / "ilids", people=8, splits=2)
    for path in (tmp_path / "ilids").rglob("*.png"):
        write_jpeg(path, torch.randint(256, (3,)).tolist())
    shared = ["--no-board", "--epochs", "1", "--model", "small_3d_nl", *TOY, "--data-args", '{"check_counts": false}']
    mars = ["--dataset", "mars", "--root", tmp_path / "mars", "--num-pids", "2", "--output", tmp_path / "run"]
    assert run_example(monkeypatch, "train", *shared, *mars) == 0
    assert "MARS: rank-1" in capsys.readouterr().out
    ilids = ["--dataset", "ilids-vid", "--root", tmp_path / "ilids", "--weights", tmp_path / "run", "--all-splits"]
    assert run_example(monkeypatch, "train", *shared, *ilids, "--output", tmp_path / "ilids-run") == 0
    assert "2 splits: rank-1 " in capsys.readouterr().out
    results = [json.loads((tmp_path / "ilids-run" / f"split-{n}" / "result.json").read_text()) for n in (0, 1)]
    assert [(one["result"]["split"], one["result"]["num_queries"]) for one in results] == [(0, 4), (1, 4)]


def test_table2_row_by_row(monkeypatch, tmp_path, capsys):
    options = ["--network", "small", "--epochs", "1", "--output", tmp_path, *TOY]
    assert run_example(monkeypatch, "table2", "--row", "baseline", "--seeds", "0", "1", *options) == 0
    assert run_example(monkeypatch, "table2", "--row", "resnet3d_nl", "--seeds", "0", *options) == 0
    capsys.readouterr()
    assert run_example(monkeypatch, "table2", "--output", tmp_path) == 0
    table = capsys.readouterr().out
    baseline, rnn, _, _, non_local = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert baseline.startswith("| Baseline (2D, mean over time) | small_tp | 2 | 0.0")
    assert "±" in baseline
    assert baseline.endswith("| 77.9 | 90.0 | 92.5 | 69.0 |")
    assert rnn == "| RNN (2D, LSTM) | | 0 | | | | | | | | | |"
    assert non_local.startswith("| ResNet3D NL | small_3d_nl | 1 |")
    assert "seeds: 0, 1" in table
    assert (tmp_path / "table.md").read_text() == table.removesuffix("\n")
    result = json.loads((tmp_path / "baseline" / "seed-1-split-0" / "result.json").read_text())
    assert result["config"]["seed"] == result["result"]["seed"] == 1


def test_table3_makes_what_it_starts_from(monkeypatch, tmp_path, capsys):
    options = ["--network", "small", "--epochs", "1", "--seeds", "0", "--output", tmp_path, *TOY]
    for row in ("scratch", "reid", "kinetics"):
        assert run_example(monkeypatch, "table3", "--row", row, *options) == 0
    assert "Kinetics (here: clips of other walkers) | small_3d_nl | 1 |" in capsys.readouterr().out
    configs = {
        row: json.loads((tmp_path / row / "seed-0-split-0" / "config.json").read_text())
        for row in ("scratch", "reid", "kinetics")
    }
    assert configs["reid"]["inflate_from"].endswith("start-reid")
    assert configs["kinetics"]["weights"].endswith("start-kinetics")
    assert (configs["scratch"]["weights"], configs["scratch"]["inflate_from"]) == ("none", None)
    start = json.loads((tmp_path / "start-reid" / "config.json").read_text())
    assert (start["model"], start["num_frames"], start["data_args"]["seed"]) == ("small_tp", 1, 1000)
    assert (start["height"], start["num_pids"], configs["reid"]["height"]) == (32, 4, 32)
    assert run_example(monkeypatch, "table3", "--row", "imagenet", *options) == 1
    assert "row must be scratch, reid or kinetics with --network small" in capsys.readouterr().err


def test_export_gives_a_network_for_everything_else(monkeypatch, tmp_path, capsys):
    config = toy_config(epochs=1, ema=0.9)
    run_training(config, tmp_path / "run", board=False)
    options = ["--half", "--license", "Apache-2.0", "--description", "toys"]
    assert main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "out"), *options]) == 0
    assert "MB" in capsys.readouterr().out
    model = ResNet3d.from_pretrained(tmp_path / "out")
    average = read_checkpoint(tmp_path / "run" / "last.safetensors")[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, average[f"average.{name}"].half().to(tensor.dtype)), name
    cfg = model.pretrained_cfg
    assert (cfg["num_frames"], cfg["frame_step"], tuple(cfg["input_size"])) == (2, 4, (3, 32, 16))
    assert (cfg["license"], cfg["description"], model.num_classes) == ("Apache-2.0", "toys", 0)
    assert main(["export", str(tmp_path / "none"), "--output", str(tmp_path / "new")]) == 2
    assert "which is none of them" in capsys.readouterr().err


def test_load_run_takes_the_last_or_the_best_with_its_classifier(tmp_path):
    run_training(toy_config(epochs=2, eval_every=1), tmp_path, board=False)
    for which, prefix in (("last", "model."), ("best", "")):
        tensors = read_checkpoint(tmp_path / f"{which}.safetensors")[0]
        model = load_run(tmp_path, which, classifier=True)
        assert model.num_classes == 8
        assert not model.training
        assert torch.equal(model.get_classifier().weight, tensors[f"{prefix}head.classifier.weight"])
    with pytest.raises(ValueError, match="which must be 'last' or 'best', got 'first'"):
        load_run(tmp_path, "first")
    run_training(toy_config(epochs=1, model="small_rnn"), tmp_path / "rnn", board=False)
    assert load_run(tmp_path / "rnn").embedding_dim == 8
    with pytest.raises(ValueError, match=r"must be plain data|save_pretrained"):
        export(tmp_path / "rnn", tmp_path / "out")


def test_tables_of_nothing_and_of_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from tables import describe_runs, markdown_table, read_rows

    rows = read_rows(tmp_path, ("baseline",))
    assert markdown_table(rows, {}).splitlines()[2] == "| baseline | | 0 | | | | | | | | | |"
    assert describe_runs(rows) == "no run is finished"
    result = {"model": "small_tp", "cmc": {"1": 0.5, "5": 0.6, "10": 0.7}, "mAP": 0.4}
    line = markdown_table({"baseline": [result]}, {"baseline": {"rank-1": 77.9, "mAP": 69.0}}).splitlines()[2]
    assert line == "| baseline | small_tp | 1 | | 50.0 | 60.0 | 70.0 | 40.0 | 77.9 | | | 69.0 |"
    assert split_summary([result]) == "1 splits: rank-1 50.0 %, rank-5 60.0 %, rank-10 70.0 %, mAP 40.0 %"
