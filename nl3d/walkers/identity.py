"""Identities: clothes, build and gait of one person, drawn from the pid."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from nl3d.walkers.draws import Draws

Colour: TypeAlias = tuple[float, float, float]
Pattern = Literal["plain", "hoops", "stripes", "checks", "dots", "block", "open"]
Hem = Literal["trousers", "shorts", "skirt", "coat"]
Sleeves = Literal["long", "short", "none"]
Hair = Literal["short", "long", "bun", "bald"]
Bag = Literal["none", "backpack", "handbag", "shoulder", "case"]


@dataclass(frozen=True, kw_only=True)
class Cloth:
    """One garment: two colours in [0, 1] and the pattern that mixes them."""

    colour: Colour
    second: Colour
    pattern: Pattern
    period: float  # metres


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """Clothes and colours of a person, which a group dressed alike shares."""

    upper: Cloth
    lower: Cloth
    shoes: Colour
    skin: Colour
    hair: Colour
    bag_colour: Colour
    hat_colour: Colour
    hair_style: Hair
    sleeves: Sleeves
    hem: Hem
    bag: Bag
    hat: bool


@dataclass(frozen=True, kw_only=True)
class Build:
    """Body measures in metres."""

    height: float
    leg: float  # hip to ground
    arm: float  # shoulder to wrist
    shoulder: float  # half the distance between the shoulders
    hip: float  # half the distance between the hips
    girth: float  # factor on every thickness
    head: float  # radius


@dataclass(frozen=True, kw_only=True)
class Gait:
    """How a person walks; angles in radians, distances in metres."""

    cadence: float  # strides (two steps) per second
    swing: float  # of the thigh, to each side
    knee: float  # bend in mid-swing
    arm_swing: float  # to each side
    elbow: float  # bend at rest
    bounce: float  # factor on the rise and fall of the hips
    sway: float  # of the hips, to each side
    lean: float  # of the trunk, forwards
    twist: float  # of the shoulders, to each side

    @property
    def period(self) -> float:
        """Seconds per stride."""
        return 1.0 / self.cadence


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person; ``group`` is the lowest pid among those dressed alike."""

    pid: int
    group: int
    clothes: Clothes
    build: Build
    gait: Gait


GAIT_RANGES = {
    "cadence": (0.66, 1.24),
    "swing": (0.26, 0.56),
    "knee": (0.5, 0.95),
    "arm_swing": (0.06, 0.72),
    "elbow": (0.08, 0.85),
    "bounce": (0.3, 1.2),
    "sway": (0.005, 0.045),
    "lean": (-0.03, 0.18),
    "twist": (0.02, 0.22),
}

BUILD_RANGES = {  # height in metres, girth as a factor, all others as fractions of the height
    "height": (1.52, 1.95),
    "leg": (0.485, 0.545),
    "arm": (0.31, 0.355),
    "shoulder": (0.093, 0.122),
    "hip": (0.047, 0.064),
    "girth": (0.78, 1.38),
    "head": (0.046, 0.055),
}


@lru_cache(maxsize=4096)
def draw_identity(
    seed: int, pid: int, *, group: int, place: int, group_size: int, alike: bool, same_build: bool
) -> Identity:
    """Draw one person.

    Gait and build are stratified within a group: for each measure, its members have different parts of the range.

    Args:
        seed: Seed of the world.
        pid: Number of the person.
        group: Lowest pid of the ``group_size`` people who are drawn together.
        place: Place of the person in its group, from 0.
        group_size: People per group.
        alike: Whether the group shares its clothes.
        same_build: Whether a group that shares its clothes also shares its build.
    """
    wearer = group if alike else pid
    gait = _stratified(GAIT_RANGES, seed, "gait", group, place, group_size)
    if alike and same_build:
        build = _stratified(BUILD_RANGES, seed, "build", group, 0, group_size)
    else:
        build = _stratified(BUILD_RANGES, seed, "build", group, place, group_size)
    height = build.pop("height")
    girth = build.pop("girth")
    return Identity(
        pid=pid,
        group=wearer,
        clothes=draw_clothes(Draws(seed, "clothes", wearer)),
        build=Build(height=height, girth=girth, **{name: share * height for name, share in build.items()}),
        gait=Gait(**gait),
    )


