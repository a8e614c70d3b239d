import subprocess
import sys


def test_torchvision_imports_beside_any_build_of_torch_without_a_warning() -> None:
    code = (
        "import tendril.data._torchvision, torchvision.models, torchvision.transforms.v2, torch\n"
        "from lucent.modelzoo.inceptionv1.InceptionV1 import InceptionV1\n"
        "torchvision.models.resnet18()(torch.zeros(2, 3, 64, 64))\n"
        "torchvision.transforms.v2.Resize(8)(torch.rand(3, 16, 16))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
