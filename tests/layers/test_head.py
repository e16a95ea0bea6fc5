import pytest
import torch
from torch import nn

from nl3d import ReIDHead, ReIDOutput
from nl3d.layers.head import BNNeckHead, LinearHead
from nl3d.layers.pooling import ClipPool
from tests import oracles


def test_equals_the_layers_of_the_paper_one_by_one():
    head = oracles.randomise(ReIDHead(6, 4, num_classes=3, negative_slope=0.1).double()).eval()
    x = torch.randn(5, 6, 2, 3, 4, dtype=torch.float64)
    features = torch.stack([torch.stack([channel.sum() / 24 for channel in clip]) for clip in x])
    hidden = features @ head.fc.weight.T + head.fc.bias
    hidden = (hidden - head.bn.running_mean) / (
        head.bn.running_var + head.bn.eps
    ).sqrt() * head.bn.weight + head.bn.bias
    embedding = torch.where(hidden > 0, hidden, 0.1 * hidden)
    logits = embedding @ head.classifier.weight.T + head.classifier.bias
    out = head(x)
    assert isinstance(out, ReIDOutput)
    for value, expected in zip(out, (features, embedding, logits), strict=True):
        torch.testing.assert_close(value, expected)


def test_one_type_in_both_modes_and_no_logits_without_classes():
    head = ReIDHead(6, 4)
    for mode in (True, False):
        out = head.train(mode)(torch.randn(2, 6, 1, 2, 2))
        assert isinstance(out, ReIDOutput)
        assert out.logits is None


def test_dropout_stands_between_embedding_and_classifier():
    head = ReIDHead(6, 512, num_classes=3, dropout=0.5)
    head.classifier.weight.data.fill_(1)
    head.bn.eval()
    x = torch.randn(2, 6, 1, 2, 2)
    first, second = head(x), head(x)
    torch.testing.assert_close(first.embedding, second.embedding)
    assert (first.logits - second.logits).abs().max() > 1e-3


@pytest.mark.parametrize("pool", ["avg", "gem", "frame_max"])
def test_pools(pool):
    layer = ClipPool(pool).double()
    x = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64) + 0.1
    if pool == "gem":
        layer.p.data.fill_(2.5)
    for b in range(2):
        for c in range(3):
            values = x[b, c].flatten().tolist()
            frames = [max(x[b, c, t].flatten().tolist()) for t in range(4)]
            expected = {
                "avg": sum(values) / len(values),
                "gem": (sum(v**2.5 for v in values) / len(values)) ** (1 / 2.5),
                "frame_max": sum(frames) / 4,
            }[pool]
            assert layer(x)[b, c].item() == pytest.approx(expected)
    already = torch.rand(2, 3)
    assert layer(already) is already


@pytest.mark.parametrize("make", [ReIDHead, BNNeckHead, LinearHead])
def test_reset_classifier(make):
    head = make(6, num_classes=3)
    head.reset_classifier(7)
    assert head(torch.randn(4, 6, 1, 2, 2)).logits.shape == (4, 7)
    assert 0 < head.classifier.weight.std() < 0.01
    head.reset_classifier(0)
    assert head(torch.randn(4, 6, 1, 2, 2)).logits is None
    assert isinstance(head.classifier, nn.Identity)
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        head.reset_classifier(-1)


def test_bnneck_and_linear_heads():
    x = torch.randn(3, 6, 2, 2, 2, dtype=torch.float64)
    neck = oracles.randomise(BNNeckHead(6, num_classes=4).double()).eval()
    out = neck(x)
    bn = neck.bn
    expected = (out.features - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
    torch.testing.assert_close(out.embedding, expected)
    torch.testing.assert_close(out.logits, expected @ neck.classifier.weight.T)
    projected = oracles.randomise(BNNeckHead(6, 2, num_classes=4).double()).eval()
    out = projected(x)
    bn = projected.bn
    neck = (out.features - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
    torch.testing.assert_close(out.embedding, neck @ projected.projection.weight.T)
    torch.testing.assert_close(out.logits, neck @ projected.classifier.weight.T)
    linear = oracles.randomise(LinearHead(6, num_classes=4).double()).eval()
    out = linear(x)
    torch.testing.assert_close(out.embedding, x.mean((2, 3, 4)))
    torch.testing.assert_close(out.logits, out.embedding @ linear.classifier.weight.T + linear.classifier.bias)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ({"num_classes": -2}, "num_classes must be at least 0, got -2"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"pool": "sum"}, "pool must be one of 'avg', 'gem', 'frame_max', got 'sum'"),
    ],
)
def test_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ReIDHead(**{"in_features": 4, **kwargs})


@pytest.mark.parametrize("make", [ReIDHead, BNNeckHead])
def test_refuses_one_clip_in_training_mode_only(make):
    head, clip = make(6, num_classes=3), torch.randn(1, 6, 2, 2, 2)
    with pytest.raises(ValueError, match=r"clips must be at least 2 in training mode, .*, got 1; call eval"):
        head(clip)
    head.bn.eval()  # frozen statistics need no second clip
    assert head(clip).embedding.shape[0] == head.eval()(clip).embedding.shape[0] == 1
    assert LinearHead(6)(clip).embedding.shape == (1, 6)


def test_refuses_other_channels():
    with pytest.raises(ValueError, match=r"with C=4, got \(2, 3, 1, 1, 1\)"):
        ReIDHead(4)(torch.zeros(2, 3, 1, 1, 1))
