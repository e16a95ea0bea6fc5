"""A run that takes a second: twelve walkers of 32x16 pixels, a network of some ten thousand weights."""

from nl3d.training.config import TrainingConfig

WALKERS = {"num_identities": 12, "num_test": 4, "num_frames": 24, "num_test_frames": 12, "cameras_per_identity": 2}


def toy_config(**changes):
    options = {
        "dataset": "walkers",
        "data_args": WALKERS,
        "model": "small_3d_nl",
        "model_args": {"base_width": 4},
        "embedding_dim": 8,
        "num_frames": 2,
        "frame_step": 4,
        "height": 32,
        "width": 16,
        "num_pids": 4,
        "num_tracklets": 2,
        "num_workers": 0,
        "epochs": 3,
        "eval_every": 2,
        "lr": 1e-3,
    }
    return TrainingConfig(**{**options, **changes})
