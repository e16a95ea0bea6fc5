import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState

import nl3d.training.checkpoint
import nl3d.training.loop
from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.config import recipe
from nl3d.training.loop import NotFiniteError
from nl3d.training.optimizer import make_optimizer
from nl3d.training.run import run_training
from tests.training.toys import WALKERS, toy_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_training(toy_config(epochs=4), folder)
    return folder


def test_run_leaves_everything_it_promises(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".lock",
        "best.safetensors",
        "board",
        "config.json",
        "history.json",
        "last.safetensors",
        "result.json",
    }
    history = json.loads((run / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert ["mAP" in entry for entry in history] == [False, True, False, True]
    assert history[0]["loss"] == pytest.approx(history[0]["identity_loss"] + history[0]["triplet_loss"])
    result = json.loads((run / "result.json").read_text())["result"]
    assert {name: result[name] for name in history[3]} == history[3]
    assert result["num_valid_queries"] == result["num_queries"] == 8
    _, state = read_checkpoint(run / "best.safetensors")
    assert state["scores"]["mAP"] == result["best_mAP"] == max(entry.get("mAP", 0) for entry in history)


def test_tensorboard_gets_scalars_and_cmc_curves(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "board")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("evaluation/mAP")] == [4, 8]
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates[:5] == pytest.approx([1e-3] * 5)
    assert rates[7] == pytest.approx(1e-3 * 0.001**0.75)
    curve = EventAccumulator(str(run / "board" / "cmc-epoch-0004")).Reload().Scalars("CMC")
    assert [event.step for event in curve] == list(range(1, 51))
    assert [event.value for event in curve] == sorted(event.value for event in curve)


def test_it_learns(tmp_path):
    easy = {"data_args": {**WALKERS, "difficulty": 0.0, "alike": 0.0}, "dropout": 0.0, "flip": 0.0, "enlarge": 1.0}
    config = toy_config(**easy, epochs=16, eval_every=100, lr=1e-2, schedule="constant", embedding_dim=32)
    run_training(config, tmp_path, board=False)
    losses = [entry["identity_loss"] for entry in json.loads((tmp_path / "history.json").read_text())]
    assert losses[-1] < 0.8 * losses[0]


@pytest.fixture
def _other_precision():
    """Accelerate has one precision a process; forget it before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_other_precision")
def test_modern_recipe_and_options_run(tmp_path):
    """Every option that changes the loop is on in some test."""
    parts = {"last_stride", "head", "sampling", "erasing", "optimizer", "schedule", "warmup", "ema", "clip_grad"}
    modern = {name: value for name, value in dataclasses.asdict(recipe("modern")).items() if name in parts}
    config = toy_config(**modern, epochs=1, grad_checkpointing=True, precision="bf16", metric="cosine", margin=-1.0)
    result = run_training(dataclasses.replace(config, triplet_on="embedding", accumulate=2), tmp_path, board=False)
    assert 0 < result["mAP"] <= 1
    assert "average.head.bn.weight" in read_checkpoint(tmp_path / "last.safetensors")[0]


def test_channels_last_is_the_same_network(tmp_path):
    results = []
    for layout in (False, True):
        run_training(toy_config(epochs=1, optimizer="sgd", channels_last=layout), tmp_path / str(layout), board=False)
        results.append(read_checkpoint(tmp_path / str(layout) / "last.safetensors")[0])
    assert any(not torch.equal(results[0][name], results[1][name]) for name in results[0])  # other kernels ran
    for name in (name for name in results[0] if name.startswith("model.")):
        torch.testing.assert_close(results[0][name], results[1][name], atol=1e-4, rtol=1e-3)


def test_compiled_run_saves_plain_names(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "_was_compiled", True))
    run_training(toy_config(epochs=1, compile=True, model="small_tp"), tmp_path, board=False)
    names = read_checkpoint(tmp_path / "best.safetensors")[0]
    assert not any("_orig_mod" in name for name in names)


def test_nan_loss_stops_in_one_sentence_and_the_good_checkpoint_goes_on(tmp_path, monkeypatch):
    config = toy_config(checkpoint_every=1, clip_grad=1.0)
    true_backward, calls = nl3d.training.loop.backward, []

    def broken(*arguments, **options):
        calls.append(1)
        factor = float("nan") if len(calls) == 4 else 1
        return {name: factor * term for name, term in true_backward(*arguments, **options).items()}

    monkeypatch.setattr(nl3d.training.loop, "backward", broken)
    message = r"in epoch 2 at step 4 .* the loss is nan; the last good checkpoint is .*last\.safetensors; lower --lr"
    with pytest.raises(NotFiniteError, match=message) as caught:
        run_training(config, tmp_path, board=False)
    assert str(caught.value).count("\n") == 0
    tensors, state = read_checkpoint(tmp_path / "last.safetensors")
    assert state["progress"]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert run_training(config, tmp_path, board=False)["step"] == 6  # from the good checkpoint to the end


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    config = toy_config(lr=1e38, optimizer="sgd", checkpoint_every=1)
    with pytest.raises(
        NotFiniteError, match=r"in epoch 1 at step .* (NaN or infinite|finite squares).*; no checkpoint was written yet"
    ):
        run_training(config, tmp_path, board=False)
    assert not (tmp_path / "last.safetensors").exists()


def test_run_of_another_configuration_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="is over, with other lr; choose another output"):
        run_training(toy_config(epochs=4, lr=0.5), run)
    other = tmp_path / "unfinished"
    other.mkdir()
    (other / "last.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"has epochs 4 there and 5 here, seed 0 there and 1 here"):
        run_training(toy_config(epochs=5, seed=1), other, board=False)


def test_second_process_in_one_folder_is_refused(tmp_path):
    code = f"""
import pathlib, time
from nl3d.training.checkpoint import locked_folder
with locked_folder(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is being trained by another process; wait for it, or choose another"):
            run_training(toy_config(), tmp_path, board=False)
    finally:
        holder.kill()
        holder.communicate()
    with nl3d.training.checkpoint.locked_folder(tmp_path):
        pass


def test_optimisers():
    model = torch.nn.Linear(1, 1)
    kinds = {
        name: type(make_optimizer(toy_config(optimizer=name), model.parameters())).__name__
        for name in ("adam", "adamw", "sgd")
    }
    assert kinds == {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
    assert make_optimizer(toy_config(), model.parameters()).param_groups[0]["weight_decay"] == 5e-4
