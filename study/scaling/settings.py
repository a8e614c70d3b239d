"""How sparse a dictionary was trained to be, in terms of raw rows, so that runs can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ..measures.manifold_losses import Penalty

K_SPARSE = ("topk", "batch_topk", "matryoshka")
WITH_L1 = ("relu_l1", "tied")


@final
@dataclass(frozen=True)
class Setting:
    """A sparsity: k, or lambda for raw rows.

    Rows are scaled by s before training so that E||x||^2 = D. For raw rows lambda of an L1 penalty
    is lambda / s, and that of active latents, whose squared error is over D, is lambda D / s^2.
    `training` says how the optimum was sought, which does not change where it is.
    """

    name: str
    value: float
    training: str = ""

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.name} {self.value:.3g}" + (f", {self.training}" if self.training else "")


def setting_of(trained: Mapping[str, Any]) -> tuple[Setting | None, Penalty]:
    """The setting of a run, and what its objective adds to the squared error; no setting where the
    objective has none that can be compared, and no penalty where it is not known."""
    objective = trained.get("objective")
    if "imported" in trained:
        return None, Penalty()
    if objective in K_SPARSE:
        annealed = trained.get("k_anneal", 0)
        how = f"falling over {annealed:.0%} of the steps" if annealed else ""
        return Setting("k", float(trained["k"]), how), Penalty()
    scale = (trained.get("scales") or {}).get(str(trained.get("site")))
    if not scale:
        return None, Penalty()
    if objective in WITH_L1:
        weight = trained["l1"] / scale
        return Setting("lambda", weight), Penalty("l1", weight)
    if objective == "jumprelu" and not trained["target_l0"]:
        weight = trained["l0"] * trained["width"] / scale**2
        return Setting("lambda of L0", weight), Penalty("l0", weight)
    return None, Penalty()
