"""The images of a store, some of them, and batches of them as a network takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from tendril.data.cli import note, progress_bar
from tendril.data.errors import InputsNotFoundError, UnreadableInputError, UnreadableInputsError
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.labels import Labels
from tendril.data.store.provenance import located
from tendril.data.store.reader import Store
from tendril.models.subjects.subject import Subject

from .vision_inputs import are_harvested


def harvested_images(store: Store) -> ImageSource:
    """The images that a store was harvested from, in their order.

    Raises InputsNotFoundError where they are others by now: held-out ones go by their number.
    """
    taken = store.spec["inputs"]
    images = open_images(located(store.path, store.origin.get("inputs", "")), int(taken["count"]))
    if not are_harvested(images, taken):
        raise InputsNotFoundError(
            f"{images.origin} does not hold the images that {store.name} was harvested from, so "
            "it cannot be told which of them are held out. Pass --inputs with images that no run "
            "was trained on."
        )
    return images


def some_images(images: ImageSource, numbers: Sequence[int], part: str) -> ImageSource:
    """Some images of a source, as a source whose identity says which `part` they are."""
    chosen = [int(i) for i in numbers]
    exact, labels = images.exact, images.labels
    return replace(
        images,
        identity={**images.identity, "part": part},
        names=tuple(images.names[i] for i in chosen),
        fetch=lambda index, size: images.fetch(chosen[index], size),
        exact=None if exact is None else lambda index: exact(chosen[index]),
        labels=None if labels is None else Labels(labels.names, labels.number_B[chosen]),
    )


@final
class ImageBatches:
    """Batches of images as the subject takes them, with their classes where they are known.

    Images that cannot be read are left out; `unreadable` maps their names to the reasons.
    """

    def __init__(
        self,
        images: ImageSource,
        subject: Subject,
        size: int,
        device: torch.device,
        labels: Sequence[int] | None,
    ) -> None:
        self._images, self._subject, self._size = images, subject, size
        self._device, self._labels = device, labels
        self.unreadable: dict[str, str] = {}

    def shown(self, label: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All batches once, with a progress bar, as the subject takes them. Raises
        UnreadableInputsError if no image can be read."""
        for rgb_BCHW, known in self.rgb(label):
            yield self._subject.preprocess(rgb_BCHW), known

    def rgb(self, label: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The same as RGB images [B, 3, H, W] in 0..1."""
        with progress_bar(total=len(self._images), desc=label, unit=" images") as bar:
            for start in range(0, len(self._images), self._size):
                numbers = range(start, min(start + self._size, len(self._images)))
                loaded = self._loaded(numbers)
                if loaded:
                    yield self._batch(loaded)
                bar.update(len(numbers))
        if len(self.unreadable) == len(self._images):
            name, reason = next(iter(self.unreadable.items()))
            raise UnreadableInputsError(
                f"none of the {len(self._images)} images in {self._images.origin} can be read "
                f"({name}: {reason}). Give --inputs a folder of readable images."
            )

    def _loaded(self, numbers: range) -> dict[int, Tensor]:
        loaded = {}
        for i in numbers:
            try:
                loaded[i] = torch.from_numpy(self._images.given(i, self._subject.input_size))
            except UnreadableInputError as error:
                name = self._images.name(i)
                if name not in self.unreadable:
                    note(f"the image {name} cannot be read ({error}); it is left out.")
                self.unreadable[name] = str(error)
        return loaded

    def _batch(self, numbers: dict[int, Tensor]) -> tuple[Tensor, Tensor | None]:
        images = list(numbers.values())
        if any(image.is_floating_point() for image in images):  # tensors that are no pictures
            images = [i if i.is_floating_point() else i / 255 for i in images]
        rgb_BCHW = torch.stack(images).permute(0, 3, 1, 2).to(self._device)
        rgb_BCHW = rgb_BCHW if rgb_BCHW.is_floating_point() else rgb_BCHW.float() / 255
        labels = self._labels
        known = None if labels is None else torch.tensor([labels[i] for i in numbers])
        return rgb_BCHW, known
