"""Steer a network: set, add to, scale or ablate latents of a dictionary while it runs.

At each vector x of the site, z = encode(x) are the latents and z' the edited ones. The vector is
replaced by

    x' = x + (x_hat(z') - x_hat(z)) = x + sum_i (z'_i - z_i) d_i

where d_i is row i of W_dec, in the units of x. What the dictionary does not explain, x - x_hat(z),
stays as it is. Of latent i, z'_i is

    set      s                      (clamping)
    ablate   0
    scale    s z_i
    add      s_i z_i + s            (s_i = 1 if the latent is not scaled as well)

To add s to a latent is to steer by its direction, x' = x + s d_i, whatever z_i is. Edited latents
are not clipped at zero, and other latents keep their values: z' is not encoded again.

Source: Templeton et al., Scaling monosemanticity (Anthropic, 2024), who clamp latents and keep the
error; Turner et al., Activation addition (2308.10248), for added directions.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral, Real
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.home import find_run
from tendril.data.store.spec import full_site

from ..dictionaries.checkpoint import load_dictionary, read_config
from ..dictionaries.sae import Dictionary
from ..subjects.subject import Sited, site_modules
from .hooks import as_grid, called_often, never_called, recording
from .places import Numbers, Places, places_of
from .splice import BLOCK, kept_of, put_kept, replacing, to_parts

Strengths = Mapping[int, int | float | Tensor]
INPUTS = ("input_ids", "inputs_embeds", "pixel_values")  # keyword arguments of transformers


def edit(
    model: Any,
    site: str,
    dictionary: Dictionary | str | Path,
    *,
    set: Strengths | None = None,
    add: Strengths | None = None,
    scale: Strengths | None = None,
    ablate: Sequence[int] = (),
    positions: Numbers | tuple[Numbers, Numbers] | None = None,
    mask: Tensor | None = None,
    home: str | None = None,
) -> AbstractContextManager[nn.Module]:
    """Context manager in which latents are edited (see the module) whenever the network runs.

        with tendril.edit(subject, "resid_post.2", "latest", add={17: 4.0}) as model:
            model.generate(tokens, max_new_tokens=50)

    `model` is a subject, or a torch module; `site` one of its sites, or the name of a module (`:in`
    for its input). `dictionary` is a run, or a dictionary that takes the site's vectors as they
    are. `set`, `add` and `scale` map latents to strengths in the units of z: numbers, or tensors of
    no dimension or of one entry an input [B], through which gradients flow. `ablate` lists latents.

    `positions` chooses where vectors are edited: for a sequence a slice or numbers, which count
    from the beginning of the text also where a key-value cache holds it; for a map a pair of them,
    (rows, columns). `mask` is True where vectors are edited: [T] or [B, T], where positions beyond
    its end count as True, or [H, W] or [B, H, W]. The default of both is everywhere.

    Without anything to change (add 0, scale 1) no hook is placed, and the network is the plain
    one bit for bit; so are vectors whose latents keep their values. Results have the dtype of x.
    Edits can be nested; at one site the inner one sees what the outer one made. Calls must go
    through `model` itself. Hooks are removed on exit, also after an exception. Not thread-safe.

    Raises ConfigError for latents, strengths or places that do not exist, a site that is not the
    run's, and dictionaries of several sites or of orbits; UnknownSiteError; and SubjectError where
    a site is not called exactly once in a pass.
    """
    names = _modules(model, site)
    module: nn.Module = model if isinstance(model, nn.Module) else model.module
    if not isinstance(dictionary, Dictionary):
        dictionary = _loaded(dictionary, model, site, home)
    if len(dictionary.row_shape) > 1:
        raise ConfigError(
            f"edit needs a dictionary of single vectors; this one takes orbits of "
            f"{dictionary.row_shape[0]} vectors at once. Choose a dictionary of one site."
        )
    changes = Changes(dictionary, set or {}, add or {}, scale or {}, ablate)
    chosen = places_of(positions, mask)
    if not changes.latents:
        return nullcontext(module)
    return _editing(module, names, changes, chosen)


@contextmanager
def _editing(
    module: nn.Module, names: tuple[str, ...], changes: "Changes", chosen: Places
) -> Iterator[nn.Module]:
    """Place the hooks, and remove them at the end.

    A site of one module is edited as it is computed. Branches that are concatenated are first
    read, in a pass of their own, because a latent needs all of them.
    """
    several = len(names) > 1
    seen: Any = None  # the network's input in this pass
    offset, reading, calls = 0, False, dict.fromkeys(names, -1)  # -1: outside a pass
    parts: dict[str, Tensor] = {}

    def new(name: str, original: Tensor) -> Tensor | None:
        if reading:
            return None
        if calls[name] < 0:
            raise SubjectError(
                f"an edited network must be called itself; its part {name!r} was called outside a "
                "pass. Call the network that `edit` yields, model(...) or model.generate(...)."
            )
        calls[name] += 1
        if calls[name] > 1:
            raise SubjectError(called_often(name, "twice or more"))
        if several:
            return put_kept(module, name, original, parts[name], seen)
        kept = {name: kept_of(module, name, original, seen)}
        return put_kept(module, name, original, changes.made(kept, chosen, offset)[name], seen)

    def before(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal seen, offset, reading
        if reading:
            return
        seen, offset = _input_of(inputs, named), _cached(named)
        calls.update(dict.fromkeys(names, 0))
        if several:
            reading = True
            try:
                with recording(module, {name: (name,) for name in names}) as record:
                    parts.update(changes.made(record(seen), chosen, offset))
            finally:
                reading = False

    def after(_module: nn.Module, _inputs: object, _output: object) -> None:
        if not reading and (missing := [name for name in names if not calls[name]]):
            raise SubjectError(never_called(missing[0]))
        calls.update(dict.fromkeys(names, -1))

    with replacing(module, names, new):
        handles = [
            module.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
            module.register_forward_hook(after),
        ]
        try:
            yield module
        finally:
            for handle in handles:
                handle.remove()


@final
class Changes:
    """Which latents change, and how: z' from z."""

    def __init__(
        self,
        dictionary: Dictionary,
        put: Strengths,
        add: Strengths,
        scale: Strengths,
        ablate: Sequence[int],
    ) -> None:
        self._dictionary = dictionary
        for word, given in (("set", put), ("add", add), ("scale", scale), ("ablate", ablate)):
            _check(word, given, dictionary.latents)
        fixed = [*put, *ablate]
        twice = [one for one in fixed if fixed.count(one) > 1 or one in add or one in scale]
        if twice:
            raise ConfigError(
                "a latent must be set, or ablated, or scaled and added to; latent "
                f"{twice[0]} is given more than one of these. Choose one."
            )
        self._put = {**put, **dict.fromkeys(ablate, 0.0)}
        self._add = {latent: s for latent, s in add.items() if not _is(s, 0.0)}
        self._scale = {latent: s for latent, s in scale.items() if not _is(s, 1.0)}
        self.latents = sorted({*self._put, *self._add, *self._scale})
        values = [*put.values(), *add.values(), *scale.values()]
        self._learned = any(isinstance(s, Tensor) and s.requires_grad for s in values)

    def made(self, kept: Mapping[str, Tensor], chosen: Places, offset: int) -> dict[str, Tensor]:
        """The parts of a site, as `recording` gives them, with the latents edited."""
        grid_BHWD = torch.cat([as_grid(part) for part in kept.values()], dim=3)
        batch, height, width, _ = grid_BHWD.shape
        x_BPD = grid_BHWD.reshape(batch, height * width, -1)
        dimensions = next(iter(kept.values())).ndim - 2  # of a map 2, of a sequence 1
        shape = (height, width)[:dimensions]
        where_BP = chosen.mask(batch, shape, offset, x_BPD.device)
        edited_BPD = self.vectors(x_BPD, where_BP)
        return to_parts(edited_BPD.reshape(-1, x_BPD.shape[2]), kept)

    def vectors(
        self, x_BPD: Float[Tensor, "b p d"], where_BP: Bool[Tensor, "#b p"] | None
    ) -> Float[Tensor, "b p d"]:
        """x' of vectors x, of P positions an input, where they are chosen."""
        if not self.latents:
            return x_BPD
        dictionary = self._placed(x_BPD)
        rows_LD = dictionary.W_dec[self.latents]
        dtype = torch.promote_types(x_BPD.dtype, rows_LD.dtype)
        change_BPL = self._change(x_BPD, dictionary)
        if where_BP is not None:
            change_BPL = change_BPL * where_BP[..., None]
        made_BPD = (x_BPD.to(dtype) + (change_BPL @ rows_LD).to(dtype)).to(x_BPD.dtype)
        if self._learned:  # a strength that is zero by now has a gradient, too
            return made_BPD
        return torch.where((change_BPL != 0).any(dim=2, keepdim=True), made_BPD, x_BPD)

    def _change(
        self, x_BPD: Float[Tensor, "b p d"], dictionary: Dictionary
    ) -> Float[Tensor, "b p l"]:
        """z' - z of the edited latents."""
        batch, like = len(x_BPD), dictionary.W_dec
        shape = (*x_BPD.shape[:2], len(self.latents))
        added = _columns(self._add, self.latents, 0.0, batch, like)
        if not (self._put or self._scale):
            return added.expand(shape)
        flat_ND = x_BPD.reshape(-1, x_BPD.shape[2]).to(like.dtype)
        blocks = torch.split(flat_ND, BLOCK)
        z_NL = torch.cat([dictionary.encode(block)[:, self.latents] for block in blocks])
        z_BPL = z_NL.view(shape)
        fixed_L = torch.tensor([one in self._put for one in self.latents], device=like.device)
        scaled = z_BPL * _columns(self._scale, self.latents, 1.0, batch, like) + added
        put = _columns(self._put, self.latents, 0.0, batch, like)
        return torch.where(fixed_L, put, scaled) - z_BPL

    def _placed(self, x_BPD: Tensor) -> Dictionary:
        """The dictionary, on the device of x. Raises ConfigError for vectors of another width."""
        width = x_BPD.shape[2]
        if self._dictionary.width != width:
            raise ConfigError(
                f"the dictionary must take the {width} channels of the site; it takes "
                f"{self._dictionary.width}. A crosscoder needs the vectors of all of its sites or "
                "turned copies at once, and cannot be edited: choose a dictionary of this site."
            )
        if self._dictionary.W_dec.device != x_BPD.device:
            self._dictionary = copy.deepcopy(self._dictionary).to(x_BPD.device)
        return self._dictionary


