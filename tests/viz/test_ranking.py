import numpy as np
import pytest
import torch

from nl3d.viz.ranking import GREEN, GREY, RED, Tile, draw_ranking


def tile(colour, size=(40, 20), match=None):
    return Tile(torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, *size), "name", match)


def pixels(rows, **options):
    return np.asarray(draw_ranking(rows, **options))


def count(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def test_borders_say_who_is_the_same_person():
    blue = (0, 0, 250)
    picture = pixels([[tile(blue), tile(blue, match=True), tile(blue, match=False)]], tile_size=(40, 20))
    border = 50 * 30 - 40 * 20
    assert count(picture, GREEN) == border
    assert count(picture, RED) == border
    assert count(picture, blue) == 3 * 40 * 20


def test_pictures_keep_their_proportions_and_order():
    picture = pixels([[tile((250, 0, 0)), tile((0, 0, 250), size=(20, 20)), Tile(None, "lost")]], tile_size=(40, 20))
    assert count(picture, (250, 0, 0)) == 40 * 20
    assert count(picture, (0, 0, 250)) == 20 * 20  # not stretched
    red, blue = (np.nonzero((picture == np.array(colour)).all(-1))[1] for colour in ((250, 0, 0), (0, 0, 250)))
    assert red.max() < blue.min()
    assert count(picture, GREY) == 20 * 20 + 40 * 20


def test_rows_may_differ_in_length_and_long_captions_are_cut():
    rows = [[tile((9, 9, 9))], [tile((9, 9, 9)), Tile(None, "a caption that is far too long" * 5)]]
    assert draw_ranking(rows).size == draw_ranking([[row[0]._replace(caption="x"), *row[1:]] for row in rows]).size


@pytest.mark.parametrize("rows", [[], [[]], [[tile((1, 1, 1))], []]])
def test_refuses_to_draw_nothing(rows):
    with pytest.raises(ValueError, match="at least one tile each"):
        draw_ranking(rows)
