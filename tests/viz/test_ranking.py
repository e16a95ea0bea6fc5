import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from nl3d.viz.ranking import BADGE, GREY, MATCH, OTHER, Tile, _shorten, draw_ranking


def tile(colour, size=(40, 20), match=None):
    return Tile(torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, *size), "name", "0.123", match)


def pixels(rows, **options):
    return np.asarray(draw_ranking(rows, **options))


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def test_borders_and_marks_say_who_is_the_same_person():
    grey = (120, 120, 120)
    picture = pixels([[tile(grey), tile(grey, match=True), tile(grey, match=False)]], tile_size=(40, 40))
    border = 50 * 50 - 40 * 40
    for colour in (MATCH, OTHER):
        assert border < count(picture, colour) < border + (BADGE + 1) ** 2  # the mark is drawn into it in white
    tick, cross = (
        picture[rows.min() : rows.min() + BADGE, columns.min() : columns.min() + BADGE]
        for rows, columns in (np.nonzero((picture == np.array(colour)).all(-1)) for colour in (MATCH, OTHER))
    )
    shapes = [(mark == 255).all(-1) for mark in (tick, cross)]
    assert all(15 < shape.sum() < 80 for shape in shapes)
    assert (shapes[0] != shapes[1]).any()  # told apart without colour
    assert np.array_equal(shapes[1], shapes[1][:, ::-1]) or (shapes[1] == shapes[1][:, ::-1]).mean() > 0.8


def test_the_colours_differ_in_brightness_for_any_colour_vision():
    luminance = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (MATCH, OTHER)]
    assert abs(luminance[0] - luminance[1]) > 15


def test_pictures_keep_their_proportions_and_order():
    picture = pixels([[tile((250, 0, 0)), tile((0, 0, 250), size=(20, 20)), Tile(None, "lost")]], tile_size=(40, 20))
    assert count(picture, (250, 0, 0)) == 40 * 20
    assert count(picture, (0, 0, 250)) == 20 * 20  # not stretched
    red, blue = (np.nonzero((picture == np.array(colour)).all(-1))[1] for colour in ((250, 0, 0), (0, 0, 250)))
    assert red.max() < blue.min()
    assert count(picture, GREY) == 20 * 20 + 40 * 20


def test_rows_may_differ_in_length_and_long_names_are_shortened_in_the_middle():
    name = "camera-12/person-0007/tracklet-000123"
    rows = [[tile((9, 9, 9))], [tile((9, 9, 9)), Tile(None, name * 5, "12345.678")]]
    assert draw_ranking(rows).size == draw_ranking([[row[0]._replace(name="x"), *row[1:]] for row in rows]).size
    draw, font = ImageDraw.Draw(Image.new("RGB", (9, 9))), ImageFont.load_default(size=12)
    short = _shorten(draw, name, font, 96)
    assert draw.textlength(short, font=font) <= 96
    head, _, tail = short.partition("...")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert len(head) - len(tail) in (0, 1)
    assert _shorten(draw, "t1", font, 96) == "t1"


def test_the_distance_is_below_the_name_whatever_its_length():
    drawn = [pixels([[Tile(None, name, note)]]) for name in ("a", "a" * 99) for note in ("0.123", "")]
    for with_distance, without in ((drawn[0], drawn[1]), (drawn[2], drawn[3])):
        assert (with_distance != without).any()
    assert np.array_equal(drawn[0] != drawn[1], drawn[2] != drawn[3])


@pytest.mark.parametrize("rows", [[], [[]], [[tile((1, 1, 1))], []]])
def test_refuses_to_draw_nothing(rows):
    with pytest.raises(ValueError, match="at least one tile each"):
        draw_ranking(rows)
