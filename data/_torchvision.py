"""Make `import torchvision` work with a CPU build of torch.

PyPI's torchvision is built for CUDA. With a CPU build of torch its compiled part cannot load, and
the import fails where it registers fakes for two missing operators. Declaring the schemas of these
operators first is enough for its Python parts. If the compiled part loads, nothing is done. Import
this module before torchvision, transformers or lucent.
"""

import importlib.util
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _compiled_part_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # torchvision is not installed
    libraries = Path(spec.submodule_search_locations[0]).glob("_C*")
    for library in (path for path in libraries if path.suffix in (".so", ".pyd")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")


if not _compiled_part_loads():
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _schema in SCHEMAS.values():
        _library.define(_schema)  # type: ignore[no-untyped-call]
