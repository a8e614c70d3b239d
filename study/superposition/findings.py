"""What the study of superposition finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float

from ..measures.curve_shape import Dip, Plateau, crossing, deepest_dip, plateaus
from ..measures.superposition_attacks import ATTACKS, correlation
from ..measures.superposition_geometry import Geometry

CLEAN, ROBUST = 0, 1
KINDS = ("clean", "robust")
SHARED = 1.2
"""Features per dimension of a clean model above which it counts as in superposition."""
LEAVES = (1.2, 2.2)
"""Transitions: where features per dimension leave 1, and where they leave 2, by this much."""
PAPER_TRANSITIONS = (1.7, 4.0)
NEAR = 0.15
"""A transition within this fraction of the paper's is found."""
LEAST_DIP = 0.05
"""A dip shallower than this is none."""


@final
@dataclass(frozen=True)
class Sweep:
    """The models of one seed. K: clean, robust; N: densities; A: ATTACKS.

    gain:    error that an attack adds, in units of its squared norm
    attacked: error under an attack
    control: the same for clean models whose features point in random directions
    trace:   (step, features per dimension) during training
    """

    seed: int
    per_dimension_KN: Float[np.ndarray, "k n"]
    clean_error_KN: Float[np.ndarray, "k n"]
    power_KN: Float[np.ndarray, "k n"]
    attacked_AKN: Float[np.ndarray, "a k n"]
    gain_AKN: Float[np.ndarray, "a k n"]
    control_AN: Float[np.ndarray, "a n"]
    random_KN: Float[np.ndarray, "k n"]
    geometry_KN: Sequence[Sequence[Geometry]]
    weights_KNDF: Float[np.ndarray, "k n d f"]
    biases_KNF: Float[np.ndarray, "k n f"]
    trace: Sequence[tuple[int, Float[np.ndarray, "k n"]]]

    @property
    def squared_KN(self) -> Float[np.ndarray, "k n"]:
        """Sum of (W_i . W_j)^2 over i != j."""
        return np.array([[one.squared for one in kind] for kind in self.geometry_KN])

    @property
    def absolute_KN(self) -> Float[np.ndarray, "k n"]:
        """Sum of |W_i . W_j| over i != j."""
        return np.array([[one.absolute for one in kind] for kind in self.geometry_KN])

    @property
    def shared_N(self) -> Bool[np.ndarray, " n"]:
        """True where the clean model is in superposition."""
        return np.asarray(self.per_dimension_KN[CLEAN] > SHARED)

    def still_moving(self) -> float:
        """The largest change of features per dimension over the second half of training."""
        if not self.trace:
            return float("nan")
        last = self.trace[-1][0]
        half = [value for step, value in self.trace if step <= last / 2]
        return float(np.abs(self.trace[-1][1] - half[-1]).max()) if half else float("nan")


