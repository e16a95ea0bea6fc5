"""The re-id network of blank4hd/mctrack-reid, built again from what is published of its two loaders."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from nl3d import from_checkpoint
from tests.oracles import randomise


class Published(nn.Module):
    """Neck on 2048 channels, then the embedding; or generalised mean, bottleneck, then the neck on 256."""

    def __init__(self, neck_last):
        super().__init__()
        image = ResNet(Bottleneck, [1, 1, 1, 1])
        image.layer4[0].conv2.stride = image.layer4[0].downsample[0].stride = (1, 1)
        self.backbone = nn.Sequential(*list(image.children())[:-2])
        self.neck_last = neck_last
        if neck_last:
            self.gem = nn.Module()
            self.gem.p = nn.Parameter(torch.tensor(2.5))
            self.bottleneck = nn.Linear(2048, 16, bias=False)
            self.bn_neck = nn.BatchNorm1d(16)
            self.classifier = nn.Linear(16, 5, bias=False)
        else:
            self.bnneck = nn.BatchNorm1d(2048)
            self.embedding_layer = nn.Linear(2048, 16, bias=False)
            self.classifier = nn.Linear(2048, 5, bias=False)

    def forward(self, images):
        maps = self.backbone(images)
        if self.neck_last:
            pooled = F.adaptive_avg_pool2d(maps.clamp(min=1e-6).pow(self.gem.p), 1).pow(1 / self.gem.p).flatten(1)
            embedding = self.bn_neck(self.bottleneck(pooled))
            return F.normalize(embedding), self.classifier(embedding)
        neck = self.bnneck(maps.mean((2, 3)))
        return F.normalize(self.embedding_layer(neck)), self.classifier(neck)


@pytest.mark.parametrize("neck_last", [False, True])
def test_computes_what_the_loader_computes(neck_last):
    original = randomise(Published(neck_last)).eval()
    if neck_last:
        original.gem.p.data.fill_(2.5)
    model = from_checkpoint({"state_dict": original.state_dict()}, num_classes=5)
    assert model.pretrained_cfg["family"] == "mctrack_reid"
    assert model.new_tensors == ()
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        embedding, logits = original(images)
        out = model(images.unsqueeze(2))
        torch.testing.assert_close(F.normalize(out.embedding), embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-4)
        again = from_checkpoint(model.state_dict(), last_stride=1, pool="gem" if neck_last else "avg")
        torch.testing.assert_close(again(images.unsqueeze(2)).features, out.features)
