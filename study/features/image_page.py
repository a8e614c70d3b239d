"""The page of features of images: the data of its latents, and the words around their list.

data/index.js      what the list, its search and its order need of every latent
data/000.js ...    the rest, 128 latents a file, loaded when one of them is shown
data/images/7.jpg  the images that are shown, each once

A map of a latent over an image is text, as `image_maps.as_texts` writes it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tendril.data.store.atomic import check_not_link, write_whole

from ..core.report import write_csv
from ..measures.image_maps import SMALL
from ..measures.latent_activity import SAMPLE
from .findings import short
from .image_findings import TOP_CLASSES, ImageFindings
from .page import PIECE, activity_tiles, base64_of, clear, floats, numbers_of, pairs, script, tile

LISTED_CLASSES = 4
FACES = 3  # pictures of a latent in the list


def context(findings: ImageFindings) -> dict[str, Any]:
    """What page.html shows; its latents are in `data/` beside it."""
    return {
        "pictures": True,
        "unit": "position",
        "logits": False,
        "classes": findings.spread is not None,
        "moran": bool(np.isfinite(findings.moran_S).any()),
        "lead": lead(findings),
        "numbers": numbers(findings),
        "reading": reading(findings),
        "method": method(findings),
        "caveats": caveats(findings),
    }


def lead(findings: ImageFindings) -> str:
    """The first sentences: what the page shows, and from which images."""
    classes = "the classes on which it is active, " if findings.spread else ""
    return (
        f"The {findings.latents:,} latents of the dictionary {findings.run}: for each one the "
        f"images that excite it most, {classes}and the latents most like it. From "
        f"{findings.activity.rows:,} positions of {findings.images:,} images of {findings.store}."
    )


def numbers(findings: ImageFindings) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it means."""
    figures = findings.figures
    found = activity_tiles(findings.activity, figures, "position")
    if (effective := figures.get("classes_median")) is not None:
        text = "classes, effectively, share the activation of the median latent"
        found.append(tile(f"{effective:.2g}", f"of {figures['classes']:,}", text))
    if (moran := figures["moran_median"]) is not None:
        found.append(tile(f"{moran:.2f}", "", "is the median of Moran's I of the latents' maps"))
    return found


def reading(findings: ImageFindings) -> list[str]:
    """How to read the parts of the page."""
    found = findings.spread is not None
    search = (
        f"Search finds text in the names of the {LISTED_CLASSES} classes on which a latent is most "
        "active; text in quotation marks must be the whole name, and a number finds the latent of "
        "that number."
        if found
        else "Search finds the latent of a number."
    )
    parts = [
        f"The list: click a column's head to sort by it, and again to reverse the order. {search} "
        "Keys: j and k move down and up the list, / goes to the search. The page's address "
        "(#latent=12) is a link to the latent shown.",
        "Examples: on the left the part of the image that the position sees (its receptive field, "
        "or all of the image where the field is larger; a part under a sixth of the image's side "
        "is framed, with what surrounds it), on the right the whole image with the latent's map "
        "over it: the image is dark where the latent is silent, and light where it is as active "
        "as at its maximum. The frame is the part on the left. Below are the "
        "activation at the position and the class of the image. Hover over an example for the name "
        "of the image; click to see it large.",
        "Activations: how many positions have which activation, on a logarithmic axis with four "
        "bars an octave. Zeros are left out.",
        f"Strongest examples: the {findings.activity.top.count} images with the largest "
        "activations, one position an image."
        + (
            " Weaker examples: the percentages are quantiles of the activations above zero, "
            f"estimated from {SAMPLE} positions of each latent, drawn evenly from all on which it "
            "is active."
            if findings.activity.sample
            else ""
        ),
        "Nearest in the decoder: the latents whose decoder rows have the highest cosine with this "
        "one's. Active together: those with the highest Jaccard index, the fraction of the "
        "positions where either latent is active on which both are.",
    ]
    if found:
        parts.append(
            "Classes: the mean activation on the images of a class, as a fraction of the sum of "
            "these means over all classes. Effective classes: exp of the entropy of these "
            "fractions. It is 1 for a latent of a single class, and the number of classes for a "
            "latent that is as active on all of them."
        )
    return parts