@final
@dataclass(frozen=True)
class Superposition:
    """Sweeps of several seeds over the same densities, from dense to sparse."""

    densities: Sequence[float]
    steps: int
    attack: float
    sweeps: Sequence[Sweep]

    @property
    def sparsity_N(self) -> Float[np.ndarray, " n"]:
        """1 / (1 - S)."""
        return 1 / np.asarray(self.densities)

    def mean(self, name: str) -> Any:
        """The mean over seeds of an array of the sweeps."""
        return np.mean([getattr(sweep, name) for sweep in self.sweeps], axis=0)

    def vulnerability(self, sweep: Sweep, attack: int) -> Float[np.ndarray, "k n"]:
        """Gain relative to the clean model of the densest features."""
        gain_KN = sweep.gain_AKN[attack]
        return np.asarray(gain_KN / gain_KN[CLEAN, 0])

    def plateau(self, kind: int) -> Plateau | None:
        """The plateau of the mean curve that lies highest, above SHARED."""
        found = [p for p in plateaus(self.mean("per_dimension_KN")[kind]) if p.level > SHARED]
        return max(found, key=lambda p: p.last - p.first) if found else None

    def transitions(self, sweep: Sweep, kind: int) -> list[float]:
        """1 / (1 - S) where features per dimension leave 1 and 2; NaN where they do not."""
        at = np.log(self.sparsity_N)
        curve = sweep.per_dimension_KN[kind]
        return [float(np.exp(crossing(at, curve, level))) for level in LEAVES]

    def dips(self, attack: int, kind: int) -> list[Dip | None]:
        """The deepest dip of vulnerability, for each seed."""
        return [deepest_dip(self.vulnerability(sweep, attack)[kind]) for sweep in self.sweeps]

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "seeds": len(self.sweeps),
            "steps": self.steps,
            "densities": len(self.densities),
            "models": 2 * len(self.densities) * len(self.sweeps),
            **self._curves(),
            **self._training(),
            **self._vulnerability(),
            **self._interference(),
            "still_moving": _rounded(max(sweep.still_moving() for sweep in self.sweeps)),
        }

    def _curves(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, name in enumerate(KINDS):
            flat = self.plateau(kind)
            found[f"plateau_{name}"] = _rounded(flat.level) if flat else None
            ends = [_rounded(self.sparsity_N[i]) for i in (flat.first, flat.last)] if flat else None
            found[f"plateau_{name}_between"] = ends
            each = [self.transitions(sweep, kind) for sweep in self.sweeps]
            for i, paper in enumerate(PAPER_TRANSITIONS):
                values = [one[i] for one in each]
                found[f"transition_{i + 1}_{name}"] = _rounded(np.mean(values))
                found[f"transition_{i + 1}_{name}_seeds"] = [_rounded(v) for v in values]
                near = all(abs(v / paper - 1) <= NEAR for v in values)
                found[f"transition_{i + 1}_{name}_found"] = bool(near)
        return found

    def _training(self) -> dict[str, Any]:
        lower = points = 0
        less = []
        for sweep in self.sweeps:
            clean_N, robust_N = sweep.per_dimension_KN[:, sweep.shared_N]
            lower += int((robust_N < clean_N).sum())
            points += len(clean_N)
            less.extend((1 - robust_N / clean_N).tolist())
        return {
            "robust_lower": lower,
            "robust_lower_of": points,
            "robust_less": _rounded(np.mean(less)) if less else None,
        }

    def _vulnerability(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for a, name in enumerate(ATTACKS):
            for key, values in self.correlations(a).items():
                found[f"correlation_{name}_{key}"] = _rounded(np.mean(values))
                if key == "clean":
                    found[f"correlation_{name}_least"] = _rounded(np.min(values))
            for key, value in self.other_measures(a).items():
                found[f"correlation_{name}_{key}"] = value
            for kind, word in enumerate(KINDS):
                dips = self.dips(a, kind)
                depths = [dip.depth if dip else 0.0 for dip in dips]
                places = [self.sparsity_N[dip.place] for dip in dips if dip]
                found[f"dip_{name}_{word}"] = _rounded(np.mean(depths))
                found[f"dip_{name}_{word}_seeds"] = [_rounded(depth) for depth in depths]
                found[f"dip_{name}_{word}_at"] = _rounded(np.mean(places)) if places else None
                found[f"dip_{name}_{word}_antipodal"] = self._antipodal(dips, kind)
                found[f"dip_{name}_{word}_found"] = self._is_dip(dips, kind)
        return found

    def _antipodal(self, dips: Sequence[Dip | None], kind: int) -> float | None:
        """Fraction of features in antipodal pairs at the bottom of the dip, mean over seeds."""
        pairs = zip(self.sweeps, dips, strict=True)
        parts = [sweep.geometry_KN[kind][dip.place].antipodal for sweep, dip in pairs if dip]
        return _rounded(np.mean(parts)) if parts else None

    def _is_dip(self, dips: Sequence[Dip | None], kind: int) -> bool:
        """True for a dip of LEAST_DIP or more in every seed at models of mostly antipodal pairs."""
        antipodal = self._antipodal(dips, kind)
        deep = all(dip is not None and dip.depth >= LEAST_DIP for dip in dips)
        return deep and antipodal is not None and antipodal > 0.5

    def correlations(self, attack: int) -> Mapping[str, list[float]]:
        """Of features per dimension with vulnerability, for each seed.

        clean, robust: over densities
        control:       over densities, for clean models with their features in random directions
        sparsity:      as clean, of log 1 / (1 - S) in place of features per dimension
        difference:    of clean minus robust in both, over densities at which the clean model is in
                       superposition: both sides share the density, which cannot explain it
        """
        names = ("clean", "robust", "control", "sparsity", "difference")
        found: dict[str, list[float]] = {name: [] for name in names}
        for sweep in self.sweeps:
            size_KN, gain_KN = sweep.per_dimension_KN, sweep.gain_AKN[attack]
            for kind, name in enumerate(KINDS):
                found[name].append(correlation(size_KN[kind], gain_KN[kind]))
            found["control"].append(correlation(size_KN[CLEAN], sweep.control_AN[attack]))
            found["sparsity"].append(correlation(np.log(self.sparsity_N), gain_KN[CLEAN]))
            shared_N = sweep.shared_N
            apart = (one[CLEAN] - one[ROBUST] for one in (size_KN, gain_KN))
            found["difference"].append(correlation(*(one[shared_N] for one in apart)))
        return found

    def other_measures(self, attack: int) -> dict[str, float | None]:
        """Correlations of clean models with other measures of vulnerability, mean over seeds."""
        found: dict[str, list[float]] = {"loss_ratio": [], "loss_per_power": [], "loss": []}
        for sweep in self.sweeps:
            loss_N = sweep.attacked_AKN[attack, CLEAN]
            size_N = sweep.per_dimension_KN[CLEAN]
            clean_N, power_N = sweep.clean_error_KN[CLEAN], sweep.power_KN[CLEAN]
            found["loss_ratio"].append(correlation(size_N, loss_N / clean_N))
            found["loss_per_power"].append(correlation(size_N, loss_N / power_N))
            found["loss"].append(correlation(size_N, loss_N))
        return {name: _rounded(np.mean(values)) for name, values in found.items()}

    def interference_ratio(self, name: str) -> Float[np.ndarray, "s n"]:
        """Clean over robust for each seed and density; NaN where the clean model shares nothing."""
        rows = []
        for sweep in self.sweeps:
            values_KN = getattr(sweep, name)
            ratio_N = values_KN[CLEAN] / np.maximum(values_KN[ROBUST], 1e-12)
            rows.append(np.where(sweep.shared_N, ratio_N, np.nan))
        return np.array(rows)

    def _interference(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        flat = self.plateau(CLEAN)
        for name in ("squared", "absolute"):
            ratio_SN = self.interference_ratio(f"{name}_KN")
            known = ratio_SN[np.isfinite(ratio_SN)]
            found[f"interference_{name}"] = _rounded(np.mean(known)) if len(known) else None
            found[f"interference_{name}_most"] = _rounded(np.max(known)) if len(known) else None
            beyond = ratio_SN[:, flat.last + 1 :] if flat else known[:0]
            sparse = _rounded(np.mean(beyond)) if beyond.size else None
            found[f"interference_{name}_beyond"] = sparse
        return found

    def records(self) -> list[dict[str, Any]]:
        """One record for each model, for models.csv."""
        rows = []
        for sweep in self.sweeps:
            squared_KN, absolute_KN = sweep.squared_KN, sweep.absolute_KN
            for kind, name in enumerate(KINDS):
                for n, density in enumerate(self.densities):
                    form = sweep.geometry_KN[kind][n]
                    size = float(sweep.per_dimension_KN[kind, n])
                    gains = zip(ATTACKS, sweep.gain_AKN[:, kind, n], strict=True)
                    rows.append(
                        {
                            "seed": sweep.seed,
                            "training": name,
                            "density": round(float(density), 6),
                            "features_per_dimension": round(size, 5),
                            "represented": int(form.represented_F.sum()),
                            "antipodal": round(form.antipodal, 4),
                            "error": round(float(sweep.clean_error_KN[kind, n]), 6),
                            "mean_square_norm": round(float(sweep.power_KN[kind, n]), 5),
                            **{f"gain_{attack}": round(float(gain), 5) for attack, gain in gains},
                            "interference_squared": round(float(squared_KN[kind, n]), 5),
                            "interference_absolute": round(float(absolute_KN[kind, n]), 5),
                            "interference_random": round(float(sweep.random_KN[kind, n]), 5),
                        }
                    )
        return rows


def _rounded(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
