import subprocess
import sys

import pytest

import nl3d.data


def test_public_names_all_resolve():
    assert set(nl3d.data.__all__) == set(dir(nl3d.data))
    for name in nl3d.data.__all__:
        assert getattr(nl3d.data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'read_cuhk'"):
        _ = nl3d.data.read_cuhk


def test_a_tracklet_costs_no_torchvision_nor_scipy():
    heavy = "{'torchvision', 'scipy', 'h5py'}"
    code = f"import sys; from nl3d.data import Tracklet, read_mars; print({heavy} & {{*sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "set()"
