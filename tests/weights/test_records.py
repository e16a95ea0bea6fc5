import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import nl3d
from nl3d.convert.families.table import families
from nl3d.weights.records import FACTORIES, WEIGHTS, find_spec, weights_table

DOCS = Path(nl3d.__file__).parents[1] / "docs"


def test_every_listed_model_is_a_public_factory():
    assert nl3d.list_models() == list(FACTORIES)
    assert all(callable(getattr(nl3d, name)) for name in nl3d.list_models())
    assert nl3d.list_models("*18*") == ["resnet3d18", "resnet3d18_nl"]


@pytest.mark.parametrize("spec", WEIGHTS, ids=lambda spec: f"{spec.name}-{spec.repo_id}")
def test_records_are_whole(spec):
    assert spec.models
    assert spec.package or set(spec.models) <= set(FACTORIES)
    if spec.bundled or spec.package:
        assert spec.repo_id is spec.url is None
    elif spec.repo_id is None:
        assert spec.url.startswith("https://")
        assert spec.url.endswith(spec.filename) or "//drive.google.com/" in spec.url
    else:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", spec.repo_id)
        assert re.fullmatch("[0-9a-f]{7,40}", spec.revision)
    assert spec.sha256 is None or re.fullmatch("[0-9a-f]{64}", spec.sha256)
    assert spec.is_foreign or spec.package or spec.filename.endswith(".safetensors")
    assert spec.family in families()
    assert spec.layout in ("any", "i3d", "full", "separable")
    assert all(size > 0 for size in (*spec.clip_size, spec.frame_step, *spec.std))
    assert all((spec.license, spec.origin, spec.accuracy, spec.layout_proven, spec.download_exercised))
    with pytest.raises(FrozenInstanceError):
        spec.revision = "main"


def test_only_pinned_files_are_fetched(hub):
    for spec in WEIGHTS:
        assert spec.is_fetched == bool(spec.repo_id and len(spec.revision) == 40 and spec.sha256)
        if not spec.bundled and not spec.package and not spec.is_fetched:
            assert "by hand" in weights_table()
            with pytest.raises(ValueError, match=rf"{spec.name}.*no hash of .* by hand and pass the file's path"):
                getattr(nl3d, spec.models[0])(spec.name)
    assert hub.log == []


def test_names_are_unique_within_a_model():
    for model in FACTORIES:
        names = [spec.name for spec in nl3d.list_weights(model)]
        assert len(set(names)) == len(names)
        assert "imagenet" in names


def test_list_weights():
    assert nl3d.list_weights() == list(WEIGHTS)
    assert [spec.repo_id for spec in nl3d.list_weights("resnet50_ta")] == ["timm/resnet50.tv_in1k"]
    with pytest.raises(ValueError, match="unknown model 'resnet3d51'; choose from: resnet3d18, resnet3d18_nl"):
        nl3d.list_weights("resnet3d51")


def test_a_record_says_where_its_file_lies():
    spec = find_spec("resnet3d50", "imagenet")
    with pytest.raises(ValueError, match="repo_id and revision, url, package or bundled must say where"):
        replace(spec, repo_id=None)
    replace(spec, repo_id=None, url="https://example.org/x.pth", sha256="0" * 64)


def test_unknown_weights_list_the_choices():
    with pytest.raises(ValueError, match="unknown weights 'msmt' for resnet3d34; choose from: imagenet, the path of a"):
        find_spec("resnet3d34", "msmt")


def test_the_documentation_holds_the_table():
    assert weights_table() in (DOCS / "zoo.md").read_text()
    brief = weights_table(["weights", "networks", "licence", "origin and published accuracy"])
    assert brief in (DOCS.parent / "README.md").read_text()
