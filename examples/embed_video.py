"""Find the people of one video in another: boxes of any tracker in, a table and a picture out.

python examples/embed_video.py camera1.mp4 camera1.txt camera2.mp4 camera2.txt ranking.png
"""

from __future__ import annotations

import argparse

import nl3d
from nl3d.embedding.network import pick_device


def main() -> None:
    """Embed the tracks of two videos, and rank those of the second for each of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("video", "tracks", "other_video", "other_tracks", "picture"):
        parser.add_argument(name)
    parser.add_argument("--model", default="resnet3d18_nl", help="as nl3d.list_models() names it (%(default)s)")
    parser.add_argument("--weights", default="bundled", help="name, file or hf-hub:org/name (%(default)s)")
    args = parser.parse_args()

    model = getattr(nl3d, args.model)(args.weights).to(pick_device("auto"))
    query = nl3d.embed(args.video, model, tracks=args.tracks)
    gallery = nl3d.embed(args.other_video, model, tracks=args.other_tracks)

    ranking = nl3d.rank(query, gallery, top=5)
    for ranked in ranking:
        print(ranked)
    ranking.save_picture(args.picture, overwrite=True)


if __name__ == "__main__":
    main()
