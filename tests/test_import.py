"""What is light stays light: listing and help load no deep-learning library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "matplotlib", "numpy", "PIL", "fvcore")


@pytest.mark.parametrize(
    "code",
    [
        "import edgeseg",
        "import edgeseg; edgeseg.list_models('fpn_*'); edgeseg.model_info('fpn_aspp_resnet50_edgeailite')",
        "from edgeseg.cli import main; main(['list'])",
        "from edgeseg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from edgeseg.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_light(code: str) -> None:
    check = f"{code}\nimport sys; print('loaded:', [m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")


def test_zoo_networks_need_no_timm() -> None:
    code = (
        "import sys, edgeseg; edgeseg.create_model('fpn_aspp_regnetx400mf_edgeailite'); "
        "print('timm' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_public_names_exist() -> None:
    import edgeseg

    assert all(getattr(edgeseg, name) is not None for name in edgeseg.__all__)
    assert set(edgeseg.__all__) <= set(dir(edgeseg))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = edgeseg.no_such_name
