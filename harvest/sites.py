"""Which sites of a vision network a harvest records."""

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tendril.data.errors import ConfigError
from tendril.models.subjects.load import PLANTED
from tendril.models.subjects.subject import Subject

from .config import HarvestConfig

DEFAULT_SITES = dict.fromkeys(("inceptionv1", "handmade", *PLANTED), ("mixed3b",))
SUGGESTED = 4


def split_names(sites: tuple[str, ...]) -> tuple[str, ...]:
    """Site names, of which several may be joined by commas."""
    return tuple(site for group in sites for site in group.split(",") if site)


def chosen_sites(config: HarvestConfig, subject: Subject) -> tuple[str, ...]:
    """The sites that a config names, or the default of a network that comes with Tendril.

    Raises ConfigError with a few suggestions where there are neither.
    """
    sites = split_names(config.sites or DEFAULT_SITES.get(config.subject, ()))
    if sites:
        return sites
    found = suggested_sites(subject)
    raise ConfigError(
        f"--sites must name at least one of the {len(subject.sites)} sites of {subject.name}; got "
        f"none. {'Its last feature maps' if found else 'Its last modules'} are "
        f"{', '.join(found or list(subject.sites)[-SUGGESTED:])}: add e.g. --sites "
        f"{(found or list(subject.sites))[-1]}."
    )


def suggested_sites(subject: Subject) -> list[str]:
    """The network's last few feature maps, in the order in which they are computed.

    One forward pass on a grey image finds the sites that are computed once and give more than one
    vector an image: [B, C, H, W] or [B, T, D]. Of a transformer some of its blocks are listed. Of
    other networks' sites with outputs of one shape the outermost module is, and of several such
    modules the last. Empty if the network fails on the image.
    """
    sites = {names[0]: site for site, names in subject.sites.items() if len(names) == 1}
    calls: Counter[str] = Counter()
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            calls[name] += 1
            if isinstance(output, tuple) and output:
                output = output[0]
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    modules = subject.module.named_modules(remove_duplicate=False)
    handles = [m.register_forward_hook(record(name)) for name, m in modules if name in sites]
    size = subject.input_size
    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            subject.module(subject.preprocess(torch.full((1, 3, size, size), 0.5, device=device)))
    except Exception:  # only a hint is lost: the harvest itself reports what fails
        return []
    finally:
        for handle in handles:
            handle.remove()
    blocks = [sites[n] for n in _blocks(subject.module, shapes) if calls[n] == 1]
    if blocks:
        places = range(1, SUGGESTED + 1)
        return list(dict.fromkeys(blocks[-(-len(blocks) * k // SUGGESTED) - 1] for k in places))
    outermost: dict[tuple[int, ...], str] = {}
    for name, shape in shapes.items():
        positions = {3: shape[1:], 2: shape[:1]}.get(len(shape), (1,))
        if calls[name] > 1 or all(extent == 1 for extent in positions):
            continue
        known = outermost.get(shape)
        if known is None or name.count(".") <= known.count("."):
            outermost[shape] = name
    found = [sites[name] for name in shapes if name in outermost.values()]
    return found[-SUGGESTED:]


def _blocks(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The blocks of a transformer: alike modules in one list that give sequences of one shape.
    Empty for other networks."""
    found: list[str] = []
    for path, part in network.named_modules():
        if not isinstance(part, nn.ModuleList | nn.Sequential):
            continue
        names = [f"{path}.{name}".removeprefix(".") for name, _ in part.named_children()]
        given = {shapes.get(name, ()) for name in names}
        kinds = {type(child) for child in part.children()}
        if len(names) > 1 and len(kinds) == len(given) == 1 and len(given.pop()) == 2:
            found = max(found, names, key=len)
    return found
