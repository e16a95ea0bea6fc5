import io
import sqlite3
import threading
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from nl3d.gallery import times
from nl3d.gallery.gallery import Gallery
from nl3d.retrieval.calibration import Calibration
from tests.data.pictures import picture, write_jpeg
from tests.embedding.people import TinyNet, embeddings

START = "2026-11-30T08:00:00Z"
MAKER = {"network": "aa", "output": "features", "model": "m", "weights": "w"}


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.gallery", create=True) as made:
        yield made


def add(gallery, rows=((0.0, 1.0), (1.0, 0.0), (5.0, 5.0)), **fields):
    own = ("camera", "person", "start", "fps", "prefix", "thumbnails")
    given = {"thumbnails": False, **{key: fields.pop(key) for key in own if key in fields}}
    return gallery.add(embeddings(rows, **fields), **given)


def test_what_was_added_is_found_the_next_day(tmp_path):
    path = tmp_path / "people.gallery"
    with Gallery(path, create=True) as gallery:
        added = add(gallery, people=("ann", "bob", None), cameras=("1", "2", "2"), start=START, fps=25, metadata=MAKER)
        assert added == (3, 0, None)
    with Gallery(path) as gallery:
        assert (len(gallery), "t1" in gallery, "x" in gallery) == (3, True, False)
        (matches,) = gallery.find(torch.tensor([0.0, 0.9]), top=2)
        assert [match.entry.name for match in matches.found] == ["t0", "t1"]
        assert [match.distance for match in matches.found] == pytest.approx([0.1, (1 + 0.81) ** 0.5])
        entry = matches.found[0].entry
        assert entry[:4] == ("t0", "ann", "1", (1, 10))
        began = datetime(2026, 11, 30, 8, tzinfo=timezone.utc).timestamp()
        assert entry.seen == (began, began + 9 / 25)
        assert gallery.metadata == MAKER
        (matches,) = gallery.find(embeddings([[4.0, 4.0]], names=("q",), metadata=MAKER))
        assert (matches.name, len(matches.found), matches.found[0].entry.person) == ("q", 3, None)


def test_filters_by_camera_and_time(gallery):
    add(gallery, cameras=("1", "2", "2"), start=START, fps=1)  # seen for 10, 11 and 12 seconds
    add(gallery, [[0.0, 1.1]], names=("timeless",), camera="9")

    def found(**wanted):
        names = [match.entry.name for match in gallery.find(torch.tensor([0.0, 1.0]), **wanted)[0].found]
        assert set(names) == {entry.name for entry in gallery.list(**wanted)}
        return names

    assert found() == ["t0", "timeless", "t1", "t2"]
    assert found(camera="2") == ["t1", "t2"]
    assert found(camera=["1", "9"]) == ["t0", "timeless"]
    assert found(camera="3") == []
    assert found(since="2026-11-30T08:00:10Z") == ["t1", "t2"]
    assert found(since="2026-11-30T09:00:10+01:00", camera="1") == []
    assert found(until=datetime(2026, 11, 30, 8, tzinfo=timezone.utc)) == ["t0", "t1", "t2"]
    assert found(until="2026-11-30T07:59:59Z") == []


def test_refusals_are_one_sentence_and_change_nothing(gallery, tmp_path):
    with pytest.raises(ValueError, match=r"people.gallery' must hold a tracklet to be found, got none; add some first"):
        gallery.find(torch.zeros(2))
    add(gallery, metadata=MAKER)
    cases = [
        (lambda: add(gallery), r"names must differ from those in the gallery .*, got 't0'; a prefix makes them differ"),
        (lambda: add(gallery, [[1.0]], names=("n",)), r"must be as wide as those in the .*, 2 numbers, got 1"),
        (
            lambda: add(gallery, metadata=MAKER | {"network": "bb"}, prefix="x"),
            "same network, got m/w/features/bb",
        ),
        (lambda: add(gallery, metadata=MAKER | {"output": "embedding"}, prefix="x"), "same output"),
        (lambda: gallery.find(embeddings([[0.0, 1.0]], metadata=MAKER | {"network": "bb"})), "same network"),
        (lambda: gallery.find(torch.zeros(3)), "2 numbers, got 3"),
        (lambda: gallery.find(torch.tensor([0.0, torch.nan])), "query must be finite"),
        (lambda: gallery.find(torch.zeros(0, 2)), "query must hold at least one tracklet"),
        (lambda: gallery.find(torch.zeros(1, 2, 1)), r"query must be vectors \(D,\) or \(N, D\)"),
        (lambda: gallery.find(torch.zeros(2), top=0), "top must be at least 1, got 0"),
        (lambda: gallery.find(torch.zeros(2), since="yesterday"), "since must be ISO 8601 .* got 'yesterday'"),
        (lambda: gallery.find(torch.zeros(2), until="2026-11-30"), "until must have a time zone"),
        (lambda: add(gallery, prefix="x", start=START), "start and fps must be given together"),
        (lambda: add(gallery, prefix="x", start=START, fps=0), "fps must be a number of frames per second above 0"),
        (lambda: add(gallery, prefix="x", start="8:00", fps=5), "start must be ISO 8601"),
        (lambda: add(gallery, prefix="x", start=START, fps=5, frame_ranges=None), "start needs the first and last"),
        (lambda: add(gallery, [[0, 0]], names=("x",), frame_ranges=torch.tensor([[5, 4]])), "'x' must not end before"),
        (lambda: add(gallery, [[0, 0]], names=("x",), camera="nan"), "stands for a missing value"),
        (lambda: add(gallery, torch.zeros(0, 2), frame_ranges=None), "at least one tracklet to add"),
        (lambda: add(gallery, [[0, 0]], names=("x",), thumbnails={"y": picture((1, 2, 3))}), "named as the tracklets"),
        (lambda: gallery.remove(), "name, person or camera must say what to remove"),
        (lambda: gallery.remove(name=["t0", "t9"]), "has no tracklet of name 't9'; nothing was removed"),
        (
            lambda: gallery.prune("soon"),
            "older_than must be a number and one of s, m, h, d, w",
        ),
        (lambda: gallery.thumbnail("t9"), "has no tracklet 't9'"),
    ]
    for act, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert [entry.name for entry in gallery.list()] == ["t0", "t1", "t2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.gallery"]


