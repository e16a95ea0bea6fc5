"""A whole run in one folder: data, network, loop, result."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.training.batches import TrainBatches
from nl3d.training.checkpoint import changed_options, locked_folder, seed_generators, write_text
from nl3d.training.config import TrainingConfig
from nl3d.training.data import read_dataset
from nl3d.training.evaluation import Evaluation
from nl3d.training.loop import Trainer
from nl3d.training.networks import build_network
from nl3d.training.ranks import make_accelerator, watched_ranks

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

RESULT = "result.json"


def run_training(
    config: TrainingConfig,
    run: str | Path,
    *,
    accelerator: Accelerator | None = None,
    criterion: nn.Module | None = None,
    progress: bool = False,
    board: bool = True,
) -> dict[str, Any]:
    """Train and evaluate as a configuration says; a run that was killed resumes.

    The folder gets ``config.json`` before the first step and ``result.json`` after the last. With the latter, nothing
    is left to do and the result is returned. The result is that of the last epoch. ``best.safetensors`` and the history
    describe the best epoch too, which was chosen on the test people: do not publish it as a result.

    Args:
        config: Configuration.
        run: Folder of the run.
        accelerator: Group of processes; made by the configuration if left out.
        criterion: Loss in place of the configuration's, as for :class:`~nl3d.training.loop.Trainer`.
        progress: Whether to show a progress bar.
        board: Whether to write for TensorBoard.

    Raises:
        ValueError: If the configuration, the data or the run in that folder contradict each other, a file of the run is
            damaged, or another process trains in the folder.
        FileNotFoundError: If a file of the data set or a run to start from is missing.
        NotFiniteError: If training diverges.
        OSError: If the disk is full.
    """
    run = Path(run)
    accelerator = accelerator or make_accelerator(config)
    lock = locked_folder(run) if accelerator.is_main_process else nullcontext()
    with lock, watched_ranks(accelerator, config.rank_timeout):
        if (run / RESULT).is_file():
            return _finished(run / RESULT, config)
        return _train(config, run, accelerator, criterion=criterion, progress=progress, board=board)


def _train(config: TrainingConfig, run: Path, accelerator: Accelerator, **options: Any) -> dict[str, Any]:
    with accelerator.main_process_first():  # the main process may draw splits or render walkers, for all
        dataset = read_dataset(config)
    seed_generators(config.seed)
    network = build_network(config, dataset.num_train_pids)
    seed_generators(config.seed * 10_007 + accelerator.process_index)  # another dropout on each rank
    batches = TrainBatches(dataset, config, accelerator, network)
    evaluation = Evaluation(dataset, config, accelerator)
    trainer = Trainer(config, run, network, batches, evaluation, accelerator, **options)
    if accelerator.is_main_process:
        write_text(run / "config.json", config.to_json())
    last = trainer.fit()
    about = {"dataset": dataset.name, "model": config.model, "split": config.split, "seed": config.seed}
    result = {**about, **last}
    result["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    result["best_mAP"] = trainer.progress.best
    if accelerator.is_main_process:
        write_text(run / RESULT, json.dumps({"config": json.loads(config.to_json()), "result": result}, indent=1))
    accelerator.wait_for_everyone()
    return result


def _finished(path: Path, config: TrainingConfig) -> dict[str, Any]:
    """Return the result of a finished run, if it has this configuration."""
    try:
        found = json.loads(path.read_text())
        names, result = changed_options(config, found["config"]), dict(found["result"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} must be a run's result, but is damaged ({error}); remove it") from None
    if names:
        raise ValueError(f"run {str(path.parent)!r} is over, with other {', '.join(names)}; choose another output")
    return result
