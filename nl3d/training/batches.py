"""From tracklets to micro-batches on the device; seed, epoch and position in the epoch fix every draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from nl3d.data.clips.dataset import ClipDataset, forking_workers, worker_errors
from nl3d.data.clips.processor import ClipProcessor, resize_images
from nl3d.data.clips.samplers import PKSampler
from nl3d.data.clips.sampling import generator_from
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.dataset import ReIDDataset
from nl3d.training.config import TrainingConfig
from nl3d.training.step import MicroBatch

if TYPE_CHECKING:
    from accelerate import Accelerator


class MicroBatches(Sampler[list[int]]):
    """Batches of a sampler, each cut into equal parts."""

    def __init__(self, sampler: PKSampler, parts: int) -> None:
        self.sampler, self.parts = sampler, parts

    def __len__(self) -> int:
        return len(self.sampler) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.sampler:
            size = len(batch) // self.parts
            yield from (batch[part * size : (part + 1) * size] for part in range(self.parts))


class TrainBatches:
    """Batches of this rank: P / ranks identities times K tracklets, in ``accumulate`` parts of whole identities.

    Each draw of the sampler has a number in the whole training. Everything random about its clip comes from that number
    and the seed, so a step has the same batch whenever it is made, with any number of loader processes.
    """

    def __init__(
        self, dataset: ReIDDataset, config: TrainingConfig, accelerator: Accelerator, network: nn.Module
    ) -> None:
        world = accelerator.num_processes
        if config.num_pids % (world * config.accumulate):
            raise ValueError(
                f"num_pids must be a multiple of processes times accumulate = {world} x {config.accumulate}, "
                f"got {config.num_pids}"
            )
        self.config, self.accelerator = config, accelerator
        self.processor = ClipProcessor.of(network, size=(config.height, config.width))
        self.sampler = PKSampler(
            [int(tracklet.pid) for tracklet in dataset.train],  # type: ignore[arg-type]
            config.num_pids // world,
            config.num_tracklets,
            seed=config.seed,
            rank=accelerator.process_index,
            world_size=world,
        )
        self.sizes = config.training_sizes()
        transform = ClipTransform(
            max(self.sizes),
            training=True,
            enlarge=config.enlarge,
            flip_probability=config.flip,
            erase_probability=config.erasing,
            mean=self.processor.mean,
            normalise=False,
        )
        clips = ClipDataset(
            dataset.train,
            num_frames=config.num_frames,
            strategy=config.sampling,
            frame_step=config.frame_step if config.sampling == "stride" else None,
            transform=transform,
            training=True,
            seed=config.seed,
            skip_unreadable=config.skip_unreadable,
        )
        self.loader: DataLoader[Any] = DataLoader(
            clips,
            batch_sampler=MicroBatches(self.sampler, config.accumulate),
            num_workers=config.num_workers,
            pin_memory=accelerator.device.type == "cuda",
            persistent_workers=config.num_workers > 0,
            generator=torch.Generator(),  # the loader draws a seed, and must not draw it from dropout's generator
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of the optimiser per epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int) -> Iterator[tuple[Sequence[MicroBatch], int]]:
        """Yield the batches that are left of an epoch, and the number of unreadable frames in each."""
        self.sampler.set_epoch(epoch)
        parts: list[MicroBatch] = []
        unreadable, step = 0, self.sampler.state_dict()["step"]
        with forking_workers():
            samples = iter(self.loader)
        while True:
            with worker_errors():
                sample = next(samples, None)
            if sample is None:
                return
            # moved while they are bytes, a quarter of the size of floats
            clips, pids = (x.to(self.accelerator.device, non_blocking=True) for x in (sample.clip, sample.pid))
            parts.append((self.processor.normalise(self._resized(clips, epoch, step)), pids))
            unreadable += int(sample.unreadable.sum())
            if len(parts) == self.config.accumulate:
                yield parts, unreadable
                parts, unreadable, step = [], 0, step + 1

    def _resized(self, clips: Tensor, epoch: int, step: int) -> Tensor:
        """Resize clips ``(B, 3, T, H, W)`` uint8 to the size that epoch and step draw, the same on every rank."""
        drawn = int(torch.randint(len(self.sizes), (), generator=generator_from(self.config.seed, epoch, step)))
        if tuple(clips.shape[3:]) == self.sizes[drawn]:
            return clips
        frames = resize_images(list(rearrange(clips, "b c t h w -> (b t) c h w")), self.sizes[drawn])
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips))

    def state_dict(self, epoch: int, step: int) -> dict[str, Any]:
        """Return the sampler's state after some steps of an epoch."""
        self.sampler.set_epoch(epoch)
        return self.sampler.state_dict(step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.sampler.load_state_dict(state)
