"""Same-clothes and clothes-changing rankings, query by query."""

import pytest
import torch

import nl3d


def scores_by_hand(distances, query, gallery, rule):
    """Remove what a query's ranking leaves out, then score what is left; labels are (pid, camid, clothes)."""
    first, precisions = [], []
    for row, (pid, camid, clothes) in zip(distances, query, strict=True):
        ranking = []
        for distance, (other, camera, worn) in zip(row, gallery, strict=True):
            out = other == pid and (camera == camid or (rule == "same" and worn != clothes)
                                    or (rule == "changed" and worn == clothes))  # fmt: skip
            if not out:
                ranking.append((distance, other == pid))
        hits = [is_match for _, is_match in sorted(ranking)]
        if any(hits):
            places = [place for place, hit in enumerate(hits, 1) if hit]
            first.append(places[0])
            precisions.append(sum(number / place for number, place in enumerate(places, 1)) / len(places))
    return len(first), sum(place == 1 for place in first) / len(first), sum(precisions) / len(precisions)


@pytest.mark.parametrize("rule", ["any", "same", "changed"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_rankings_by_hand(rule, seed):
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (
        torch.stack([torch.randint(high, (count,), generator=generator) for high in (5, 3, 2)], 1) for count in (20, 70)
    )
    distances = torch.rand(20, 70, generator=generator)
    options = {"q_clothes": query[:, 2], "g_clothes": gallery[:, 2], "clothes": rule, "junk_pids": ()}
    found = nl3d.metrics.evaluate_distmat(distances, query[:, 0], gallery[:, 0], query[:, 1], gallery[:, 1], **options)
    count, rank1, precision = scores_by_hand(distances.tolist(), query.tolist(), gallery.tolist(), rule)
    assert found.num_valid_queries == count
    assert (found.cmc[1], found.mAP) == pytest.approx((rank1, precision))
    assert found.clothes == rule


def test_junk_is_left_out_with_its_clothes():
    found = nl3d.evaluate(
        torch.tensor([[0.0]]), torch.tensor([[0.0], [0.2], [0.1]]), [1], [-1, 1, 1], [0], [1, 1, 1],
        q_clothes=[3], g_clothes=[9, 3, 4], clothes="changed", ranks=(1,),
    )  # fmt: skip
    assert (found.mAP, found.num_junk) == (1.0, 1)


def test_refusals():
    rows = torch.tensor([[0.0]])
    with pytest.raises(ValueError, match="q_clothes and g_clothes must be given for clothes='same', got None"):
        nl3d.evaluate(rows, rows, [1], [1], [0], [1], clothes="same")
    with pytest.raises(ValueError, match="clothes must be one of 'any', 'same', 'changed', got 'other'"):
        nl3d.evaluate(rows, rows, [1], [1], [0], [1], clothes="other")
    with pytest.raises(ValueError, match="under another camera in other clothes, got none"):
        nl3d.evaluate(rows, rows, [1], [1], [0], [1], clothes="changed", q_clothes=[2], g_clothes=[2])
