"""Labels of people and cameras: the one place that parses them and the one place that numbers them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Hashable, Iterable
from functools import lru_cache
from itertools import count
from typing import TypeVar

from nl3d.data.frames.names import is_utf8, natural_key

Label = TypeVar("Label", bound=Hashable)

JUNK, DISTRACTOR = -1, 0  # the convention of MARS, which others follow
_MISSING = frozenset(
    "nan NaN NAN -nan -NaN none None null NULL NA N/A n/a <NA> NaT #N/A #NA inf -inf Inf -Inf INF -INF".split()
)  # as pandas, spreadsheets and databases write them
_WHOLE = re.compile(r"([+-]?|0+-(?=1$))0*(\d+)", re.ASCII)  # 00-1 is the junk of MARS
_FLOAT = re.compile(r"([+-]?)(\d*)(?:\.(\d*)(?:[eE]([+-]?\d{1,9}))?|[eE]([+-]\d{1,9}))", re.ASCII)
_EXACT = 2**53 - 1  # largest whole number that no other one is rounded to as a float64
_INT64 = 2**63


@lru_cache(maxsize=2**16)
def parse_label(text: str) -> str:
    """Return the canonical text of a label of a person or camera.

    Blanks around a label are dropped. Whole numbers lose leading zeros and a fraction of zero, so that ``0007``, ``7``,
    ``7.0`` (pandas) and ``7.000e+00`` (NumPy) are one label, as are ``-1`` and ``00-1`` (MARS). They may have any
    number of digits. Every other label is a name and stays as it is, in Unicode's composed form. Names may look like
    ``1e3``, as parts of hashes do.

    Raises:
        ValueError: If it is empty, stands for a missing value (such as ``nan``, ``None`` or ``NA``), is a number with a
            fraction, a float from 2**53 on, which has lost digits, or a number in other digits than 0 to 9, or is not
            UTF-8.

    Example:
        >>> [parse_label(text) for text in ("0007", "-1.0", " ann ", "3.000e+00")]
        ['7', '-1', 'ann', '3']
    """
    label = text.strip()
    if label in _MISSING or not label:
        raise ValueError(f"label must be a whole number or a name, got {text!r}, which stands for a missing value")
    if whole := _WHOLE.fullmatch(label):
        return ("-" if whole[1][-1:] == "-" and whole[2] != "0" else "") + whole[2]
    if (number := _FLOAT.fullmatch(label)) and (number[2] or number[3]):
        return _parse_float(number, text)
    if label.lstrip("+-\N{MINUS SIGN}\N{EN DASH}").isdecimal():
        raise ValueError(f"label must have the digits 0 to 9 and the sign '-' if it is a number, got {text!r}")
    if not is_utf8(label):
        raise ValueError(f"label must be UTF-8, got {text!r}")
    return label if label.isascii() else unicodedata.normalize("NFC", label)


def _parse_float(number: re.Match[str], text: str) -> str:
    """Return the text of a float's whole number, which its digits and exponent must give exactly."""
    digits = (number[2] + (number[3] or "")).lstrip("0")
    places = len(digits) - len(number[3] or "") + int(number[4] or number[5] or 0)  # digits of the whole part
    if digits[max(places, 0) :].strip("0"):
        raise ValueError(f"label must be a whole number or a name, got {text!r}, a number with a fraction")
    whole = digits[: max(places, 0)].ljust(min(places, 17), "0") or "0"
    if len(whole) > 16 or int(whole) > _EXACT:
        raise ValueError(
            f"label must have no point and no exponent from 2**53 on, where floats lose digits, got {text!r}"
        )
    return "-" + whole if number[1] == "-" and whole != "0" else whole


def number_labels(labels: Iterable[str], reserved: Collection[int] = (JUNK, DISTRACTOR)) -> dict[str, int]:
    """Number labels for computing. Whole numbers that fit into int64 keep their number; names get other numbers.

    Names are numbered in natural order by the smallest numbers from 0 that neither a label nor ``reserved`` has. The
    numbers depend on the set of labels only, so labels of several files are comparable if they are numbered together.

    Args:
        labels: Labels as :func:`parse_label` returns them, in any order.
        reserved: Numbers that no name gets, such as those of junk and distractors.

    Example:
        >>> number_labels(["0", "-1", "7"]), number_labels(["bob", "ann", "2"])
        ({'0': 0, '7': 7, '-1': -1}, {'2': 2, 'ann': 1, 'bob': 3})
    """
    ordered = sorted(set(labels), key=natural_key)
    numbers = {label: int(label) for label in ordered if _is_int64(label)}
    taken = {*numbers.values(), *reserved}
    free = (number for number in count() if number not in taken)
    return {label: numbers[label] if label in numbers else next(free) for label in ordered}


def number_classes(labels: Iterable[Label]) -> dict[Label, int]:
    """Number labels from 0 without gaps in natural order, as a classifier needs them.

    Example:
        >>> number_classes(["p10", "p9", "p9"])
        {'p9': 0, 'p10': 1}
    """
    ordered = sorted(set(labels), key=lambda label: natural_key(str(label)))
    return {label: number for number, label in enumerate(ordered)}


def _is_int64(label: str) -> bool:
    return len(label) <= 20 and _WHOLE.fullmatch(label) is not None and -_INT64 <= int(label) < _INT64
