"""An image network on every frame, and one vector per clip by pooling, RNN or attention (Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import timm
import torch
from einops import rearrange
from timm.layers import to_2tuple
from torch import Tensor, nn

from nl3d.hub.pretrained import PretrainedMixin
from nl3d.layers.head import ReIDHead, ReIDOutput
from nl3d.layers.precision import float32_on_small_maps
from nl3d.layers.shapes import check_choice, check_clips
from nl3d.models.reid_network import ReIDNetwork
from nl3d.models.resnet3d import IMAGENET_CFG

Aggregation: TypeAlias = Literal["mean", "max", "rnn", "attention"]


class TemporalPool(nn.Module):
    """Mean or maximum over the frames' vectors (Fig. 1A).

    Source: Liao et al. 2018, arXiv:1807.05073, Fig. 1(A); the mean is also the baseline of Table 2.

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: ``(B, C)``
    """

    def __init__(self, kind: Literal["mean", "max"]) -> None:
        super().__init__()
        check_choice(kind, ("mean", "max"), name="kind")
        self.kind = kind

    def extra_repr(self) -> str:
        return repr(self.kind)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.mean((3, 4))  # (B, C, T)
        return frames.mean(2) if self.kind == "mean" else frames.amax(2)


class TemporalRNN(nn.Module):
    """LSTM over the frames' vectors; the last hidden state is the clip's (Fig. 1B).

    The cell is stepped by hand, for :class:`torch.nn.LSTM` cannot be part of a compiled full graph.

    Source: Liao et al. 2018, arXiv:1807.05073, Fig. 1(B): "hidden state is used as the aggregated feature". The paper
    names no cell; Gao and Nevatia 2018, arXiv:1805.02104, whose comparison it follows, use an LSTM.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, hidden_channels)``
    """

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(in_channels, hidden_channels)

    def reset_parameters(self) -> None:
        self.cell.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        frames = x.mean((3, 4)).unbind(2)  # T vectors (B, C)
        hidden, cell = self.cell(frames[0])
        for frame in frames[1:]:
            hidden, cell = self.cell(frame, (hidden, cell))
        return hidden


class TemporalAttention(nn.Module):
    """Weigh the frames by a spatial convolution and a fully connected layer, then sum their vectors (Fig. 1C).

    Source: Liao et al. 2018, arXiv:1807.05073, Fig. 1(C): "spatial conv + FC is shown". The convolution is 3x3 and its
    response averaged over the frame, so that any H and W will do.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, in_channels)``
    """

    def __init__(self, in_channels: int, hidden_channels: int = 256) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(hidden_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.fc.reset_parameters()

    def attention(self, x: Tensor) -> Tensor:
        """Weights ``(B, T)`` of the frames, each row summing to one."""
        maps = self.relu(self.conv(rearrange(x, "b c t h w -> (b t) c h w")))
        scores = self.fc(maps.mean((2, 3)))  # (B * T, 1)
        return rearrange(scores, "(b t) 1 -> b t", b=x.shape[0]).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bct,bt->bc", x.mean((3, 4)), self.attention(x).to(x.dtype))


class FramewiseNet(ReIDNetwork, PretrainedMixin):
    """Any image network on every frame, an aggregation over time, and the head of the 3D networks.

    A transformer of timm gives tokens, not a map: each frame is then one vector, pooled as the network itself pools it
    (CLIP's by its class token), and the map has one position per frame.

    Source: Liao et al. 2018, arXiv:1807.05073, Fig. 1 and the baseline of Table 2.

    Args:
        backbone: Name of a timm network, built without weights, or the network itself; without timm's
            ``forward_head``, its last feature map must be ``(B, C, H, W)``.
        aggregation: ``"mean"`` or ``"max"`` over time, ``"rnn"`` or ``"attention"``.
        in_channels: Channels of the clips.
        rnn_channels: Width of the recurrent state.
        embedding_dim: As for :class:`~nl3d.ReIDHead`, and so are the next three.
        num_classes: See there.
        negative_slope: See there.
        dropout: See there.
        backbone_options: Options of :func:`timm.create_model`, such as ``{"img_size": (256, 128)}`` for a transformer.

    Shape:
        - Input: RGB clips ``(B, in_channels, T, H, W)``
        - Output: :class:`~nl3d.ReIDOutput`

    Raises:
        ValueError: If ``aggregation`` is unknown; in ``forward``, if clips are not ``(B, C, T, H, W)`` or the backbone
            gives no map of features.

    Example:
        >>> model = FramewiseNet("resnet10t", aggregation="attention", num_classes=10).eval()
        >>> model(torch.rand(2, 3, 4, 64, 32)).embedding.shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        *,
        aggregation: Aggregation = "mean",
        in_channels: int = 3,
        rnn_channels: int = 512,
        embedding_dim: int = 512,
        num_classes: int = 0,
        negative_slope: float = 0.1,
        dropout: float = 0.5,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice(aggregation, ("mean", "max", "rnn", "attention"), name="aggregation")
        self.in_channels = in_channels
        self.pretrained_cfg: dict[str, Any] = dict(IMAGENET_CFG)
        if isinstance(backbone, str):
            if ":" in backbone:
                raise ValueError(f"backbone must be the name of a timm network or the network itself, got {backbone!r}")
            options = dict(backbone_options or {})
            backbone = timm.create_model(backbone, pretrained=False, num_classes=0, in_chans=in_channels, **options)
            own = getattr(backbone, "pretrained_cfg", {})
            self.pretrained_cfg |= {key: tuple(own[key]) for key in ("mean", "std") if key in own}
            if "img_size" in options:
                self.pretrained_cfg["input_size"] = (in_channels, *to_2tuple(options["img_size"]))
        network: Any = backbone
        self.backbone = network
        channels: int = network.num_features
        if aggregation == "rnn":
            self.aggregate: nn.Module = TemporalRNN(channels, rnn_channels)
            self.num_features = rnn_channels
        else:
            self.aggregate = TemporalAttention(channels) if aggregation == "attention" else TemporalPool(aggregation)
            self.num_features = channels
        self.head = ReIDHead(
            self.num_features, embedding_dim, num_classes=num_classes, negative_slope=negative_slope, dropout=dropout
        )

    def forward_features(self, clips: Tensor) -> Tensor:
        """Feature maps ``(B, C, T, H', W')`` of the frames of clips ``(B, in_channels, T, H, W)``."""
        check_clips(clips, self.in_channels)
        with float32_on_small_maps(clips):
            maps = self.backbone.forward_features(rearrange(clips, "b c t h w -> (b t) c h w"))
            width = getattr(self.backbone, "num_features", None)
            if hasattr(self.backbone, "forward_head") and (maps.ndim != 4 or maps.shape[1] != width):
                maps = self.backbone.forward_head(maps, pre_logits=True)[:, :, None, None]
        if maps.ndim != 4:
            raise ValueError(f"backbone must give maps of features (B, C, H, W), got {tuple(maps.shape)}")
        return rearrange(maps, "(b t) c h w -> b c t h w", t=clips.shape[2])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> ReIDOutput | Tensor:
        """Aggregated features, embedding and logits of the feature maps; only the embedding with ``pre_logits``."""
        return super().forward_head(self.aggregate(x), pre_logits)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the image network's activations in the backward pass instead of keeping them."""
        self.backbone.set_grad_checkpointing(enable)

    def architecture(self) -> tuple[str, tuple[str, ...]]:
        """Name of the factory for this aggregation, or ``"framewise"``, and the arguments that the name implies."""
        options = self._hub_mixin_config
        if not isinstance(options, dict) or options["backbone"] != "resnet50":
            return "framewise", ()
        names = {"rnn": "resnet50_rnn", "attention": "resnet50_ta"}
        if options["aggregation"] in names:
            return names[options["aggregation"]], ("backbone", "aggregation")
        return "resnet50_tp", ("backbone",)