MAPS = {
    "network": "The network was run again on the images shown, and every position of its map was "
    "encoded.",
    "store": "The maps over the images are those in the store, which holds every position.",
    "positions": "The store holds some positions of each image only; the maps show these, and "
    "Moran's I is left out.",
    "": "",
}
MORAN = (
    "Moran's I of a map is N / W times the sum over neighbouring cells i, j of (z_i - m)(z_j - m), "
    "divided by the sum over cells of (z_i - m)^2: N cells with mean m, W ordered pairs of cells "
    "that share an edge. It is near 1 for an activation in patches, and about 0 for one scattered "
    "over the map. A latent's value is the mean over the maps of its strongest images."
)


def method(findings: ImageFindings) -> list[str]:
    """How the figures were computed."""
    part = {"all": "All images", "train": "The images of the training set"}.get(
        findings.part, "The images held out of training"
    )
    width, height = findings.field.size
    parts = [
        f"{part} of the store were read once ({findings.images:,} images) and encoded by the "
        "trained dictionary. A latent is active at a position if its activation there is above "
        "zero. Frequencies, histograms, maxima and strongest examples are exact: they come from "
        f"all positions in the store, {findings.activity.length:,} an image.",
        f"{MAPS[findings.whole]} {MORAN if np.isfinite(findings.moran_S).any() else ''}".strip(),
        f"The receptive field of a position of {findings.sites[-1]} has {width} x {height} pixels, "
        f"of images of {findings.size} x {findings.size} pixels.",
        f"Latents active together were counted on {findings.together.rows:,} positions, drawn "
        "evenly.",
        f"The data of the latents lies in data/, {PIECE} latents a file, and is loaded when one of "
        "them is shown; the list draws only the rows that are visible.",
    ]
    return [part for part in parts if part]


def caveats(findings: ImageFindings) -> list[str]:
    """What the numbers do not say."""
    parts = [
        "The strongest examples show what activates a latent most, and little of what it does at "
        "its usual strength. Look at the weaker examples too.",
        "A latent that is never active here may be active on other images.",
        "A high cosine between two decoder rows means that the latents write alike. They need not "
        "be active together.",
        "The receptive field is what a position can see. What it looks at may be much smaller.",
    ]
    if findings.spread:
        parts.append(
            "A latent that is most active on a class need not be about it: the background of the "
            "class's photographs may excite it."
        )
    if findings.part == "all":
        parts.append("Most of these images were trained on; --part held_out reads only the others.")
    return parts


def write_tables(findings: ImageFindings, folder: Path) -> None:
    """Write latents.csv, and the data of the page."""
    write_data(findings, folder / "data")
    rows = (findings.row(latent).values() for latent in range(findings.latents))
    write_csv(folder / "latents.csv", list(findings.row(0)), map(list, rows))


