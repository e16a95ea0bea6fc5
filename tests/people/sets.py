"""Sets of embeddings with known people."""

import torch

import nl3d


def crowd(people, visits, *, spread, seed=0, width=16, **columns):
    """People at random places, each seen once under each of ``visits`` cameras with an error of ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(people, 1, width, generator=generator)
    vectors = places + spread * torch.randn(people, visits, width, generator=generator)
    keys = [(person, visit) for person in range(people) for visit in range(visits)]
    given = {
        "names": [f"p{person} v{visit}" for person, visit in keys],
        "people": [f"p{person}" for person, _ in keys],
        "cameras": [f"c{visit}" for _, visit in keys],
        "metadata": {"network": "abc", "output": "embedding"},
    }
    return nl3d.Embeddings(vectors.flatten(0, 1), **given | columns)