def test_a_path_that_is_no_gallery_is_refused_and_left_alone(tmp_path):
    text, database, folder, blank = (tmp_path / name for name in ("text", "database", "folder", "blank"))
    text.write_text("precious" * 100)
    folder.mkdir()
    blank.touch()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE tracklets (id INTEGER)")
    before = text.read_bytes(), database.read_bytes()
    for create in (False, True):
        for path, error, message in (
            (
                text,
                ValueError,
                "must be a file that nl3d gallery add wrote, but cannot be read: file is not a database",
            ),
            (database, ValueError, "must be a file that nl3d gallery add wrote, got another SQLite database"),
            (folder, IsADirectoryError, "must be a file that nl3d gallery add wrote, got a folder"),
        ):
            with pytest.raises(error, match=message):
                Gallery(path, create=create)
    with pytest.raises(FileNotFoundError, match="holds nothing; nl3d gallery add makes it"):
        Gallery(blank)
    with pytest.raises(FileNotFoundError, match="does not exist; nl3d gallery add makes it"):
        Gallery(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="must lie in a folder that exists"):
        Gallery(tmp_path / "no" / "people.gallery", create=True)
    with pytest.raises(ValueError, match="must be a regular file"):
        Gallery("/dev/null", create=True)
    assert (text.read_bytes(), database.read_bytes()) == before
    assert not (tmp_path / "missing").exists()


def test_a_damaged_file_is_named(tmp_path, gallery):
    add(gallery, torch.randn(500, 64), names=[f"n{row}" for row in range(500)])
    gallery.close()
    path = tmp_path / "people.gallery"
    content = bytearray(path.read_bytes())
    content[40_000:] = b"\x5a" * (len(content) - 40_000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"people.gallery' must be a file .* but cannot be read"):
        with Gallery(path) as opened:
            opened.find(torch.zeros(64))


def test_an_empty_gallery_takes_another_network(gallery):
    add(gallery, metadata=MAKER)
    gallery.remove(name=["t0", "t1", "t2"])
    assert len(gallery) == 0
    add(gallery, [[1.0, 2.0, 3.0]], metadata={"network": "bb"})
    assert gallery.metadata == {"network": "bb"}
    assert gallery.find(torch.zeros(3))[0].found[0].distance == pytest.approx(14**0.5)


def test_a_maker_that_was_not_known_is_kept_once_it_is(gallery):
    add(gallery)
    add(gallery, prefix="b", metadata={"network": "aa"})
    with pytest.raises(ValueError, match="same network"):
        add(gallery, prefix="c", metadata={"network": "bb"})


def test_a_calibration_names_the_person_or_says_unknown(gallery, tmp_path):
    calibration = Calibration(
        network="aa", output="features", metric="euclidean", slope=-1.0, intercept=4.0, same_above=0.9,
        different_below=0.1,
    )  # fmt: skip
    add(gallery, people=("ann", None, "bob"), metadata=MAKER)
    query = embeddings([[0.0, 0.9], [1.1, 0.0], [9.0, 9.0]], names=("a", "b", "c"), metadata=MAKER)
    calibration.save(tmp_path / "c.json")
    for given in (calibration, tmp_path / "c.json"):
        answer = gallery.find(query, calibration=given)
        assert [matches.person for matches in answer] == ["ann", "t1", "unknown"]
        assert [matches.found[0].decision for matches in answer] == ["same", "same", "different"]
        assert answer[0].found[0].probability == pytest.approx(1 / (1 + np.exp(-4 + 0.01)))
    assert "query c: unknown" in answer.table()
    assert repr(answer) == "Answer(3 queries, euclidean, 2 known)"
    assert answer.to_dict()["queries"][2]["person"] == "unknown"
    assert gallery.find(query, calibration=calibration, camera="none")[0].person == "unknown"
    with pytest.raises(ValueError, match="calibration must be for the metric 'cosine'"):
        gallery.find(query, calibration=calibration, metric="cosine")
    assert gallery.find(query)[0].person is None  # none comes with this network
    assert "person" not in gallery.find(query).to_dict()["queries"][0]
    with pytest.raises(ValueError, match="calibration must be of the network"):
        gallery.find(query, calibration=Calibration.bundled())