def _columns(
    strengths: Strengths, latents: Sequence[int], default: float, batch: int, like: Tensor
) -> Float[Tensor, "b 1 l"]:
    """The strength of each latent for each input; b is 1 if it is the same for all."""
    columns = []
    for latent in latents:
        value = torch.as_tensor(strengths.get(latent, default)).to(like)
        if value.ndim and len(value) not in (1, batch):
            raise ConfigError(
                f"the strengths of latent {latent} must be one number, or one for each of the "
                f"{batch} inputs; got {len(value)}."
            )
        columns.append(value.reshape(-1))
    most = max(map(len, columns))
    return torch.stack([column.expand(most) for column in columns], dim=1)[:, None, :]


def _check(word: str, given: Strengths | Sequence[int], latents: int) -> None:
    """Raise ConfigError for latents that are not there, and strengths that are no numbers."""
    for latent in given:
        if not isinstance(latent, Integral) or not 0 <= latent < latents:
            raise ConfigError(
                f"{word} must name latents from 0 to {latents - 1}; got {latent!r}. Choose one of "
                "the dictionary's latents."
            )
        value = given[latent] if isinstance(given, Mapping) else 0.0
        if isinstance(value, Tensor) and value.ndim < 2 and value.numel():
            continue
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigError(
                f"the strength of {word} must be a finite number, or a tensor of one an input; got "
                f"{value if isinstance(value, Real) else type(value).__name__} for latent {latent}."
            )


