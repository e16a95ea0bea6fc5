"""Batches of P people with K tracklets each, as batch-hard triplets need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from nl3d.data.clips.sampling import generator_from


class Draw(int):
    """An index that knows which draw of the whole training it is.

    It is an index to any data set. To one that draws at random it is also what to draw from, so that a tracklet that
    comes twice in a batch gives two clips, and a run that is resumed gives the clips that it would have given.
    """

    number: int

    def __new__(cls, index: int, number: int) -> Draw:
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.number

    def __repr__(self) -> str:
        return f"Draw({int(self)}, number={self.number})"


class PKSampler(Sampler[list[int]]):
    """Batches of ``P`` people with ``K`` tracklets each; an epoch meets every person.

    Pass it to a ``DataLoader`` as ``batch_sampler``. People come in random order, once per epoch; the last batch is
    filled up with people who had their turn already. A person with fewer than ``K`` tracklets gives each of them
    equally often, give or take one; a person with more gives ``K`` at random.

    With several processes, ``P`` is what one of them takes. All draw the same people for a step and take one stretch
    each: the batches of a step, laid end to end in the order of the ranks, are the batch that one process with
    ``P * world_size`` would draw. The paper's 32 people with 4 tracklets on eight GPUs are ``PKSampler(pids, 4, 4,
    rank=rank, world_size=8)``.

    The order depends on seed and epoch alone. To resume in the middle of an epoch, save :meth:`state_dict` and load it
    into a sampler of the same data, seed, ``K`` and ``P * world_size``; the next iteration is the rest of it.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2 (P=32, K=4, "iterate all identities as an epoch").

    Args:
        pids: Pid of each tracklet of the data set, in its order.
        P: People in a batch.
        K: Tracklets of each.
        seed: Another seed is another order.
        rank: Which process this is.
        world_size: How many there are.

    Raises:
        ValueError: If there are fewer people than ``P * world_size``, or a number is out of range.

    Example:
        >>> sampler = PKSampler([7, 7, 7, 8, 8, 9], P=3, K=2)
        >>> (batch,) = sampler
        >>> sorted([7, 7, 7, 8, 8, 9][index] for index in batch)
        [7, 7, 8, 8, 9, 9]
    """

    def __init__(
        self, pids: Sequence[int], P: int, K: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if P < 1 or K < 1:
            raise ValueError(f"P and K must be at least 1, got {P} and {K}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        self.P, self.K, self.seed, self.rank, self.world_size = P, K, seed, rank, world_size
        tracklets: dict[int, list[int]] = {}
        for index, pid in enumerate(pids):
            tracklets.setdefault(int(pid), []).append(index)
        self._tracklets = [tracklets[pid] for pid in sorted(tracklets)]
        if len(tracklets) < P * world_size:
            share = f"P={P}" if world_size == 1 else f"P * world_size = {P} * {world_size}"
            raise ValueError(
                f"{share} must not be above the number of people, got {len(tracklets)} people; take a smaller P"
            )
        self._size = len(pids)
        self._epoch = 0
        self._next_start = 0  # step at which the next iteration starts
        self._given = 0  # steps of the epoch that the latest iteration has handed out

    def __len__(self) -> int:
        """Batches of a whole epoch, on each process."""
        return -(-len(self._tracklets) // (self.P * self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; call it before each one, or all have one order.

        The epoch of a state that was loaded stays where it stopped.

        Raises:
            ValueError: If ``epoch`` is below 0.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        if epoch != self._epoch:
            self._epoch, self._next_start, self._given = epoch, 0, 0

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """What it takes to go on from here, the same on every rank.

        Args:
            step: Batches of this epoch that were trained on. A ``DataLoader`` with workers fetches ahead, so only the
                training loop knows; left out, it is the batches handed out.

        Raises:
            ValueError: If an epoch has fewer batches.
        """
        step = self._given if step is None else step
        if not 0 <= step <= len(self):
            raise ValueError(f"step must be from 0 to {len(self)}, the batches of an epoch, got {step}")
        return {**self._identity(), "epoch": self._epoch, "step": step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; the next iteration gives what was left of its epoch.

        Raises:
            ValueError: If it was saved by a sampler with other arguments, whose order would be another.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(f"{name} must be that of the saved sampler, {state.get(name)!r}, got {value!r}")
        self._epoch, self._next_start = int(state["epoch"]), int(state["step"])
        self._given = self._next_start

    def _identity(self) -> dict[str, Any]:
        return {
            "people_per_step": self.P * self.world_size,
            "K": self.K,
            "seed": self.seed,
            "num_people": len(self._tracklets),
            "num_tracklets": self._size,
        }

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start, self._next_start = self._epoch, self._next_start, 0
        self._given = start
        generator = generator_from(self.seed, epoch)
        people = self._people(generator)
        wide = self.P * self.world_size
        for step in range(len(self)):
            batch: list[int] = []
            for place, person in enumerate(people[step * wide : (step + 1) * wide]):
                # every rank draws for all, which keeps their generators together
                drawn = self._draw_tracklets(person, generator)
                if place // self.P == self.rank and step >= start:
                    first = (epoch << 32) + (step * wide + place) * self.K
                    batch += [Draw(index, first + number) for number, index in enumerate(drawn)]
            if step >= start:
                self._given = step + 1
                yield batch

    def _people(self, generator: torch.Generator) -> list[int]:
        order: list[int] = torch.randperm(len(self._tracklets), generator=generator).tolist()
        wide = self.P * self.world_size
        last = order[len(order) - len(order) % wide :]
        if last:
            others = order[: len(order) - len(last)]
            fill = torch.randperm(len(others), generator=generator)[: wide - len(last)]
            order += [others[place] for place in fill.tolist()]
        return order

    def _draw_tracklets(self, person: int, generator: torch.Generator) -> list[int]:
        own = self._tracklets[person]
        places: list[int] = []
        while len(places) < self.K:
            places += torch.randperm(len(own), generator=generator).tolist()
        return [own[place] for place in places[: self.K]]
