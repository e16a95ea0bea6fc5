"""The house's own rules: imports run one way, stay light and change nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nl3d

ROOT = Path(nl3d.__file__).parent
# what each package may import of the others; a row is above all that it names
MAY_IMPORT = {
    "files": set(),
    "unpickle": set(),
    "layers": set(),
    "losses": set(),
    "metrics": set(),
    "viz": set(),
    "data": {"files"},
    "walkers": {"files", "data"},
    "inflate": {"layers"},
    "hub": {"files", "unpickle", "layers"},
    "models": {"layers", "inflate", "hub", "data"},
    "optimize": {"layers", "inflate", "models"},
    "convert": {"unpickle", "layers", "inflate", "hub", "models"},
    "weights": {"unpickle", "layers", "inflate", "hub", "models", "convert", "data"},
    "embedding": {"files", "unpickle", "layers", "models", "weights", "data"},
    "retrieval": {"files", "layers", "models", "weights", "data", "walkers", "metrics", "viz", "embedding"},
    "people": {"files", "data", "metrics", "viz", "embedding", "retrieval"},
    "gallery": {"files", "data", "metrics", "viz", "embedding", "retrieval"},
    "live": {"files", "data", "metrics", "embedding", "retrieval", "gallery"},
    "training": {"files", "layers", "losses", "hub", "models", "convert", "weights", "data", "walkers", "metrics",
                 "inflate", "embedding"},
    "deploy": {"files", "layers", "hub", "models", "data", "weights", "embedding", "training"},
    "cli": {"files", "weights", "data", "walkers", "metrics", "viz", "embedding", "retrieval", "training", "models",
            "deploy", "people", "gallery", "live"},
}  # fmt: skip


def imported_packages(path):
    """Top packages of nl3d that a file imports at any depth, those for type checking included."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            if module.startswith("nl3d.") and module not in ("nl3d._version", "nl3d._lazy"):
                yield module.split(".")[1]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package):
    files = [*ROOT.joinpath(package).rglob("*.py"), *ROOT.glob(f"{package}.py")]
    assert files
    for path in files:
        foreign = {other for other in imported_packages(path) if other != package}
        assert foreign <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {foreign - MAY_IMPORT[package]}"


def test_every_package_has_a_row():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(MAY_IMPORT)


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_block_costs_no_timm():
    code = "import sys; from nl3d import NonLocalBlock3d, SeparableConv3d, ReIDHead; print('timm' in sys.modules)"
    assert run(code) == "False"


def test_import_is_light_and_silent():
    code = "import time, torch; start = time.perf_counter(); import nl3d; print(time.perf_counter() - start)"
    seconds = min(float(run(code)) for _ in range(3))
    assert seconds < 0.3


def test_public_names_all_resolve():
    assert set(nl3d.__all__) <= set(dir(nl3d))
    for name in nl3d.__all__:
        assert getattr(nl3d, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'resnet3d51'"):
        _ = nl3d.resnet3d51


def test_changelog_s_top_entry_is_this_version():
    changelog = ROOT.parent.joinpath("CHANGELOG.md").read_text()
    top = next(line for line in changelog.splitlines() if line.startswith("## "))
    assert top.split()[1] == nl3d.__version__


def test_package_metadata_names_this_version():
    pyproject = ROOT.parent.joinpath("pyproject.toml").read_text()
    assert f'version = "{nl3d.__version__}"' in pyproject


DISTRIBUTIONS = {"PIL": "pillow", "av": "av", "faiss": "faiss-cpu", "yaml": "pyyaml"}  # where the names differ


def test_every_import_is_declared():
    """Each module of others that a file imports belongs to a dependency or an extra."""
    declared = set(re.findall(r'"([\w-]+)(?:\[\w+\])?>=', ROOT.parent.joinpath("pyproject.toml").read_text()))
    for path in [*ROOT.rglob("*.py"), *ROOT.parent.joinpath("weights_tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {module.split(".")[0] for module in modules} - sys.stdlib_module_names:
                if top in ("nl3d", "weights_tools", "typing_extensions"):  # the last for type checking only
                    continue
                assert DISTRIBUTIONS.get(top, top) in declared, f"{path} imports {top}, which pyproject.toml lacks"


def test_no_module_imports_the_package_itself():
    """``import nl3d`` and ``from nl3d import name`` run upward: they load whatever room holds the name."""
    for path in ROOT.rglob("*.py"):
        if path.parent == ROOT and path.name.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            itself = "nl3d" in imported or (
                isinstance(node, ast.ImportFrom) and node.module == "nl3d" and not node.level
            )
            assert not itself or path.is_relative_to(ROOT / "cli"), f"{path.relative_to(ROOT)} imports nl3d itself"


def test_docs_use_public_names_alone():
    for page in [*ROOT.parent.joinpath("docs").glob("*.md"), ROOT.parent / "README.md"]:
        for module, names in re.findall(r"^from (nl3d[\w.]*) import ([\w, ]+)", page.read_text(), re.MULTILINE):
            assert module == "nl3d", f"{page.name} imports from {module}"
            assert set(names.split(", ")) <= set(nl3d.__all__), page.name
