"""Turn a ConvNeXt and an EfficientNet into video networks for re-identification.

Run it as is: it needs no network and no data. With ``--weights imagenet`` both start from timm's ImageNet weights.
"""

import argparse

import torch

import nl3d

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights", help="imagenet, or another of timm's tags; random if left out")
weights = parser.parse_args().weights

# ConvNeXt: its 7x7 depthwise kernels become 3x7x7; non-local blocks stand after blocks 2 and 5 of the third stage.
convnext = nl3d.reid_model("convnext_atto", weights, non_local={"stages.2": (2, 5)}, num_classes=625)

# EfficientNet: only the last stages look along time, through separable kernels, and they keep every second frame.
efficientnet = nl3d.reid_model(
    "efficientnet_b0",
    weights,
    separable=True,
    where={"blocks.4": 3, "blocks.5": 3, "blocks.6": 3},
    time_stride={"blocks.5": 2},
    non_local={"blocks.4": (1,)},
    num_classes=625,
)

clips, pids = torch.randn(4, 3, 4, 128, 64), torch.tensor([0, 0, 1, 1])  # 4 clips of 4 frames, two of each person
loss_of = nl3d.ReIDLoss()
for name, model in (("ConvNeXt", convnext), ("EfficientNet", efficientnet)):
    out = model(clips)  # features, embedding and logits
    loss = loss_of(out, pids)
    loss.backward()
    maps = tuple(model.forward_features(clips).shape)
    print(f"{name}: maps {maps}, embedding {tuple(out.embedding.shape)}, loss {loss.item():.3f}")

print(nl3d.Inflate2dTo3d.report(efficientnet.backbone))