def test_the_calibration_of_the_package_is_used_for_its_network(gallery):
    bundled = Calibration.bundled()
    add(gallery, metadata={"network": bundled.network, "output": bundled.output})
    (matches,) = gallery.find(torch.tensor([0.0, 1.0]), top=1)
    assert (matches.person, matches.found[0].decision) == ("t0", "same")
    other = "cosine" if bundled.metric == "euclidean" else "euclidean"
    assert gallery.find(torch.tensor([0.0, 1.0]), metric=other)[0].person is None


def test_thumbnails_come_from_the_source_and_from_images(tmp_path, gallery):
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 0, 200))):
        for number in range(3):
            write_jpeg(tmp_path / "people" / name / f"{number}.jpg", colour, size=(400, 100))
    embedded = nl3d.embed(tmp_path / "people", TinyNet().eval(), device="cpu", progress=False)
    assert gallery.add(embedded, prefix="d1/") == (2, 2, None)
    image = Image.open(io.BytesIO(gallery.thumbnail("d1/b")))
    assert (image.format, image.size) == ("JPEG", (32, 128))
    assert np.abs(np.asarray(image).astype(int) - (0, 0, 200)).max() < 8
    given = embedded.select(["a"])
    assert gallery.add(given, prefix="d2/", thumbnails={"a": picture((9, 99, 9))}) == (1, 1, None)
    assert Image.open(io.BytesIO(gallery.thumbnail("d2/a"))).size == (8, 16)
    (tmp_path / "people").rename(tmp_path / "elsewhere")
    added = gallery.add(embedded, prefix="d3/")
    assert added[:2] == (2, 0)
    assert added.note.startswith("no thumbnails were added: ")
    assert gallery.thumbnail("d3/a") is None
    assert gallery.add(embedded, prefix="d4/", thumbnails=False) == (2, 0, None)


def test_prune_goes_by_the_last_time_and_else_by_the_addition(gallery, monkeypatch):
    now = datetime.now(timezone.utc)
    add(gallery, start=now - timedelta(days=31), fps=25, prefix="old/", cameras=("1", "2", "2"))
    add(gallery, start=now - timedelta(days=29), fps=25, prefix="new/")
    add(gallery, prefix="timeless/")
    assert gallery.prune("30d", camera="1") == 1
    assert gallery.prune("30d") == 2
    assert gallery.prune(timedelta(days=30)) == 0
    assert len(gallery) == 6
    later = times.time.time() + 40 * 86400
    monkeypatch.setattr(times.time, "time", lambda: later)
    assert gallery.prune(30 * 86400) == 6


def test_lists_exports_and_counts(gallery):
    add(gallery, people=("ann", "bob", "ann"), cameras=("1", "2", "2"), start=START, fps=25, metadata=MAKER)
    add(gallery, [[7.0, 7.0]], names=("late",), frame_ranges=None)
    assert [entry.name for entry in gallery.list(person="ann")] == ["t0", "t2"]
    assert [entry.name for entry in gallery.list(name="late")] == ["late"]
    exported = gallery.embeddings(person="ann")
    assert (exported.names, exported.people, exported.cameras) == (("t0", "t2"), ("ann", "ann"), ("1", "2"))
    assert torch.equal(exported.embeddings, torch.tensor([[0.0, 1.0], [5.0, 5.0]]))
    assert exported.frame_ranges.tolist() == [[1, 10], [1, 12]]
    assert gallery.embeddings().frame_ranges is None
    assert nl3d.rank(embeddings([[5.0, 4.0]], metadata=MAKER), gallery.embeddings(), top=1)[0].found[0].name == "t2"
    with pytest.raises(ValueError, match="has no such tracklet"):
        gallery.embeddings(person="zoe")
    stats = gallery.stats()
    assert {key: stats[key] for key in ("tracklets", "people", "cameras", "thumbnails", "with_times", "width")} == {
        "tracklets": 4, "people": 2, "cameras": 2, "thumbnails": 0, "with_times": 3, "width": 2,
    }  # fmt: skip
    assert (stats["first_seen"], stats["made_by"], stats["rewrite_pending"]) == (START, "m/w/features/aa", False)
    assert stats["bytes"] == gallery.path.stat().st_size
    assert repr(gallery).endswith("people.gallery', 4 tracklets)")


def test_threads_share_one_gallery(gallery):
    add(gallery)
    errors = []

    def work(number):
        try:
            for round_ in range(5):
                add(gallery, [[float(number), float(round_)]], names=(f"{number}-{round_}",))
                assert gallery.find(torch.tensor([float(number), float(round_)]), top=1)[0].found[0].distance == 0
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(gallery) == 23