def _stratified(
    ranges: dict[str, tuple[float, float]], seed: int, what: str, group: int, place: int, group_size: int
) -> dict[str, float]:
    values = {}
    for name, (low, high) in ranges.items():
        draws = Draws(seed, what, name, group)
        stratum = draws.permutation(group_size)[place]
        inside = 0.15 + 0.7 * draws.uniforms(group_size)[place]
        values[name] = low + (high - low) * float(stratum + inside) / group_size
    return values


def draw_clothes(draws: Draws) -> Clothes:
    """Draw an outfit: about half of the tops and most of the trousers are dark or neutral, as in the street."""
    skin = np.array([0.93, 0.74, 0.62]) * (1.0 - 0.72 * draws.uniform() ** 1.6)
    skin[2] *= draws.uniform(0.85, 1.0)
    top = _cloth_colour(draws, neutral=0.45)
    bottom = _cloth_colour(draws, neutral=0.72)
    hair = draws.pick([(0.07, 0.06, 0.06), (0.22, 0.13, 0.08), (0.45, 0.29, 0.13), (0.75, 0.6, 0.32), (0.6, 0.6, 0.6)])
    hem: Hem = draws.pick(["trousers", "shorts", "skirt", "coat"], [0.62, 0.12, 0.12, 0.14])
    patterns: list[Pattern] = ["plain", "hoops", "stripes", "checks", "dots", "block", "open"]
    upper_pattern = draws.pick(patterns, [0.42, 0.11, 0.06, 0.07, 0.05, 0.12, 0.17])
    if hem == "coat":
        upper_pattern = draws.pick(patterns[::6], [0.5, 0.5])  # coats are plain or worn open
    lower_pattern = draws.pick(patterns, [0.84, 0.02, 0.05, 0.04, 0.02, 0.03, 0.0])
    return Clothes(
        upper=Cloth(
            colour=top,
            second=_contrasting(draws, top),
            pattern=upper_pattern,
            period=draws.uniform(0.08, 0.2),
        ),
        lower=Cloth(
            colour=bottom,
            second=_contrasting(draws, bottom),
            pattern=lower_pattern,
            period=draws.uniform(0.06, 0.14),
        ),
        shoes=_cloth_colour(draws, neutral=0.85),
        skin=(float(skin[0]), float(skin[1]), float(skin[2])),
        hair=hair,
        bag_colour=_cloth_colour(draws, neutral=0.5),
        hat_colour=_cloth_colour(draws, neutral=0.5),
        hair_style=draws.pick(["short", "long", "bun", "bald"], [0.5, 0.33, 0.1, 0.07]),
        sleeves="long" if hem == "coat" else draws.pick(["long", "short", "none"], [0.6, 0.32, 0.08]),
        hem=hem,
        bag=draws.pick(["none", "backpack", "handbag", "shoulder", "case"], [0.48, 0.2, 0.12, 0.14, 0.06]),
        hat=draws.chance(0.14),
    )


def _cloth_colour(draws: Draws, *, neutral: float) -> Colour:
    if draws.chance(neutral):
        kind = draws.pick(["black", "grey", "white", "denim", "beige"], [0.34, 0.2, 0.14, 0.2, 0.12])
        value = draws.uniform()
        if kind == "black":
            return hsv_to_rgb(draws.uniform(), 0.15, 0.06 + 0.12 * value)
        if kind == "grey":
            return hsv_to_rgb(draws.uniform(), 0.06, 0.25 + 0.4 * value)
        if kind == "white":
            return hsv_to_rgb(draws.uniform(), 0.04, 0.8 + 0.15 * value)
        if kind == "denim":
            return hsv_to_rgb(draws.uniform(0.57, 0.65), draws.uniform(0.35, 0.7), 0.2 + 0.4 * value)
        return hsv_to_rgb(draws.uniform(0.07, 0.12), draws.uniform(0.2, 0.5), 0.4 + 0.4 * value)
    return hsv_to_rgb(draws.uniform(), draws.uniform(0.4, 0.95), draws.uniform(0.3, 0.92))


def _contrasting(draws: Draws, colour: Colour) -> Colour:
    """Draw a colour that a camera can tell from the first."""
    for _ in range(8):
        other = _cloth_colour(draws, neutral=0.5)
        if sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 0.6:
            return other
    return (0.9, 0.9, 0.9) if sum(colour) < 1.5 else (0.08, 0.08, 0.08)
