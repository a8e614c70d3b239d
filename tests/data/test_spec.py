import dataclasses

import pytest

from tendril.data.errors import ConfigError
from tendril.data.store.spec import StoreSpec, slug

SPEC = StoreSpec(
    subject={"name": "net", "weights": "abc"},
    inputs={"kind": "folder", "fingerprint": "def"},
    sites=("a", "b"),
    positions={"rule": "norm", "per_input": 10},
    seed=0,
    dtype="float16",
)


def test_the_same_spec_has_the_same_digest_whatever_the_order_of_its_keys() -> None:
    other = dataclasses.replace(SPEC, subject={"weights": "abc", "name": "net"})
    assert other.digest() == SPEC.digest()
    assert SPEC.folder("my net!") == f"my-net-{SPEC.digest()[:12]}"


@pytest.mark.parametrize(
    "change",
    [
        {"subject": {"name": "net", "weights": "abd"}},
        {"inputs": {"kind": "folder", "fingerprint": "deg"}},
        {"sites": ("b", "a")},
        {"positions": {"rule": "norm", "per_input": 11}},
        {"seed": 1},
        {"dtype": "float32"},
    ],
)
def test_whatever_can_change_the_rows_changes_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(SPEC, **change).digest() != SPEC.digest()  # type: ignore[arg-type]


def test_the_digest_never_changes_unseen() -> None:
    assert SPEC.digest() == GOLDEN, "stores in the field would be harvested again"


@pytest.mark.parametrize("change", [{"dtype": "int3"}, {"sites": ()}, {"sites": ("a", "a")}])
def test_a_spec_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(SPEC, **change)  # type: ignore[arg-type]


def test_a_name_is_safe_as_a_folder() -> None:
    assert slug("../my photos/") == "my-photos"
    assert slug("///") == "unnamed"


GOLDEN = "757764feea4ccd31ecf763d5a62998e9aba9ef555c7351e61962a094910e21fa"
