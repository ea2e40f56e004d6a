"""What is drawn, where, in which colour."""

import numpy as np

from pipeline.predict.draw import class_colour, draw_boxes, tint_masks


def test_sides_lie_where_the_box_says_in_its_colour():
    image = np.full((700, 800, 3), 200, np.uint8)
    drawn = draw_boxes(image, np.array([[100, 200, 300, 400.0]]), [""], [(255, 0, 0)])
    changed = np.argwhere((drawn != image).any(axis=2))
    assert changed.min(axis=0).tolist() == [200, 100]
    assert changed.max(axis=0).tolist() == [400, 300]
    assert drawn[300, 100].tolist() == [255, 0, 0]
    assert drawn[300, 200].tolist() == [200, 200, 200]
    assert (image == 200).all()


def test_small_pictures_are_enlarged_with_their_boxes():
    drawn = draw_boxes(np.zeros((64, 64, 3), np.uint8), np.array([[8, 8, 16, 16.0]]), [""], [(255, 255, 255)])
    assert drawn.shape == (512, 512, 3)
    assert drawn[100, 64].tolist() == [255, 255, 255]
    assert not drawn[100, 140].any()


def test_faulty_boxes_do_not_stop_the_drawing():
    boxes = np.array([[np.nan, 0, 1, 1], [50, 50, 20, 20], [-1e9, 5, 1e9, 6], [np.inf, 0, 1, 1], [900, 900, 950, 950]])
    drawn = draw_boxes(np.zeros((640, 640, 3), np.uint8), boxes, ["nan", "turned", "wide", "inf", "outside"])
    assert (drawn[35, 20] == class_colour(0)).all()


def test_a_caption_at_the_upper_edge_is_seen():
    image = np.zeros((640, 640, 3), np.uint8)
    inside = draw_boxes(image, np.array([[10, 300, 200, 400.0]]), ["RBC 0.93"])
    edge = draw_boxes(image, np.array([[10, 0, 200, 100.0]]), ["RBC 0.93"])
    assert abs(int((inside > 0).any(axis=2).sum()) - int((edge > 0).any(axis=2).sum())) < 300


def test_no_boxes():
    assert draw_boxes(np.zeros((640, 640, 3), np.uint8), np.zeros((0, 4)), []).shape == (640, 640, 3)


def test_masks_are_tinted_inside_and_edged_in_their_colour():
    image, mask = np.full((20, 30, 3), 100, np.uint8), np.zeros((20, 30), bool)
    mask[5:10, 8:20] = True
    drawn = tint_masks(image, iter([mask]), [(200, 0, 100)])
    assert drawn[5, 8].tolist() == drawn[9, 12].tolist() == [200, 0, 100]
    assert drawn[7, 12].tolist() == [145, 55, 100]
    assert (drawn[~mask] == 100).all() and (image == 100).all()


def test_a_mask_at_two_sides_of_the_picture_is_edged_at_both():
    """Nothing wraps round: a band from side to side ends at both, and what touches one side has its edge there."""
    image = np.full((20, 30, 3), 100, np.uint8)
    for place in (np.s_[5:10, :], np.s_[:, 8:20], np.s_[:, :], np.s_[:6, 4:9]):
        mask = np.zeros((20, 30), bool)
        mask[place] = True
        rows, columns = np.nonzero(mask)
        drawn = tint_masks(image, iter([mask]), [(200, 0, 100)])
        edge = np.zeros_like(mask)
        edge[place] = True
        edge[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()] = False  # a rectangle but its border
        np.testing.assert_array_equal((drawn == (200, 0, 100)).all(axis=2), edge)
        assert (drawn[mask & ~edge] == (145, 55, 100)).all() and (drawn[~mask] == 100).all()


def test_no_masks_leave_the_picture():
    image = np.full((20, 30, 3), 100, np.uint8)
    assert (tint_masks(image, iter([]), [(1, 2, 3)]) == image).all()
