"""Non-local attention over space and time (Sec. 3.2, Eq. 3-6, Fig. 5)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.layers.shapes import check_choice, check_clips

NonLocalMode: TypeAlias = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
Subsample: TypeAlias = Literal["before", "after"]


class NonLocalBlock3d(nn.Module):
    """Add to every position a weighted sum over all positions of the clip.

    A response ``y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)`` (Eq. 3) is projected and added:
    ``z_i = W_z y_i + x_i`` (Eq. 6).
    The batch norm after ``W_z`` starts with gain zero, so a fresh block is the identity and can be put into a trained
    network. No mode ever holds the ``(T*H*W) x (T*H*W)`` map of all pairs.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.2 and 4.2, Fig. 5, after Wang et al. 2018, arXiv:1711.07971.
    Eq. 5 of the paper writes the softmax's sum over i; Fig. 5 ("on each row") and the cited method sum over j, as here.

    Args:
        in_channels: Channels of the feature map.
        inner_channels: Channels of the embeddings; half of ``in_channels`` if left out.
        mode: Pairwise function. ``"embedded_gaussian"`` is ``exp(theta(x_i) . phi(x_j))``, normalised (the paper, Eq. 4
            and 5); ``"gaussian"`` is ``exp(x_i . x_j)``, normalised; ``"dot_product"`` is
            ``theta(x_i) . phi(x_j) / N``; ``"concatenation"`` is ``ReLU(w_f . [theta(x_i), phi(x_j)]) / N``. N is the
            number of keys.
        scale: Divide the exponent by the square root of its width, as FAIR's code does and the paper does not.
        subsample: Max-pool keys and values by 1x2x2, ``"before"`` their 1x1x1 convolution (FAIR) or ``"after"`` it:
            two different functions. An axis of one position stays as it is.
        time_window: Attend only within windows of so many frames (FAIR's groups); the whole clip if left out.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: the same

    Raises:
        ValueError: If an option is unknown, ``scale`` goes with a mode that has no exponent, a width is not positive,
            or, in ``forward``, T is no multiple of ``time_window``.

    Example:
        >>> block = NonLocalBlock3d(64)
        >>> clips = torch.randn(2, 64, 4, 8, 4)
        >>> torch.equal(block(clips), clips)
        True
    """

    def __init__(
        self,
        in_channels: int,
        inner_channels: int | None = None,
        *,
        mode: NonLocalMode = "embedded_gaussian",
        scale: bool = False,
        subsample: Subsample | None = None,
        time_window: int | None = None,
    ) -> None:
        super().__init__()
        check_choice(mode, ("embedded_gaussian", "gaussian", "dot_product", "concatenation"), name="mode")
        check_choice(subsample, (None, "before", "after"), name="subsample")
        if scale and mode not in ("embedded_gaussian", "gaussian"):
            raise ValueError(f"scale must be False for mode {mode!r}, which has no exponent to scale")
        if inner_channels is None:
            inner_channels = max(in_channels // 2, 1)
        for name, value in (
            ("in_channels", in_channels),
            ("inner_channels", inner_channels),
            ("time_window", time_window),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_channels = in_channels
        self.inner_channels = inner_channels
        self.mode = mode
        self.scale = scale
        self.subsample = subsample
        self.time_window = time_window
        if mode != "gaussian":
            self.theta = nn.Conv3d(in_channels, inner_channels, 1)
            self.phi = nn.Conv3d(in_channels, inner_channels, 1)
        if mode == "concatenation":
            self.w_f = nn.Conv3d(2 * inner_channels, 1, 1, bias=False)
        self.g = nn.Conv3d(in_channels, inner_channels, 1)
        self.w_z = nn.Conv3d(inner_channels, in_channels, 1, bias=False)  # the norm's shift is its bias
        self.bn = nn.BatchNorm3d(in_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He-initialise the convolutions ([13] in Sec. 4.2) and start the norm's gain at zero: the identity."""
        for layer in self.children():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.bn.reset_parameters()
        nn.init.zeros_(self.bn.weight)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, inner_channels={self.inner_channels}, mode={self.mode!r}, scale={self.scale}, "
            f"subsample={self.subsample!r}, time_window={self.time_window}"
        )

    def forward(self, clips: Tensor) -> Tensor:
        check_clips(clips, self.in_channels, finite=False)
        x = self._split_windows(clips)
        queries, keys, values = self._embed(x)
        if self.mode == "dot_product":
            y = queries @ ((keys / keys.shape[1]).transpose(1, 2) @ values)  # associativity: no map of pairs
        elif self.mode == "concatenation":
            y = self._concatenation(queries, keys, values)
        else:
            y = self._softmax_attention(queries, keys, values)
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])  # (B', inner, T', H, W)
        if self.time_window is not None:
            y = y.unflatten(0, (clips.shape[0], -1)).transpose(1, 2).flatten(2, 3)
        return self.bn(self.w_z(y)) + clips

    def attention(self, clips: Tensor, position: tuple[int, int, int]) -> Tensor:
        """Weights with which one position attends to all others: one row of the map, without the rest.

        Args:
            clips: Feature map, as for ``forward``.
            position: ``(t, h, w)`` of the position that attends.

        Shape:
            - Output: ``(B, T, H, W)``; with ``subsample``, H and W are those of the pooled keys. A row of the softmax
              modes sums to one. Frames outside of the position's ``time_window`` have weight zero.

        Raises:
            ValueError: If ``position`` is outside the clip.

        Example:
            >>> NonLocalBlock3d(64).attention(torch.randn(2, 64, 4, 8, 4), position=(0, 3, 1)).shape
            torch.Size([2, 4, 8, 4])
        """
        check_clips(clips, self.in_channels)
        frames, height, width = clips.shape[2:]
        if len(position) != 3 or not all(0 <= at < size for at, size in zip(position, clips.shape[2:], strict=True)):
            raise ValueError(f"position must be (t, h, w) within {(frames, height, width)}, got {position!r}")
        t, h, w = position
        window = self.time_window or frames
        start = t // window * window
        x = clips[:, :, start : start + window]
        queries, keys, _ = self._embed(x)
        at = ((t - start) * height + h) * width + w
        if self.mode == "concatenation":
            a, b = self._pair_terms(queries[:, at : at + 1], keys)
            row = F.relu(a + b) / keys.shape[1]  # (B, N)
        else:
            row = torch.einsum("bc,bnc->bn", queries[:, at], keys)
            row = row / keys.shape[1] if self.mode == "dot_product" else (row * self._exponent_scale(keys)).softmax(1)
        row = row.unflatten(1, (x.shape[2], *self._pooled_size(height, width)))
        return F.pad(row, (0, 0, 0, 0, start, frames - start - x.shape[2]))

    def _split_windows(self, clips: Tensor) -> Tensor:
        """Give each window of frames its own place in the batch."""
        if self.time_window is None:
            return clips
        if clips.shape[2] % self.time_window:
            raise ValueError(
                f"clips must have a multiple of time_window={self.time_window} frames, got {clips.shape[2]}"
            )
        return clips.unflatten(2, (-1, self.time_window)).transpose(1, 2).flatten(0, 1)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, T*H*W, C)``, keys and values ``(B, N, C)``, N smaller by four with ``subsample``."""
        queries = x if self.mode == "gaussian" else self.theta(x)
        source = self._pool(x) if self.subsample == "before" else x
        keys = source if self.mode == "gaussian" else self.phi(source)
        values = self.g(source)
        if self.subsample == "after":
            keys, values = self._pool(keys), self._pool(values)
        return tuple(part.flatten(2).transpose(1, 2) for part in (queries, keys, values))  # type: ignore[return-value]

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool3d(x, (1, min(2, x.shape[3]), min(2, x.shape[4])))

    def _pooled_size(self, height: int, width: int) -> tuple[int, int]:
        if self.subsample is None:
            return height, width
        return max(height // 2, 1), max(width // 2, 1)

    def _exponent_scale(self, keys: Tensor) -> float:
        return keys.shape[2] ** -0.5 if self.scale else 1.0

    def _softmax_attention(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Eq. 5, on PyTorch's fused attention.

        Its kernels without a map want queries, keys and values of one width, and that width to be the contiguous axis;
        anything else falls back, in silence, to the kernel that holds the whole map.
        """
        width, scale = values.shape[2], self._exponent_scale(keys)
        if width < keys.shape[2]:
            values = F.pad(values, (0, keys.shape[2] - width))
        elif width > keys.shape[2]:  # zeros add nothing to a product of queries and keys
            queries, keys = (F.pad(part, (0, width - part.shape[2])) for part in (queries, keys))
        parts = (part if part.stride(2) == 1 else part.contiguous() for part in (queries, keys, values))
        queries, keys, values = (part.unsqueeze(1) for part in parts)
        y = F.scaled_dot_product_attention(queries, keys, values, scale=scale)
        return y.squeeze(1)[:, :, :width]

    def _pair_terms(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Split ``w_f . [theta, phi]`` into ``a_i + b_j``: ``(B, queries)`` and ``(B, keys)``, at least float32."""
        of_query, of_key = self.w_f.weight.flatten().chunk(2)
        terms = queries @ of_query.to(queries.dtype), keys @ of_key.to(keys.dtype)
        return tuple(term.float() if term.dtype.itemsize < 4 else term for term in terms)  # type: ignore[return-value]

    def _concatenation(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``1/N sum_j ReLU(a_i + b_j) g_j`` without the pairs.

        With b sorted from high to low, the keys with ``a_i + b_j > 0`` are the first ``n_i``, and the sum is
        ``a_i * sum g_j + sum b_j g_j`` over them: two running sums, read at ``n_i``.
        """
        a, b = self._pair_terms(queries, keys)
        b, order = b.sort(dim=1, descending=True)
        values = values.to(b.dtype).gather(1, order.unsqueeze(2).expand_as(values))
        sums = torch.cat([values, b.unsqueeze(2) * values], dim=2).cumsum(1)
        sums = F.pad(sums, (0, 0, 1, 0))  # (B, N + 1, 2 * inner): entry n holds the sum over the first n keys
        active = torch.searchsorted(-b.detach(), a.detach().contiguous())  # how many b_j > -a_i
        sum_g, sum_bg = sums.gather(1, active.unsqueeze(2).expand(-1, -1, sums.shape[2])).chunk(2, dim=2)
        return ((a.unsqueeze(2) * sum_g + sum_bg) / b.shape[1]).to(queries.dtype)