def _is(strength: int | float | Tensor, value: float) -> bool:
    """True if a strength changes nothing, and needs no gradient."""
    if isinstance(strength, Tensor):
        return not strength.requires_grad and bool((strength == value).all())
    return strength == value


def _modules(model: Any, site: str) -> tuple[str, ...]:
    """The modules of a site of a subject, or of a torch module."""
    if isinstance(model, Sited):
        blocks = int(getattr(model, "layers", 0))
        full = full_site(site, model.sites, blocks) if blocks else site
        return site_modules(model, [full])[full]
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"edit needs a subject or a torch module; got a {type(model).__name__}. Load one, e.g. "
            "with tendril.subject_from_module."
        )
    return site_modules(_Plain(model), [site])[site]


@final
class _Plain:
    """A torch module as a network with sites: the names of its modules."""

    def __init__(self, module: nn.Module) -> None:
        self.name = type(module).__name__
        names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
        self.sites = {f"{name}{end}": (f"{name}{end}",) for name in names for end in ("", ":in")}


def _loaded(run: str | Path, model: Any, site: str, home: str | None) -> Dictionary:
    """The dictionary of a run. Raises ConfigError if it is not of single vectors of this site."""
    folder = find_run(run, home)
    trained = read_config(folder)
    sites = list(trained.get("sites") or [trained.get("site")])
    if len(sites) > 1 or trained.get("group"):
        of = f"the sites {', '.join(sites)}" if len(sites) > 1 else "the elements of a group"
        raise ConfigError(
            f"edit needs a dictionary of single vectors of one site; {folder.resolve().name} is a "
            f"crosscoder of {of}, which needs all of them at once. Choose another run."
        )
    known = getattr(model, "sites", None)
    own = known.get(sites[0]) if isinstance(known, Mapping) else None
    if own is not None and own != _modules(model, site):
        raise ConfigError(
            f"the site must be {sites[0]}, that of the run {folder.resolve().name}; got {site}. "
            "Name the run's site, or another run."
        )
    return load_dictionary(folder)


def _input_of(inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The input of a network; of embedded tokens None, because they are no image."""
    if inputs:
        return inputs[0]
    name = next((n for n in INPUTS if named.get(n) is not None), "")
    if name == "inputs_embeds":
        return None
    return named[name] if name else next((v for v in named.values() if isinstance(v, Tensor)), None)


def _cached(named: Mapping[str, Any]) -> int:
    """The number of positions that a key-value cache holds."""
    cache = named.get("past_key_values")
    length = getattr(cache, "get_seq_length", None)
    if length is not None:
        return int(length())
    return int(cache[0][0].shape[-2]) if isinstance(cache, tuple) and cache else 0
