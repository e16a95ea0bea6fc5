"""Slow, obvious reimplementations that the tests compare with. Nothing here may import from nl3d."""

import math

import torch
from torch import nn


def randomise(module):
    """Leave every zero and identity start, in weights, norm statistics and gains, or a broken layer would pass."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim > 1:
                tensor.normal_(std=1 / math.sqrt(max(tensor[0].numel(), 1)))
            else:
                tensor.uniform_(-0.5, 1.0)
    return module


def conv3d(
    clips, weight, bias=None, stride=(1, 1, 1), padding=(0, 0, 0), dilation=(1, 1, 1), groups=1, pad_time="zeros"
):
    """Eq. 2, position by position."""
    batch, _, frames, height, width = clips.shape
    out_channels, per_group, *kernel = weight.shape
    sizes = [
        (size + 2 * pad - step * (k - 1) - 1) // by + 1
        for size, pad, step, k, by in zip((frames, height, width), padding, dilation, kernel, stride, strict=True)
    ]
    out = torch.zeros(batch, out_channels, *sizes, dtype=clips.dtype)
    for t, h, w in ((t, h, w) for t in range(sizes[0]) for h in range(sizes[1]) for w in range(sizes[2])):
        for p, q, r in ((p, q, r) for p in range(kernel[0]) for q in range(kernel[1]) for r in range(kernel[2])):
            at_t = t * stride[0] + p * dilation[0] - padding[0]
            at_h = h * stride[1] + q * dilation[1] - padding[1]
            at_w = w * stride[2] + r * dilation[2] - padding[2]
            if pad_time == "replicate":
                at_t = min(max(at_t, 0), frames - 1)
            if not (0 <= at_t < frames and 0 <= at_h < height and 0 <= at_w < width):
                continue
            for o in range(out_channels):
                start = o // (out_channels // groups) * per_group
                pixel = clips[:, start : start + per_group, at_t, at_h, at_w]
                out[:, o, t, h, w] += pixel @ weight[o, :, p, q, r]
    return out if bias is None else out + bias.view(1, -1, 1, 1, 1)


def non_local_map(block, clips):
    """All pairs of Eq. 3 as ``(B, queries, keys)``, normalised, and the values ``(B, keys, inner)``."""
    pool = nn.MaxPool3d((1, 2, 2))
    source = pool(clips) if block.subsample == "before" else clips
    queries = clips if block.mode == "gaussian" else block.theta(clips)
    keys = source if block.mode == "gaussian" else block.phi(source)
    values = block.g(source)
    if block.subsample == "after":
        keys, values = pool(keys), pool(values)
    queries, keys, values = (part.flatten(2).transpose(1, 2) for part in (queries, keys, values))
    num_keys = keys.shape[1]

    def weight(query, key):
        if block.mode == "concatenation":
            return torch.relu(block.w_f.weight.flatten() @ torch.cat([query, key])) / num_keys
        if block.mode == "dot_product":
            return query @ key / num_keys
        return torch.exp(query @ key / (math.sqrt(len(query)) if block.scale else 1))

    def row(query, clip_keys):
        weights = torch.stack([weight(query, key) for key in clip_keys])
        return weights / weights.sum() if "gaussian" in block.mode else weights

    pairs = torch.stack(
        [
            torch.stack([row(query, clip_keys) for query in clip_queries])
            for clip_queries, clip_keys in zip(queries, keys, strict=True)
        ]
    )
    return pairs, values


def non_local(block, clips):
    """Eq. 3 and 6 with the whole map in hand; the norm in evaluation mode."""
    pairs, values = non_local_map(block, clips)
    y = torch.einsum("bij,bjc->bci", pairs, values).unflatten(2, clips.shape[2:])
    projected = torch.einsum("oi,bithw->bothw", block.w_z.weight[:, :, 0, 0, 0], y)
    shape = (1, -1, 1, 1, 1)
    norm = block.bn
    scaled = (projected - norm.running_mean.view(shape)) / torch.sqrt(norm.running_var.view(shape) + norm.eps)
    return scaled * norm.weight.view(shape) + norm.bias.view(shape) + clips


def ranking_scores(
    distmat,
    q_pids,
    g_pids,
    q_camids,
    g_camids,
    *,
    ap="interpolated",
    ranks=(1, 5),
    junk=(-1,),
    distractors=(),
    cameras=True,
):
    """CMC, mAP and mINP over the queries with a match, and their number, by walking every ranking from its top."""
    curves, precisions, penalties = [], [], []
    for q, row in enumerate(distmat):
        ranking = sorted(range(len(row)), key=lambda g, row=row: (row[g], g))
        found, total, old_precision = [], 0.0, 1.0
        position = 0
        for g in ranking:
            same_pid = g_pids[g] == q_pids[q]
            if g_pids[g] in junk or (cameras and same_pid and g_camids[g] == q_camids[q]):
                continue
            position += 1
            right = same_pid and g_pids[g] not in distractors
            if right:
                found.append(position)
            precision = len(found) / position
            if right:
                total += (old_precision + precision) / 2 if ap == "trapezoid" else precision
            old_precision = precision
        if found:
            curves.append([float(found[0] <= rank) for rank in ranks])
            precisions.append(total / len(found))
            penalties.append(len(found) / found[-1])
    count = len(precisions)
    cmc = {rank: sum(curve[i] for curve in curves) / count for i, rank in enumerate(ranks)} if count else {}
    return cmc, sum(precisions) / count if count else None, sum(penalties) / count if count else None, count


def k_reciprocal_distances(embeddings, num_query, k1, k2, original_weight):
    """Zhong et al. 2017, Sec. 3, with sets; ``embeddings`` are lists of floats, queries first."""
    total = len(embeddings)
    squared = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in embeddings] for x in embeddings]
    original = [[value / max(row) for value in row] for row in squared]
    order = [sorted(range(total), key=lambda j, i=i: (j != i, squared[i][j])) for i in range(total)]

    def reciprocal(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    vectors = []
    for i in range(total):
        core = reciprocal(i, k1)
        expanded = set(core)
        for j in core:
            candidates = reciprocal(j, round(k1 / 2))
            if len(core & candidates) >= 2 / 3 * len(candidates) - 1e-9:
                expanded |= candidates
        weights = [math.exp(-original[i][j]) if j in expanded else 0.0 for j in range(total)]
        vectors.append([weight / sum(weights) for weight in weights])
    averaged = [[sum(vectors[j][c] for j in order[i][:k2]) / k2 for c in range(total)] for i in range(total)]

    def jaccard(i, j):
        pairs = list(zip(averaged[i], averaged[j], strict=True))
        return 1 - sum(map(min, pairs)) / sum(map(max, pairs))

    return [
        [(1 - original_weight) * jaccard(q, g) + original_weight * original[q][g] for g in range(num_query, total)]
        for q in range(num_query)
    ]
