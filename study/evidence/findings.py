"""Candidates for missing curve detectors, with what speaks for and against each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from ..measures.image_examples import Patch
from ..measures.latent_effects import Effect

CRITERIA = ("uncovered", "curves", "photographs", "recurs", "matters")
NAMES = {
    "uncovered": "no unit covers it",
    "curves": "answers to curves over rivals",
    "photographs": "keeps its orientation on photographs",
    "recurs": "comes back in other runs",
    "matters": "matters downstream",
}


def effect_fields(*effects: Effect | None) -> dict[str, Any]:
    """Fields of a record for the effects on tuning, KL and top-5 answers, in this order."""
    return {
        f"{name}_{part}": "" if one is None else round(getattr(one.chance, part), 5)
        for name, one in zip(("tuning", "kl", "top5"), effects, strict=True)
        for part in ("observed", "mean", "p")
    }


@final
@dataclass(frozen=True)
class Limits:
    """The thresholds of the criteria, as in the config."""

    apart: float
    rival: float
    off: float
    recurs: float
    level: float


@final
@dataclass(frozen=True)
class Candidate:
    """A curve latent of a run.

    nearest:   the nearest curve unit and its distance in degrees; None where the site has none
    envelope:  the highest tuning curve of the curve units at the latent's orientation, each scaled
               to 1
    rival:     the strongest rival shape, and the response to it over that to curves
    off:       degrees by which its orientation on photographs differs from that on drawn curves;
               None where its turned photographs do not excite it
    found_in:  for each run of another seed, the cosine of the most similar curve latent within
               `apart` degrees; 0 where there is none
    by_chance: the same with the latent's channels shuffled
    tuning, kl, top5: effects of removing it; None where they were not measured
    """

    run: str
    seed: int
    latent: int
    copies: bool
    orientation: float
    nearest: tuple[int, float] | None
    envelope: float
    rival: tuple[str, float]
    off: float | None
    patches_turned: int
    found_in: Sequence[float]
    by_chance: Sequence[float]
    alike: float
    tuning: Effect | None
    kl: Effect | None
    top5: Effect | None
    watched: int
    """Number of curve units downstream of about the same orientation."""
    patches: Sequence[Patch] = field(default=())

    def verdicts(self, limits: Limits) -> dict[str, bool | None]:
        """Whether each criterion holds; None where it could not be examined."""
        distance = 360.0 if self.nearest is None else self.nearest[1]
        there = [cosine >= self.alike for cosine in self.found_in]
        effect = self.tuning or self.kl
        return {
            "uncovered": not self.copies and distance >= limits.apart,
            "curves": self.rival[1] <= limits.rival,
            "photographs": None if self.off is None else abs(self.off) <= limits.off,
            "recurs": sum(there) / len(there) >= limits.recurs if there else None,
            "matters": None if effect is None else effect.chance.p <= limits.level,
        }

    def missing(self, limits: Limits) -> bool:
        """True if all five criteria hold."""
        return all(verdict is True for verdict in self.verdicts(limits).values())

    def record(self, limits: Limits) -> dict[str, Any]:
        """One record for evidence.csv and result.json."""
        unit, distance = self.nearest if self.nearest else ("", 360.0)
        verdicts = {
            name: "" if verdict is None else int(verdict)
            for name, verdict in self.verdicts(limits).items()
        }
        effects = effect_fields(self.tuning, self.kl, self.top5)
        return {
            "run": self.run,
            "seed": self.seed,
            "latent": self.latent,
            "copies_a_unit": int(self.copies),
            "orientation": round(self.orientation, 2),
            "nearest_unit": unit,
            "distance": round(distance, 2),
            "envelope": round(self.envelope, 3),
            "rival": self.rival[0],
            "rival_ratio": round(self.rival[1], 3),
            "off_on_photographs": "" if self.off is None else round(self.off, 2),
            "found_in": sum(cosine >= self.alike for cosine in self.found_in),
            "other_runs": len(self.found_in),
            "found_by_chance": sum(cosine >= self.alike for cosine in self.by_chance),
            "best_cosine": round(max(self.found_in, default=0.0), 3),
            "units_watched": self.watched,
            **effects,
            **verdicts,
            "missing": int(self.missing(limits)),
        }


NEW, COPIES = "curve latents that copy no unit", "curve latents that copy a unit"


@final
@dataclass(frozen=True)
class Together:
    """Some latents of a run, removed at once.

    kind:    NEW or COPIES
    energy:  mean of z^2 ||d||^2 summed over the latents; `energy_of_others` is its mean over the
             sets of other latents
    tuning:  fraction lost of the response of curve units downstream to drawn curves; None without
             such units
    """

    run: str
    seed: int
    kind: str
    latents: int
    energy: float
    energy_of_others: float
    tuning: Effect | None
    kl: Effect
    top5: Effect
    photographs: int

    def record(self) -> dict[str, Any]:
        """One record for result.json."""
        effects = effect_fields(self.tuning, self.kl, self.top5)
        return {
            "run": self.run,
            "seed": self.seed,
            "kind": self.kind,
            "latents": self.latents,
            "energy": round(self.energy, 5),
            "energy_of_others": round(self.energy_of_others, 5),
            "photographs": self.photographs,
            **effects,
        }


@final
@dataclass(frozen=True)
class Evidence:
    """All that the page shows."""

    subject: str
    site: str
    downstream: str
    runs: Sequence[str]
    curve_units: int
    new_latents: Sequence[int]
    """For each run, the number of curve latents that copy no unit."""
    limits: Limits
    alike: float
    directions: int
    candidates: Sequence[Candidate]
    """Candidates of every run, then latents that copy units."""
    together: Sequence[Together] = ()
    """All new curve latents of a run removed at once, and all that copy units."""
    labelled: bool = False
    """True if the right answers come from a class list, not from the network itself."""

    def new(self) -> list[Candidate]:
        """Those that copy no unit."""
        return [one for one in self.candidates if not one.copies]

    def figures(self) -> dict[str, Any]:
        """Counts, and the record of each candidate."""
        new = self.new()
        held = {
            name: sum(one.verdicts(self.limits)[name] is True for one in new) for name in CRITERIA
        }
        return {
            "site": self.site,
            "downstream": self.downstream,
            "runs": len(self.runs),
            "curve_units": self.curve_units,
            "new_latents": list(self.new_latents),
            "candidates": len(new),
            "missing_detectors": sum(one.missing(self.limits) for one in new),
            "by_run": {
                run: sum(one.missing(self.limits) for one in new if one.run == run)
                for run in self.runs
            },
            "held": held,
            "expected_by_chance_downstream": round(self.limits.level * len(new), 2),
            "right_answers": "file" if self.labelled else "the network's own first answers",
            "latents": [one.record(self.limits) for one in self.candidates],
            "together": [one.record() for one in self.together],
        }
