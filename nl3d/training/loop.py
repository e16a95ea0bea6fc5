"""The loop: epochs of steps, an evaluation now and then, and a checkpoint from which a run resumes exactly."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.utils import tqdm
from torch import Tensor, nn

from nl3d.losses import ReIDLoss
from nl3d.training.board import Board
from nl3d.training.checkpoint import (
    LAST,
    check_same_run,
    gather_rng,
    join_optimizer,
    read_checkpoint,
    restore_rng,
    split_optimizer,
    with_prefix,
    without_prefix,
    write_checkpoint,
    write_text,
)
from nl3d.training.config import TrainingConfig
from nl3d.training.networks import BEST, describe_network
from nl3d.training.optimizer import averaged_model, learning_rate, make_optimizer
from nl3d.training.step import MicroBatch, NotFiniteError, backward

if TYPE_CHECKING:
    from accelerate import Accelerator

    from nl3d.training.batches import TrainBatches

_log = logging.getLogger("nl3d.training")


@dataclass
class Progress:
    """Position of a run, sums of the epoch's losses, and the history."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    unreadable: int = 0
    best: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains a network in a folder, from the start or from the checkpoint of a killed run.

    The folder gets ``last.safetensors`` (everything needed to resume), ``best.safetensors`` (the weights of the best
    mAP), ``history.json`` and TensorBoard's files. A run that was killed at any moment and started again ends with the
    same bits as one that was never stopped, on the same machine with as many processes.

    Args:
        config: Configuration.
        run: Folder of the run.
        network: Network to train; its output is a :class:`~nl3d.ReIDOutput`.
        batches: Batches of this rank; an epoch always has the same ones.
        evaluate: Returns the scores of a network, the same on all ranks; ``mAP`` decides which is the best.
        accelerator: Group of processes.
        criterion: Loss, as for :func:`~nl3d.training.step.loss_terms`; its parameters, if any, are trained too. The
            default is the :class:`~nl3d.ReIDLoss` of the configuration.
        progress: Whether to show a progress bar.
        board: Whether to write for TensorBoard.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run: Path,
        network: nn.Module,
        batches: TrainBatches,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        accelerator: Accelerator,
        *,
        criterion: nn.Module | None = None,
        progress: bool = False,
        board: bool = True,
    ) -> None:
        if config.sync_bn and accelerator.num_processes > 1:
            if accelerator.device.type == "cpu":
                raise ValueError("sync_bn needs GPUs, but the device is the CPU; leave it out")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.config, self.run, self.accelerator = config, run, accelerator
        self.batches, self.evaluate = batches, evaluate
        self.criterion = (criterion or make_criterion(config)).to(accelerator.device)
        self.network = network.to(accelerator.device)
        if config.channels_last:
            _to_channels_last(self.network)
        self.average = averaged_model(self.network, config.ema) if config.ema else None
        if config.compile:
            self.network.compile()
        optimizer = make_optimizer(config, [*self.network.parameters(), *self.criterion.parameters()])
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.progress = Progress()
        self.shows_progress = progress and accelerator.is_main_process
        self.board = Board(run, active=board and accelerator.is_main_process)

    def fit(self) -> dict[str, Any]:
        """Train to the end, and return the last evaluation."""
        self._resume()
        done = self.progress
        with self.board.open(done.step), self._bar() as bar:
            while done.epoch < self.config.epochs:
                self._train_epoch(bar)
                self._finish_epoch(bar)
        return done.history[-1]

    def _train_epoch(self, bar: Any) -> None:
        done, config = self.progress, self.config
        self.model.train()
        self.criterion.train()
        for batches, unreadable in self.batches.epoch(done.epoch):
            rate = learning_rate(config, done.epoch + done.step_in_epoch / self.batches.steps_per_epoch)
            losses = self._step(batches, unreadable, rate)
            done.step += 1
            done.step_in_epoch += 1
            done.unreadable += int(losses.pop("unreadable"))
            done.losses = {name: done.losses.get(name, 0.0) + value for name, value in losses.items()}
            bar.set_postfix_str(f"epoch {done.epoch + 1}, loss {losses['total']:.3f}", refresh=False)
            bar.update()
            self.board.losses(done.step, losses, rate)
            if config.checkpoint_every and done.step % config.checkpoint_every == 0:
                self.save()

    def _step(self, batches: Sequence[MicroBatch], unreadable: int, rate: float) -> dict[str, float]:
        """Make one step; return the loss, its terms and the number of unreadable frames, over all ranks."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        try:
            terms = backward(self.accelerator, self.model, self.criterion, batches, mining=self.config.mining)
        except NotFiniteError as error:
            raise self._diverged(str(error)) from error
        count = torch.tensor(float(unreadable * self.accelerator.num_processes), device=self.accelerator.device)
        reduced: Tensor = self.accelerator.reduce(torch.stack([*terms.values(), count]), reduction="mean")
        losses = dict(zip((*terms, "unreadable"), reduced.tolist(), strict=True))
        if not reduced.isfinite().all():
            raise self._diverged(f"the loss is {losses['total']}")
        for parameter in self.criterion.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        if self.config.clip_grad:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.network)
        return losses

    def _finish_epoch(self, bar: Any) -> None:
        """Evaluate if it is time, add the epoch to the history, save."""
        done, config = self.progress, self.config
        entry: dict[str, Any] = {"epoch": done.epoch + 1, "step": done.step}
        for name, total in done.losses.items():
            entry["loss" if name == "total" else f"{name}_loss"] = total / max(done.step_in_epoch, 1)
        entry["unreadable_frames"] = done.unreadable
        last = done.epoch + 1 == config.epochs
        if last or (done.epoch + 1) % config.eval_every == 0:
            entry |= self._evaluate()
        done.history.append(entry)
        done.epoch, done.step_in_epoch, done.losses, done.unreadable = done.epoch + 1, 0, {}, 0
        self.save()
        self._write_history()
        if self.shows_progress and "mAP" in entry:
            bar.write(_line(entry))
        elif self.accelerator.is_main_process and not self.shows_progress:
            _log.info(_line(entry))

    def _write_history(self) -> None:
        if self.accelerator.is_main_process:
            write_text(self.run / "history.json", json.dumps(self.progress.history, indent=1))

    def _evaluate(self) -> dict[str, Any]:
        """Score the network, or its average, and keep the weights if they are the best so far."""
        network: nn.Module = self.average.module if self.average else self.network
        self._share_buffers(network)
        network.eval()
        scores = self.evaluate(network)
        if scores["mAP"] > self.progress.best:
            self.progress.best = scores["mAP"]
            self._require_finite()
            if self.accelerator.is_main_process:
                about = {**self._described(), "scores": scores, "step": self.progress.step}
                write_checkpoint(self.run / BEST, network.state_dict(), about)
        self.board.scores(self.progress.step, self.progress.epoch + 1, scores)
        return scores

    def _share_buffers(self, network: nn.Module) -> None:
        """Give all ranks the running statistics of rank 0, which are the ones that are saved."""
        if self.accelerator.num_processes > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def save(self) -> None:
        """Write ``last.safetensors``, unless a weight is not finite."""
        self._require_finite()
        moments, optimizer = split_optimizer(self.optimizer)
        tensors = with_prefix("model", self.network.state_dict()) | with_prefix("optimizer", moments)
        tensors |= with_prefix("criterion", self.criterion.state_dict())
        state: dict[str, Any] = {
            "progress": dataclasses.asdict(self.progress),
            **self._described(),
            "criterion": repr(self.criterion),
            "optimizer": optimizer,
            "batches": self.batches.state_dict(self.progress.epoch, self.progress.step_in_epoch),
            "num_processes": self.accelerator.num_processes,
        }
        if self.average:
            tensors |= with_prefix("average", self.average.module.state_dict())
            state["num_averaged"] = int(self.average.n_averaged)
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        for rank, states in enumerate(gather_rng(self.accelerator)):
            tensors |= with_prefix(f"rng.{rank}", states)
        if self.accelerator.is_main_process:
            write_checkpoint(self.run / LAST, tensors, state)
        self.accelerator.wait_for_everyone()

    def _described(self) -> dict[str, Any]:
        return {"config": dataclasses.asdict(self.config), "network": describe_network(self.network)}

    def _resume(self) -> None:
        """Continue from ``last.safetensors``, where there is one."""
        path = self.run / LAST
        if not path.is_file():
            return
        tensors, state = read_checkpoint(path)
        check_same_run(self.run, state, self.config, self.accelerator.num_processes, repr(self.criterion))
        try:
            self._restore(tensors, state)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            fault = " ".join(str(error).split())[:200]
            raise ValueError(
                f"checkpoint must be of this data and this version of nl3d, and whole, got {str(path)!r} "
                f"({type(error).__name__}: {fault}); remove it to train from the start"
            ) from error
        self._write_history()  # a run may be killed between the checkpoint and its history
        if self.accelerator.is_main_process:
            _log.info("resumed %s at step %d, epoch %d", path, self.progress.step, self.progress.epoch)

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.network.load_state_dict(without_prefix("model", tensors))
        self.criterion.load_state_dict(without_prefix("criterion", tensors))
        join_optimizer(self.optimizer, without_prefix("optimizer", tensors), state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(without_prefix("average", tensors))
            self.average.n_averaged.fill_(state["num_averaged"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.batches.load_state_dict(state["batches"])
        self.progress = Progress(**state["progress"])
        restore_rng(without_prefix(f"rng.{self.accelerator.process_index}", tensors), self.accelerator.device)

    def _require_finite(self) -> None:
        floating = [tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point()]
        if not torch.stack([tensor.isfinite().all() for tensor in floating]).all():
            raise self._diverged("a weight is NaN or infinite")

    def _diverged(self, what: str) -> NotFiniteError:
        done = self.progress
        path = self.run / LAST
        kept = f"the last good checkpoint is {path}" if path.is_file() else "no checkpoint was written yet"
        rate = self.optimizer.param_groups[0]["lr"]
        return NotFiniteError(
            f"training must keep finite numbers, but in epoch {done.epoch + 1} at step {done.step + 1} "
            f"(learning rate {rate:.1e}) {what}; {kept}; lower --lr or set --clip-grad"
        )

    def _bar(self) -> Any:
        total, done = self.config.epochs * self.batches.steps_per_epoch, self.progress.step
        return tqdm(total=total, initial=done, unit=" steps", disable=not self.shows_progress, name="nl3d.training")


def make_criterion(config: TrainingConfig) -> ReIDLoss:
    """Return the loss of a configuration, with triplets mined across ranks."""
    return ReIDLoss(
        "soft" if config.margin < 0 else config.margin,
        label_smoothing=config.label_smoothing,
        triplet_on=config.triplet_on,
        gather=True,
    )


def _to_channels_last(network: nn.Module) -> None:
    """Lay out the kernels of 3D convolutions; their inputs follow the kernels."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def _line(entry: dict[str, Any]) -> str:
    text = f"epoch {entry['epoch']}: loss {entry['loss']:.3f}"
    if "mAP" in entry:
        text += f", rank-1 {100 * entry['cmc']['1']:.1f} %, mAP {100 * entry['mAP']:.1f} %"
    return text
