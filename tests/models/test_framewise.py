import pytest
import torch
from torch import nn

from nl3d import ReIDOutput
from nl3d.models.framewise import FramewiseNet, TemporalAttention, TemporalPool, TemporalRNN
from tests import oracles


class TinyImageNet(nn.Module):
    """The least that an image network must offer."""

    def __init__(self, channels=6):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.num_features = channels

    def forward_features(self, images):
        return self.conv(images).relu()


def test_pools():
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            frames = [frame.sum() / 30 for frame in x[b, c]]
            assert TemporalPool("mean")(x)[b, c] == pytest.approx((sum(frames) / 4).item())
            assert TemporalPool("max")(x)[b, c] == pytest.approx(max(frames).item())


def test_rnn_is_torch_s_lstm():
    layer = TemporalRNN(3, 5).double()
    lstm = nn.LSTM(3, 5).double()
    lstm.load_state_dict({f"{name}_l0": tensor for name, tensor in layer.cell.state_dict().items()})
    x = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    _, (hidden, _) = lstm(x.mean((3, 4)).permute(2, 0, 1))
    torch.testing.assert_close(layer(x), hidden[0])


def test_attention_frame_by_frame():
    layer = oracles.randomise(TemporalAttention(3, 4).double())
    x = torch.randn(2, 3, 5, 4, 2, dtype=torch.float64)
    for b in range(2):
        scores = []
        for t in range(5):
            response = layer.conv(x[b : b + 1, :, t]).relu().mean((2, 3))
            scores.append(layer.fc(response).exp().item())
        weights = torch.tensor(scores, dtype=torch.float64) / sum(scores)
        torch.testing.assert_close(layer.attention(x)[b], weights)
        expected = sum(weights[t] * x[b, :, t].mean((1, 2)) for t in range(5))
        torch.testing.assert_close(layer(x)[b], expected)


@pytest.mark.parametrize("aggregation", ["mean", "max", "rnn", "attention"])
def test_frames_pass_the_backbone_one_by_one(aggregation):
    model = oracles.randomise(
        FramewiseNet(TinyImageNet(), aggregation=aggregation, rnn_channels=5, embedding_dim=4, num_classes=3)
    ).eval()
    clips = torch.randn(2, 3, 4, 8, 6)
    maps = model.forward_features(clips)
    assert maps.shape == (2, 6, 4, 4, 3)
    for t in range(4):
        torch.testing.assert_close(maps[:, :, t], model.backbone.forward_features(clips[:, :, t]))
    out = model(clips)
    assert isinstance(out, ReIDOutput)
    assert [tuple(value.shape) for value in out] == [(2, model.num_features), (2, 4), (2, 3)]
    torch.testing.assert_close(model.embed(clips), out.embedding)
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), out.embedding)
    # order matters to a recurrent network alone
    backwards = model(clips.flip(2)).features
    assert torch.allclose(backwards, out.features, atol=1e-5) == (aggregation != "rnn")


def test_any_timm_backbone():
    model = FramewiseNet("resnet10t", in_channels=1, num_classes=2).eval()
    model.reset_classifier(3)
    assert model(torch.rand(1, 1, 2, 32, 32)).logits.shape == (1, 3)
    assert (model.num_classes, model.get_classifier().out_features, model.embedding_dim) == (3, 3, 512)
    model.set_grad_checkpointing()


def test_refuses():
    with pytest.raises(ValueError, match="aggregation must be one of 'mean', 'max', 'rnn', 'attention', got 'sum'"):
        FramewiseNet(TinyImageNet(), aggregation="sum")
    with pytest.raises(ValueError, match="kind must be one of"):
        TemporalPool("median")
    model = FramewiseNet(TinyImageNet())
    with pytest.raises(ValueError, match="clips must be"):
        model(torch.rand(1, 3, 8, 6))
    model.backbone.forward_features = lambda images: images.mean((2, 3))
    with pytest.raises(ValueError, match=r"backbone must give maps of features \(B, C, H, W\), got \(2, 3\)"):
        model(torch.rand(1, 3, 2, 8, 6))
