"""Which dimension of a module's output is the batch, and which holds the channels.

A layout is a string with one letter per dimension: `N` images, `C` channels, `H` rows and `W`
columns of a map, `L` positions. All code outside `recording` and `splicing` sees the standard
layouts NCHW, NLC and NC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import final

from torch import Tensor, nn

from tendril.data.errors import SubjectError

STANDARD = {4: "NCHW", 3: "NLC", 2: "NC"}  # by the number of dimensions
DECLARED = "tendril_layout"  # attribute of a module whose layout the user declared
TOKENS = "tendril_tokens"  # attribute of a network: the Tokens of its sequences
CLASS = "class"
# Names of parameters that hold learned tokens, in the order in which the tokens come.
NAMES = {
    CLASS: ("cls_token", "class_token", "class_embedding", "cls", "cls_embed", "cls_embedding"),
    "distillation": ("distillation_token", "dist_token"),
    "register": ("register_tokens", "register_token", "registers", "reg_token", "reg_tokens"),
}
ELSE = "other"  # a prefix token whose kind is not known

CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.PixelShuffle,
    nn.Upsample,
)
SEQUENCE_FIRST_CHANNELS = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.Upsample,
)
SEQUENCE_LAST_CHANNELS = (nn.Linear, nn.MultiheadAttention, nn.RNNBase)
NORMS = (nn.LayerNorm, nn.RMSNorm)
EXTRA_TOKENS = 5  # at most: a class token and four registers
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "embed_dim")


@final
@dataclass(frozen=True)
class Tokens:
    """What the tokens of a vision transformer are, and which of them are read.

    A sequence begins with the `prefix` tokens ("class", "distillation", "register", one word
    each), and goes on with one token a patch, row by row. `patch` is the (height, width) of a
    patch in pixels, or None if it is not known. `keep` is "patches", "class" or "all".
    """

    prefix: tuple[str, ...] = ()
    patch: tuple[int, int] | None = None
    keep: str = "all"

    def split(self, length: int, image: Sequence[int]) -> tuple[int, tuple[int, int]] | None:
        """The number of prefix tokens in a sequence, and the (rows, columns) of its patches, for
        an image of (height, width) pixels; None if the length does not fit.

        Sequences without the prefix count too (the output of a patch embedding), and so do those
        of networks that merge 2 x 2 patches into one, once or several times.
        """
        skips = dict.fromkeys((len(self.prefix), 0))
        if len(image) != 2:
            return None
        if self.patch is None:
            for skip in skips if image[0] == image[1] else ():
                side = isqrt(max(length - skip, 0))
                if side and skip + side**2 == length:
                    return skip, (side, side)
            return None
        grid = (image[0] // self.patch[0], image[1] // self.patch[1])
        while True:
            for skip in skips:
                if length == skip + prod(grid):
                    return skip, grid
            if max(grid) <= 1:
                return None
            grid = (-(-grid[0] // 2), -(-grid[1] // 2))

    def kept(self, name: str, acts_BLC: Tensor, image: Sequence[int]) -> Tensor:
        """A view of the tokens that are read: patches as a map [B, C, H, W], the class token as
        [B, C], or all tokens [B, L, C]. Raises SubjectError if they cannot be told apart."""
        if self.keep == "all":
            return acts_BLC
        length = acts_BLC.shape[1]
        found = self.split(length, image)
        if self.keep == CLASS:
            if CLASS not in self.prefix or not (found and found[0]):
                raise SubjectError(no_class_token(name, length))
            return acts_BLC[:, self.prefix.index(CLASS)]
        if found is None:
            raise SubjectError(self.unknown(name, length, image))
        skip, (rows, columns) = found
        patches_BCL = acts_BLC[:, skip:].transpose(1, 2)
        return patches_BCL.view(*patches_BCL.shape[:2], rows, columns)

    def put(self, name: str, acts_BLC: Tensor, kept: Tensor, image: Sequence[int]) -> Tensor:
        """A copy of `acts_BLC` in which the tokens that are read are replaced by `kept`."""
        filled_BLC = acts_BLC.clone()
        self.kept(name, filled_BLC, image).copy_(kept)
        return filled_BLC

    def unknown(self, name: str, length: int, image: Sequence[int]) -> str:
        """Why the patches of a site are not known, and what to do."""
        cells = "a square of them"
        if self.patch and image:
            rows, columns = (extent // p for extent, p in zip(image, self.patch, strict=True))
            cells = f"{rows} x {columns} patches of {self.patch[0]} pixels"
        before = f"{', '.join(self.prefix)} before them" if self.prefix else "nothing before them"
        return (
            f"the tokens at {name!r} must be {cells}, with {before}; got {length} tokens. Declare "
            'them with subject_from_module(..., prefix_tokens=["class"], patch_size=16), or pass '
            "--tokens all."
        )


def no_class_token(name: str, length: int) -> str:
    """Why the class token of a site cannot be read, and what to do."""
    return (
        f"--tokens class needs a class token; none is known among the {length} tokens at {name!r}. "
        'Declare it with subject_from_module(..., prefix_tokens=["class"]), or pass --tokens '
        "patches or all."
    )


def find_tokens(module: nn.Module) -> Tokens:
    """The tokens of a network: those declared, or those found.

    Prefix tokens are parameters with the names that transformers, timm and torchvision give them
    (NAMES); timm's `num_prefix_tokens` settles their number. The patch is the kernel of the
    convolution over RGB whose stride is as large as its kernel. Networks with two such
    convolutions that differ have no known patch.
    """
    declared = module.__dict__.get(TOKENS)
    if isinstance(declared, Tokens):
        return declared
    prefix: list[str] = []
    for kind, names in NAMES.items():
        counts = {
            parameter.numel() // parameter.shape[-1]
            for path, parameter in module.named_parameters()
            if path.rpartition(".")[2] in names and parameter.ndim and parameter.numel()
        }
        prefix += [kind] * (counts.pop() if len(counts) == 1 else 0)
    told = {n for m in module.modules() if isinstance(n := _prefix_count(m), int)}
    if len(told) == 1:
        count = told.pop()
        prefix = (prefix + [ELSE] * count)[:count]
    patches = {
        (int(m.kernel_size[0]), int(m.kernel_size[1]))
        for m in module.modules()
        if isinstance(m, nn.Conv2d)
        and m.in_channels == 3
        and m.kernel_size == m.stride
        and min(m.kernel_size) > 1
    }
    return Tokens(tuple(prefix), patches.pop() if len(patches) == 1 else None)


def _prefix_count(module: nn.Module) -> object:
    """timm's number of tokens before the patches."""
    return getattr(module, "num_prefix_tokens", None)


