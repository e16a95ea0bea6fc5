import argparse

import pytest

from nl3d.cli.options import choose_network


@pytest.mark.parametrize(
    ("model", "weights", "chosen"),
    [
        (None, None, ("resnet3d18_nl", "bundled")),
        (None, "bundled", ("resnet3d18_nl", "bundled")),
        ("resnet3d18_nl", None, ("resnet3d18_nl", "bundled")),
        (None, "imagenet", ("resnet3d50_nl", "imagenet")),
        ("resnet50_tp", None, ("resnet50_tp", "imagenet")),
        (None, "none", ("resnet3d50_nl", "none")),
        ("resnet3d18", "a.safetensors", ("resnet3d18", "a.safetensors")),
    ],
)
def test_model_and_weights_decide_each_other(model, weights, chosen):
    assert choose_network(argparse.Namespace(model=model, weights=weights)) == chosen
