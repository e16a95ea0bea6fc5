"""Training's evaluation beside the command line, on tracklets whose frames differ in size."""

import json

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import nl3d
from nl3d.cli import main
from nl3d.data import read_manifest_tracklets
from nl3d.data.dataset import ReIDDataset
from nl3d.training.evaluation import Evaluation
from tests.training.toys import toy_config

ORDINARY = {"height": 32, "width": 16, "num_frames": 2, "frame_step": 2, "eval_batch": 4}


@pytest.fixture
def tables(tmp_path):
    """Query and gallery of five people under two cameras, no two frames of one size."""
    generator = torch.Generator().manual_seed(3)
    for camid, name in enumerate(("query", "gallery")):
        rows = ["path,tracklet,pid,camid"]
        for pid in range(5):
            colour = torch.randint(256, (3, 4, 2), generator=generator)
            for frame in range(3 + pid):
                height, width = (int(torch.randint(20, 90, (), generator=generator)) for _ in range(2))
                noise = colour + torch.randint(60, (3, 4, 2), generator=generator)
                image = torch.nn.functional.interpolate(noise[None].float(), (height, width))[0].clamp(0, 255).byte()
                path = tmp_path / f"{name}_{pid}_{frame}.png"
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
                rows.append(f"{path.name},{name}{pid},{pid},{camid}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_evaluation_and_the_command_line_agree(tables, capsys):
    torch.manual_seed(0)
    network = nl3d.resnet3d18(embedding_dim=8)
    network.save_pretrained(tables / "network")
    network_options = ["--model", "resnet3d18", "--weights", str(tables / "network" / "model.safetensors")]
    network_options += ["--size", "32x16", "--num-frames", "2", "--frame-step", "2", "--batch-size", "3"]
    network_options += ["--output-layer", "embedding", "--device", "cpu", "--workers", "1"]
    files = [str(tables / f"{name}.safetensors") for name in ("query", "gallery")]
    for file, name in zip(files, ("query", "gallery"), strict=True):
        assert main(["embed", str(tables / f"{name}.csv"), "--output", file, *network_options]) == 0
    capsys.readouterr()
    assert main(["evaluate", *files, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)

    parts = {name: read_manifest_tracklets(tables / f"{name}.csv") for name in ("query", "gallery")}
    evaluation = Evaluation(ReIDDataset(name="toy", **parts), toy_config(**ORDINARY, num_workers=1), Accelerator())
    vectors, _ = evaluation.embed(network.eval())
    expected = torch.cat([nl3d.Embeddings.load(file).embeddings for file in files])
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
    assert vectors.std(0).min() > 1e-3  # the tracklets differ by more than that
    found = evaluation(network)
    assert found["mAP"] == pytest.approx(scores["mAP"], abs=1e-9)
    assert found["cmc"]["1"] == scores["cmc"]["1"]