def tokens_of(root: nn.Module) -> Tokens:
    """The tokens that a network is read with; by default all."""
    found = root.__dict__.get(TOKENS)
    return found if isinstance(found, Tokens) else Tokens()


def declare_layout(module: nn.Module, name: str, layout: str) -> None:
    """Set the layout of a module's output. Raises SubjectError for an unknown layout."""
    if sorted(layout) not in [sorted(letters) for letters in STANDARD.values()]:
        raise SubjectError(
            f"the layout of {name!r} must have each letter of NCHW, NLC or NC once, such as NHWC "
            f"or LNC; got {layout!r}."
        )
    module.__dict__[DECLARED] = layout


def layout_of(
    name: str, module: nn.Module, root: nn.Module, shape: Sequence[int], image: Sequence[int] = ()
) -> str:
    """The layout of an output of `shape` of the module `name` of a network `root`, for images of
    (height, width) pixels.

    A declared layout comes first. Then the module decides: convolutions and pooling are channels
    first, linear layers and layer norms channels last. Otherwise, square images give square
    maps, so that the channels are the dimension that differs. If no dimension does, the
    layers inside the module decide, and then the network: without any layer norm it is taken to
    be channels first. In a sequence the channels are the dimension that has the width of a layer
    (see `_of_sequence`). Raises SubjectError if the layout cannot be told, or differs from the
    declared one in the number of dimensions.
    """
    declared = module.__dict__.get(DECLARED, "")
    if declared:
        if len(declared) != len(shape):
            raise SubjectError(
                f"the layout of {name!r} is declared as {declared}, but its output has shape "
                f"{list(shape)}. Declare one letter per dimension."
            )
        return str(declared)
    if len(shape) == 3:
        return _of_sequence(name, module, root, shape, image)
    if len(shape) != 4:
        return STANDARD.get(len(shape), "")
    square = bool(image) and image[0] == image[1]
    return (
        _of_kind(module, shape) or _of_shape(shape, square) or _of_parts(name, module, root, shape)
    )


