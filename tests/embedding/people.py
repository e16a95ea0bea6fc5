"""Networks and embeddings for the retrieval tests."""

import torch
from torch import nn

from nl3d.embedding.embeddings import Embeddings
from nl3d.layers.head import ReIDOutput


class TinyNet(nn.Module):
    """Means over a grid, then a layer: enough to tell frames, their order and their places apart."""

    def __init__(self, width=5):
        super().__init__()
        self.pretrained_cfg = {
            "architecture": "tiny",
            "mean": (0.4, 0.5, 0.6),
            "std": (0.2, 0.3, 0.4),
            "num_frames": 4,
            "input_size": (3, 24, 12),
            "frame_step": 1,
        }
        self.pool = nn.AdaptiveAvgPool3d((2, 2, 2))
        self.fc = nn.Linear(24, width)
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, clips):
        self.seen.append(tuple(clips.shape))
        features = self.pool(clips).flatten(1)
        return ReIDOutput(features, self.dropout(self.fc(features)), None)


def embeddings(rows, **fields):
    rows = torch.as_tensor(rows, dtype=torch.float32)
    count = len(rows)
    given = {
        "track_ids": torch.arange(count) + 1,
        "frame_ranges": torch.tensor([[1, 10 + row] for row in range(count)]),
        "names": tuple(f"t{row}" for row in range(count)),
    }
    return Embeddings(rows, **{**given, **fields})