def write_data(findings: ImageFindings, folder: Path) -> None:
    """Write the index, the pieces and the pictures, in place of those that are there.

    Raises ConfigError if a folder is a symbolic link.
    """
    clear(folder)
    write_whole(folder / "index.js", script("features.index", index_of(findings)))
    for number in range(-(-findings.latents // PIECE)):
        latents = range(number * PIECE, min((number + 1) * PIECE, findings.latents))
        piece = [latent_of(findings, latent) for latent in latents]
        write_whole(folder / f"{number:03d}.js", script("features.piece", number, piece))
    images = folder / "images"
    check_not_link(images)
    images.mkdir(exist_ok=True)
    for old in images.iterdir():
        old.unlink()
    for number, content in (findings.maps.pictures if findings.maps else {}).items():
        (images / f"{number}{suffix(findings)}").write_bytes(content)


def suffix(findings: ImageFindings) -> str:
    """The suffix of the pictures' files."""
    return ".png" if findings.size <= SMALL else ".jpg"


def index_of(findings: ImageFindings) -> dict[str, Any]:
    """What the list needs of all latents. The names of classes are its tokens, numbered from 1."""
    activity, field = findings.activity, findings.field
    _, cosines = findings.neighbours
    top = np.zeros((findings.latents, LISTED_CLASSES), np.int64)
    if findings.spread:
        part_SC = findings.spread.part_SC
        best = np.argsort(-part_SC, axis=1, kind="stable")[:, :LISTED_CLASSES]
        there = np.take_along_axis(part_SC, best, axis=1) > 0
        top[:, : best.shape[1]] = np.where(there, best + 1, 0)
    nearest = cosines[:, 0].numpy() if cosines.numel() else np.zeros(findings.latents)
    x, y = field.pixel(0.0, 0.0)
    return {
        "kind": "images",
        "latents": findings.latents,
        "piece": PIECE,
        "rows": activity.rows,
        "images": findings.images,
        "tokens": ["", *(findings.labels.names if findings.labels else ())],
        "frequency": floats(activity.frequency_S),
        "max": floats(activity.max_S),
        "nearest": floats(nearest),
        "moran": floats(findings.moran_S) if np.isfinite(findings.moran_S).any() else None,
        "effective": floats(findings.spread.effective_S) if findings.spread else None,
        "fires": numbers_of(top),
        "faces": faces_of(findings),
        "promotes": None,
        "size": findings.size,
        "suffix": suffix(findings),
        "pictures": findings.maps is not None,
        "grid": list(findings.grid),
        "field": {
            "size": list(field.size),
            "origin": [short(x), short(y)],
            "stride": [short(step) for step in field.stride],
        },
    }


def faces_of(findings: ImageFindings) -> dict[str, Any] | None:
    """The image, row and column of the FACES strongest examples of each latent; -1 for none."""
    if findings.maps is None:
        return None
    shown = findings.shown
    first = np.searchsorted(shown.latent_M, np.arange(findings.latents))
    faces = np.full((findings.latents, FACES, 3), -1, np.int32)
    for i in range(FACES):
        at = np.minimum(first + i, max(len(shown.latent_M) - 1, 0))
        if not len(shown.latent_M):
            break
        there = (shown.latent_M[at] == np.arange(findings.latents)) & np.isnan(shown.level_M[at])
        faces[there, i, 0] = shown.row_M[at[there]] // findings.activity.length
        faces[there, i, 1:] = findings.cell_M[at[there]]
    readable = np.array(sorted(findings.maps.pictures), np.int32)
    faces[~np.isin(faces[..., 0], readable)] = -1
    return {"each": FACES, "data": base64_of(faces.astype("<i4"))}


def latent_of(findings: ImageFindings, latent: int) -> dict[str, Any]:
    """The rest that the page shows of one latent."""
    activity = findings.activity
    histogram = activity.histogram_SH[latent]
    full = np.flatnonzero(histogram)
    first, last = (int(full[0]), int(full[-1])) if len(full) else (0, -1)
    numbers_, cosines = findings.neighbours
    others = findings.together.number_SK[latent]
    together = findings.together.jaccard_SK[latent]
    examples = findings.shown.of(latent)
    weak = {m for m in examples if np.isfinite(findings.shown.level_M[m])}
    entry: dict[str, Any] = {
        "fired": int(activity.fired_S[latent]),
        "images": int(findings.images_S[latent]),
        "mean": short(findings.mean_S[latent]),
        "norm": short(findings.norm_S[latent]),
        "histogram": [first, *histogram[first : last + 1].tolist()],
        "neighbours": pairs(numbers_[latent].tolist(), cosines[latent]),
        "together": [(int(n), short(j)) for n, j in zip(others, together, strict=True) if n >= 0],
        "strongest": [_example(findings, m) for m in examples if m not in weak],
        "weaker": [_example(findings, m) for m in sorted(weak)],
    }
    if findings.spread:
        top = findings.spread.top(latent, TOP_CLASSES)
        entry["classes"] = [(c + 1, short(part)) for c, part in top]
    return entry


def _example(findings: ImageFindings, example: int) -> list[Any]:
    """[image, name, class, row, column, value, level, map, largest of the map], which pictures.js
    takes apart again."""
    image = findings.input_of(example)
    level = float(findings.shown.level_M[example])
    y, x = findings.cell_M[example].tolist()
    maps = findings.maps
    return [
        image if maps and image in maps.pictures else -1,
        findings.names[image],
        int(findings.labels.number_B[image]) + 1 if findings.labels else 0,
        y,
        x,
        short(findings.shown.value_M[example]),
        None if np.isnan(level) else level,
        maps.text[example] if maps else "",
        short(maps.peak_M[example]) if maps else 0,
    ]