def standard(acts: Tensor, layout: str) -> Tensor:
    """A view in the standard layout."""
    wanted = STANDARD.get(len(layout), layout)
    return acts if layout == wanted else acts.permute([layout.index(d) for d in wanted])


def restored(acts: Tensor, layout: str) -> Tensor:
    """Inverse of `standard`."""
    wanted = STANDARD.get(len(layout), layout)
    return acts if layout == wanted else acts.permute([wanted.index(d) for d in layout])


def is_image(x: object) -> bool:
    """True if `x` is the input of a vision network; tokens are integers."""
    return isinstance(x, Tensor) and x.is_floating_point()


def image_size(x: object) -> tuple[int, ...]:
    """The (height, width) of a batch of images; empty for anything else."""
    return tuple(x.shape[2:]) if isinstance(x, Tensor) and x.ndim == 4 else ()


def check_batch(name: str, module: nn.Module, one: Sequence[int], two: Sequence[int]) -> None:
    """Raise SubjectError unless one dimension is the batch: 1 for one image and 2 for two.

    `one` and `two` are the shapes of the module's output for one and for two images. The batch
    must be the first dimension, or the `N` of the declared layout.
    """
    declared = str(module.__dict__.get(DECLARED, ""))
    at = declared.index("N") if declared else 0
    expected = [2 if d == at else size for d, size in enumerate(one)]
    if at < len(one) and one[at] == 1 and list(two) == expected:
        return
    grown = [d for d in range(len(one)) if len(one) == len(two) and one[d] != two[d]]
    if not grown:
        found = "no dimension holds the images of the batch"
    elif grown == [at] or len(grown) > 1:
        found = f"dimension {grown[0]} holds several windows or positions per image"
    else:
        found = f"dimension {grown[0]} holds the images of the batch"
    advice = "Choose another site, such as the block that contains it."
    if len(one) in STANDARD and len(grown) == 1 and grown[0] != at and one[grown[0]] == 1:
        rest = [d for d in STANDARD[len(one)] if d != "N"]
        layout = "".join(rest[: grown[0]]) + "N" + "".join(rest[grown[0] :])
        advice = (
            f"Declare it with subject_from_module(..., layout={{{name!r}: {layout!r}}}), or choose "
            "another site."
        )
    raise SubjectError(
        f"dimension {at} of the activations at {name!r} must have one entry per image; their shape "
        f"is {list(one)} for one image and {list(two)} for two, so {found}. {advice}"
    )


def _of_kind(module: nn.Module, shape: Sequence[int]) -> str:
    """The layout that the module's own type implies; empty if none."""
    if isinstance(module, CHANNELS_FIRST):
        return "NCHW"
    if isinstance(module, nn.Linear):
        return "NHWC"
    if type(module).__name__ == "Permute":  # torchvision's
        return {(0, 2, 3, 1): "NHWC", (0, 3, 1, 2): "NCHW"}.get(
            tuple(getattr(module, "dims", ())), ""
        )
    if isinstance(module, NORMS) and len(module.normalized_shape) == 1:
        if type(module) in NORMS:
            return "NHWC"
        # Subclasses may permute inside (LayerNorm2d of torchvision and timm).
        width = module.normalized_shape[0]
        if (shape[1] == width) != (shape[3] == width):
            return "NCHW" if shape[1] == width else "NHWC"
    return ""


