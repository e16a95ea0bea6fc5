"""Print pip constraints: ``lowest`` pins every dependency and extra to its lower bound, ``newest`` prints none.

python .ci/bounds.py lowest > constraints.txt && python -m pip install -e '.[dev]' -c constraints.txt
"""

import re
import sys
from pathlib import Path

project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
requirements = re.findall(r'"([\w-]+)>=([\d.]+)"', project[project.index("dependencies = [") :])
if sys.argv[1:] == ["lowest"]:
    print("\n".join(f"{name}=={version}.*" for name, version in requirements if name not in ("mypy", "ruff")))
elif sys.argv[1:] != ["newest"]:
    sys.exit(f"usage: python {sys.argv[0]} lowest|newest")
