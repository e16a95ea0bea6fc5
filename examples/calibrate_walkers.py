"""Fit a calibration of a network on synthetic walkers, as the one in the package was.

python examples/calibrate_walkers.py --output nl3d/retrieval/calibrations/resnet3d18_nl.json --overwrite
"""

import argparse

import nl3d

# people, cameras and streets of a world that no network of the package was trained on; drawn as in its last training
WORLD = {
    "seed": 11, "num_identities": 120, "num_test": 120, "num_cameras": 12, "cameras_per_identity": 3, "alike": 0.1,
    "same_build": False, "difficulty": 0.5, "clutter": 3, "camera_style": 1.2, "misalignment": 2, "looseness": 0.6,
}  # fmt: skip


def film(world: nl3d.WalkerWorld, num_frames: int) -> list[nl3d.Tracklet]:
    """Film every person once under each of their cameras."""
    filmed = nl3d.WalkerTracklets(world, "query", num_frames=num_frames)
    return [
        nl3d.Tracklet(frames, pid=pid, camid=camid, name=f"p{pid} cam{camid}")
        for frames, pid, camid in (filmed[place] for place in range(len(filmed)))
    ]


def main() -> None:
    """Film, embed, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--output", required=True)
    parser.add_argument("--picture")
    parser.add_argument("--people", type=int, default=WORLD["num_identities"])
    parser.add_argument("--num-frames", type=int, default=64)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()

    model = nl3d.from_pretrained(args.weights, num_classes=0)
    size = tuple(model.pretrained_cfg["input_size"][1:])
    world = nl3d.WalkerWorld(**{**WORLD, "num_identities": args.people, "num_test": args.people, "size": size})
    description = f"{args.people} synthetic walkers of world {world.seed} under {world.num_cameras} cameras"
    report = nl3d.calibrate(nl3d.embed(film(world, args.num_frames), model), description=description)
    report.calibration.save(args.output, overwrite=args.overwrite)
    if args.picture:
        report.save_picture(args.picture, overwrite=args.overwrite)
    print(report.table())


if __name__ == "__main__":
    main()