def _of_shape(shape: Sequence[int], square: bool) -> str:
    """The layout of a square map; empty if the map is not square or as wide as it is deep."""
    _, a, b, c = shape
    if a == b == c == 1 or (square and a != b == c):
        return "NCHW"
    return "NHWC" if square and a == b != c else ""


def _of_parts(name: str, module: nn.Module, root: nn.Module, shape: Sequence[int]) -> str:
    kinds = {_of_kind(m, shape) for m in module.modules() if not isinstance(m, nn.Linear)} - {""}
    if len(kinds) == 1:
        return kinds.pop()
    if not kinds and not any(isinstance(m, NORMS) for m in root.modules()):
        return "NCHW"
    raise _untold(name, shape, "NCHW", "NHWC")


def _untold(name: str, shape: Sequence[int], first: str, last: str) -> SubjectError:
    return SubjectError(
        f"which dimension of the activations at {name!r} holds the channels cannot be told from "
        f"their shape {list(shape)}. Declare it with subject_from_module(..., "
        f"layout={{{name!r}: {first!r}}}) or {last!r}, or choose another site."
    )


def _of_sequence(
    name: str, module: nn.Module, root: nn.Module, shape: Sequence[int], image: Sequence[int]
) -> str:
    """The layout of an output [N, a, b]. Raises SubjectError if it cannot be told.

    The module's own type comes first. Then, if the size of patches is known, one dimension that
    alone has as many entries as there are tokens, beside one as wide as a layer inside the module.
    Then the channels are the one of the two dimensions that is
    as wide as a norm inside the module, as any layer inside it, as a norm of the network, or, if
    images are square, as any layer of the network. In the last case the other dimension must be
    the number of cells of a square map, with or without extra tokens; without norms, the
    channels must be no such number themselves.
    """
    kind = _of_sequence_kind(module)
    if kind:
        return kind
    tokens = find_tokens(root)
    if tokens.patch and image:
        first, second = (tokens.split(count, image) is not None for count in shape[1:])
        if first != second and shape[2 if first else 1] in _widths(module):
            return "NLC" if first else "NCL"
    square = bool(image) and image[0] == image[1]
    for widths in (_widths(module, NORMS), _widths(module), _widths(root, NORMS)):
        if (shape[1] in widths) != (shape[2] in widths):
            return "NCL" if shape[1] in widths else "NLC"
    widths, normed = _widths(root), bool(_widths(root, NORMS))
    if square and (shape[1] in widths) != (shape[2] in widths):
        channels, positions = shape[1:] if shape[1] in widths else (shape[2], shape[1])
        extra, is_cells = positions - isqrt(positions) ** 2, channels == isqrt(channels) ** 2
        if extra <= EXTRA_TOKENS and (normed or not is_cells):
            return "NCL" if shape[1] in widths else "NLC"
    raise _untold(name, shape, "NLC", "NCL")


def _of_sequence_kind(module: nn.Module) -> str:
    if isinstance(module, SEQUENCE_FIRST_CHANNELS):
        return "NCL"
    if isinstance(module, SEQUENCE_LAST_CHANNELS) or type(module) in NORMS:
        return "NLC"
    return ""


def _widths(module: nn.Module, kinds: tuple[type[nn.Module], ...] = ()) -> set[int]:
    """The numbers of channels that the layers of a network give; of some kinds of layers only."""
    found: set[int] = set()
    for part in module.modules():
        if kinds and not isinstance(part, kinds):
            continue
        shape = getattr(part, "normalized_shape", ())
        found |= {shape[0]} if isinstance(shape, tuple) and len(shape) == 1 else set()
        found |= {w for w in (getattr(part, n, 0) for n in WIDTHS) if isinstance(w, int) and w}
    return found
