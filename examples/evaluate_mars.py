"""Score weights on MARS by the official protocol, with the clips of STE-NVAN's published results.

python examples/evaluate_mars.py --root MARS --weights NVAN.pth                 # published: rank-1 90.00, mAP 82.79
python examples/evaluate_mars.py --root MARS --weights R50_baseline_mean.pth    # published: rank-1 87.42, mAP 79.44

Other weights work too: whatever nl3d.from_pretrained takes.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader

import nl3d
from nl3d.data import ClipDataset, ClipTransform, read_mars


def main() -> None:
    """Embed one clip per test tracklet, and rank by cosine similarity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with bbox_test and info; bbox_train is not needed")
    parser.add_argument("--weights", required=True, help="file, folder, name or hf-hub:org/name")
    parser.add_argument("--strategy", default="chunk_start", help="frames of a clip (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 128), metavar=("H", "W"), help="pixels of a frame")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--any-counts", action="store_true", help="accept other numbers of tracklets than MARS has")
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = nl3d.from_pretrained(args.weights).to(device)
    cfg = model.pretrained_cfg
    mars = read_mars(args.root, test_only=True, check_counts=not args.any_counts)

    def embed(tracklets: list[nl3d.Tracklet]) -> torch.Tensor:
        transform = ClipTransform(tuple(args.size), mean=cfg["mean"], std=cfg["std"])
        clips = ClipDataset(tracklets, num_frames=cfg["num_frames"], strategy=args.strategy, transform=transform)
        batches = DataLoader(clips, args.batch_size, num_workers=args.workers)
        with torch.inference_mode():
            return torch.cat([model.embed(batch.clip.to(device)).cpu() for batch in batches])

    labels = [[getattr(t, name) for t in part] for name in ("pid", "camid") for part in (mars.query, mars.gallery)]
    scores = nl3d.evaluate(embed(mars.query), embed(mars.gallery), *labels, metric="cosine", **mars.evaluate_options())
    print(f"{mars.protocol} protocol, {len(mars.query)} queries, {len(mars.gallery)} gallery tracklets: "
          f"rank-1 {100 * scores.cmc[1]:.2f} %, mAP {100 * scores.mAP:.2f} %")  # fmt: skip


if __name__ == "__main__":
    main()
