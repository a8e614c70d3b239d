import subprocess
import sys


def test_torchvision_imports_beside_any_build_of_torch() -> None:
    code = (
        "import data._torchvision, torchvision.models, torchvision.transforms.v2, torch; "
        "torchvision.models.resnet18()(torch.zeros(2, 3, 64, 64))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
