"""What the study of splicing can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tendril.models.epsilon import check_epsilon

from ..core.config import StudyConfig, VisionConfig, at_least, several_runs


@dataclass(frozen=True)
class SpliceConfig(VisionConfig):
    """What a network still knows when a site is replaced by its reconstruction.

    Accuracy and cross-entropy with the site as it is, with each run's reconstruction, with zeros
    and with the mean, and the fraction recovered: (ablated - spliced) / (ablated - clean), on
    images that no run was trained on. 800 photographs through InceptionV1 take one to three
    minutes on two CPU cores. Runs of a language model are judged on held-out contexts:
    cross-entropy, perplexity and KL of the next token, also by position and class of the token;
    seconds for a small model. With --attack also accuracy under attack: through the spliced
    network, straight-through, and transferred from the network as it is. Makes a page and tables.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs of one site: paths, names in runs/, beginnings of names, or latest."""
    store: str = ""
    """Store that says where subject and images were, or whose text is read; by default the runs'
    own."""
    subject: str = ""
    """Network (inceptionv1, handmade, planted or FILE.py:FUNCTION) or language model (folder, hub
    name or package:NAME); by default the store's own."""
    network: str = ""
    """Network that is spliced, of a crosscoder of two (--paired-store); by default the first."""
    inputs: str = ""
    """Images: a folder or hf:NAME_OR_PATH[@SPLIT]; by default the harvested ones. Those
    that a run was trained on are left out. Of a language model a text, or self[:SEED] for text
    that it writes; by default the store's held-out contexts."""
    labels: str = ""
    """File whose line i begins with the id of class i. An image's class is the id that begins the
    name of its file, or of a folder above it. `inputs`: the classes of the inputs themselves, a
    column of labels, or the folders they lie in. By default the network's own first answers."""
    attack: Literal["none", "fgsm", "pgd"] = "none"
    """Attack the network, as it is and with the site replaced, and beside each run two controls of
    the same error: PCA and noise."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the attack."""
    epsilon: float = 4 / 255
    """Size of the attack in this norm, in units of pixels from 0 to 1."""
    attack_steps: int = 20
    """Steps of PGD, of size 2.5 epsilon / steps."""
    limit: int | None = None
    """Number of images or contexts, drawn at random, the same ones each time; by default all."""
    batch_size: int = 16
    """Images or contexts that pass through the network at once."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {"labels", "network"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, attack_steps=1)
        check_epsilon(self.epsilon, self.norm, name="--epsilon")
        at_least(self, batch_size=1, **({} if self.limit is None else {"limit": 1}))
