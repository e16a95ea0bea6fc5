import unicodedata

import pytest
import torch

from nl3d.data.labels import number_classes, number_labels, parse_label
from nl3d.data.tracklets import Tracklet


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("7", "7"), ("0007", "7"), (" 7 ", "7"), ("\u00a07\t", "7"), ("+7", "7"), ("-1", "-1"), ("-01", "-1"),
        ("00-1", "-1"), ("00-2", "00-2"),
        ("0", "0"), ("0000", "0"), ("-0", "0"),
        ("3.0", "3"), ("-1.0", "-1"), ("3.", "3"), ("0.0", "0"), ("-0.0", "0"), ("0003.00", "3"),  # pandas
        ("3.000000000000000000e+00", "3"), ("-1.0e+00", "-1"), ("1.5e+01", "15"), ("1.0e3", "1000"),  # NumPy
        ("9007199254740991.0", "9007199254740991"),
        ("18446744073709551615", "18446744073709551615"), ("0" * 5000 + "7", "7"), ("9" * 5000, "9" * 5000),
        ("1e3", "1e3"), ("12e4", "12e4"), ("0x7", "0x7"), ("1_000", "1_000"), ("7a", "7a"),  # names, such as hashes
        (" ann ", "ann"), ("Ann", "Ann"), ("ann lee", "ann lee"), ("-", "-"), (".", "."), ("Nana", "Nana"), 
        ("na", "na"),
        ("v1.2.0", "v1.2.0"), ("1.2.0", "1.2.0"), ("e+5", "e+5"), ("person\uff13", "person\uff13"),
        (unicodedata.normalize("NFD", "Ren\u00e9"), "Ren\u00e9"),  # as macOS writes folders
    ],
)  # fmt: skip
def test_one_label_in_every_form(text, label):
    assert parse_label(text) == label
    assert parse_label(label) == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "which stands for a missing value") for text in (
            "", "  ", "nan", "NaN", "-nan", "None", "NULL", "null", "NA", "N/A", "<NA>", "NaT", "inf", "-inf",
        )),
        *((text, "a number with a fraction") for text in ("3.5", "-0.5", ".5", "5e-3", "1.23e+01", "0.05")),
        *((text, "where floats lose digits") for text in (
            "9007199254740992.0", "-9007199254740992.0", "1e+16", "1.8446744073709552e+19", "1.0e+999999999",
            "9" * 6000 + ".0",
        )),
        *((text, "must have the digits 0 to 9") for text in ("\u0663", "\uff13", "\u22121", "\u20131")),
    ],
)  # fmt: skip
def test_refuses_what_can_be_read_in_two_ways(text, message):
    with pytest.raises(ValueError, match=f"^label .*{message}"):
        parse_label(text)


def test_whole_numbers_keep_theirs():
    labels = ["7", "-1", "0", "9223372036854775807", "-9223372036854775808"]
    assert number_labels(labels) == {label: int(label) for label in labels}


def test_names_get_numbers_that_nothing_else_has():
    assert number_labels(["bob", "ann", "-1"]) == {"-1": -1, "ann": 1, "bob": 2}
    assert number_labels(["bob", "ann", "1", "3"], reserved=(-1,)) == {"1": 1, "3": 3, "ann": 0, "bob": 2}
    assert number_labels(["p10", "p9", "p9"], reserved=(1, 2)) == {"p9": 0, "p10": 3}


def test_numbers_beyond_int64_are_numbered_as_names():
    large = ["18446744073709551615", "18446744073709551614", "9223372036854775808", "9" * 5000]
    numbers = number_labels([*large, "5"])
    assert numbers["5"] == 5
    assert [numbers[label] for label in large] == [3, 2, 1, 4]


def test_numbers_depend_on_the_set_alone():
    labels = ["cy", "ann", "2", "bob", "-1", "ann"]
    assert number_labels(labels) == number_labels(reversed(labels))


@pytest.mark.parametrize("kind", [int, str])
def test_classes_are_numbered_in_sorted_order(kind):
    labels = [kind(value) for value in (10, 9, 2, 10)]
    assert number_classes(labels) == {kind(2): 0, kind(9): 1, kind(10): 2}
    assert number_classes(reversed(labels)) == number_classes(labels)


def test_a_tracklet_has_the_label_of_its_number():
    frames = torch.zeros(1, 3, 4, 2, dtype=torch.uint8)
    found = Tracklet(frames, pid=-1, camid=2)
    assert (found.person, found.camera) == ("-1", "2")
    found = Tracklet(frames, pid=1, person="ann")
    assert (found.person, found.camera) == ("ann", None)
