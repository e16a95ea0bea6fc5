"""Train in plain PyTorch: a loop of your own around the data set, sampler, loss and evaluation of nl3d.

Needs no file, since the people are synthetic walkers: python examples/plain_loop.py --epochs 30
"""

import argparse

import torch
from torch.utils.data import DataLoader

import nl3d
from nl3d.data import ClipDataset, ClipTransform, PKSampler
from nl3d.metrics import evaluate
from nl3d.walkers.dataset import read_walkers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--people", type=int, default=48, help="16 of them are for testing (%(default)s)")
parser.add_argument("--channels", type=int, default=32, help="width of the network's first stage (%(default)s)")
args = parser.parse_args()

size, clip = (64, 32), {"num_frames": 4, "frame_step": 4}
data = read_walkers(size=size, num_identities=args.people, num_test=16, num_frames=32, num_test_frames=16)
clips = ClipDataset(data.train, **clip, training=True, transform=ClipTransform(size, training=True))
batches = PKSampler([tracklet.pid for tracklet in data.train], 8, 4)  # 8 people with 4 tracklets each
loader = DataLoader(clips, batch_sampler=batches)
network = nl3d.resnet3d18_nl(num_classes=data.num_train_pids, base_width=args.channels, embedding_dim=128)
criterion, optimizer = nl3d.ReIDLoss(), torch.optim.AdamW(network.parameters(), lr=1e-3)

for epoch in range(args.epochs):
    batches.set_epoch(epoch)
    network.train()
    for sample in loader:
        loss = criterion(network(sample.clip), sample.pid)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

options = {**clip, "size": size, "output_layer": "embedding"}
query, gallery = (nl3d.embed(part, network, **options) for part in (data.query, data.gallery))
scores = evaluate(query.embeddings, gallery.embeddings, query.pids, gallery.pids, query.camids, gallery.camids)
print(f"rank-1 {100 * scores.cmc[1]:.1f} %, mAP {100 * scores.mAP:.1f} %")
