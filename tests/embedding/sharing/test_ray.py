"""A Ray cluster of two nodes, one of which is killed in the middle: slow to start, so it is one test."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch

import nl3d
from nl3d.cli import main
from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.network import seeded
from nl3d.embedding.sharing.ray_engine import PartEmbedder, embed_on_ray
from nl3d.embedding.sharing.shards import Outcome, Share, embed_to_file, open_share
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet

LENGTHS = [1 + place * 5 % 13 for place in range(40)]
SMALL = {"batch_size": 2, "batches_per_part": 3}


class SlowNet(TinyNet):
    """Leaves a file for each process that it runs in."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def forward(self, clips):
        import ray

        (Path(self.folder) / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(0.05)
        return super().forward(clips)


@pytest.fixture
def table(tmp_path):
    rows = ["path,tracklet,pid,camid"]
    for place, length in enumerate(LENGTHS):
        for frame in range(length):
            colour = (6 * place, 19 * frame % 256, 37 * (place + frame) % 256)
            write_jpeg(tmp_path / "frames" / f"{place}_{frame}.jpg", colour=colour, size=(24, 12))
            rows.append(f"frames/{place}_{frame}.jpg,t{place},{place // 2},{place % 3}")
    (tmp_path / "people.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "people.csv"


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", str(Path(nl3d.__file__).parents[1]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.second = cluster.add_node(**node)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_is_killed_loses_and_repeats_nothing(tmp_path, table, cluster):
    output, seen = tmp_path / "people.parquet", tmp_path / "seen"
    seen.mkdir()
    killed = []

    def kill():
        while len(list(seen.iterdir())) < 2 or len(list(Path(f"{output}.parts").glob("*.parquet"))) < 2:
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        killed.append(len(list(Path(f"{output}.parts").glob("*.parquet"))))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    slow = seeded(lambda: SlowNet(str(seen)))
    outcome = embed_on_ray(table, slow, output, actors=2, **SMALL)
    thread.join(10)
    assert outcome.joined
    assert killed
    assert killed[0] < outcome.made
    alone = tmp_path / "alone.safetensors"
    embed_to_file(table, seeded(TinyNet), alone, **SMALL)
    found, expected = Embeddings.load(output), Embeddings.load(alone)
    assert found.names == expected.names == tuple(f"t{place}" for place in range(len(LENGTHS)))
    for name in ("embeddings", "track_ids", "frame_ranges", "pids", "camids"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert embed_on_ray(table, slow, output, actors=2, **SMALL).text.endswith("delete it to start again")

    # on what is left of the cluster: an error keeps what is done, and a second command makes only what is missing
    two, broken = tmp_path / "two.safetensors", tmp_path / "frames" / "39_0.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"image '.*39_0.jpg' cannot be read"):
        embed_on_ray(table, slow, two, actors=1, **SMALL)
    parts = list((tmp_path / "two.safetensors.parts").glob("*.safetensors"))
    assert 0 < len(parts) < outcome.made
    broken.write_bytes(whole)
    assert embed_on_ray(table, slow, two, actors=1, **SMALL).made == outcome.made - len(parts)
    assert two.read_bytes() == alone.read_bytes()


def test_an_actor_returns_its_errors(table):
    source = open_share(table, Share())
    actor = PartEmbedder(seeded(TinyNet), {"batch_size": 2}, skip_unreadable=False, threads=None)
    made = actor({"part": [3, 4], "source": [source.part(range(a, a + 3)) for a in (3, 6)]})
    parts = made["made"]
    assert [part.columns["names"] for part in parts] == [["t3", "t4", "t5"], ["t6", "t7", "t8"]]
    assert made["part"] == [3, 4]
    os.unlink(table.parent / "frames" / "3_0.jpg")  # noqa: PTH108
    (error,) = actor({"part": [3], "source": [source.part(range(3, 6))]})["made"]
    assert isinstance(error, FileNotFoundError)
    with pytest.raises(ValueError, match="actors must be at least 1, got 0"):
        embed_on_ray(table, TinyNet(), "out.safetensors", actors=0)


def test_the_command_line_hands_everything_over(table, tmp_path, monkeypatch, capsys):
    given = {}

    def embed(source, model, output, **options):
        given.update(options, source=source.path, output=output)
        return Outcome("people: 40 tracklets", complete=True, joined=True)

    monkeypatch.setattr("nl3d.embedding.sharing.ray_engine.embed_on_ray", embed)
    output = tmp_path / "out.lance"
    command = ["embed", str(table), "--output", str(output), "--engine", "ray", "--actors", "3", "--batch-size", "5"]
    assert main([*command, "--skip-unreadable"]) == 0
    assert (given["source"], given["output"]) == (table, output)
    assert (given["actors"], given["batch_size"], given["skip_unreadable"]) == (3, 5, True)
    assert (given["labels"]["weights"], given["overwrite"]) == ("bundled", False)
    assert capsys.readouterr().out == "people: 40 tracklets\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--actors", "2"], "actors must be left out without --engine ray, got 2"),
        (["--engine", "ray", "--tracks", "boxes.txt"], "engine must be local for a video"),
    ],
)
def test_the_command_line_refuses_what_does_not_fit(table, capsys, extra, message):
    assert main(["embed", str(table), "--output", "o.safetensors", *extra]) == 2
    assert message in capsys.readouterr().err
