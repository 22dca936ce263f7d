"""The order of the layers of nets that have different ones."""

import pandas as pd
import pytest

from ablations.store.series import layer_orders

SHALLOW = ("blocks.0", "blocks.1", "class_blocks.0")
DEEP = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "class_blocks.0", "class_blocks.1")


def rows(*nets: tuple[str, ...], epoch: int = 1) -> pd.DataFrame:
    """Return two probes of each net's layers; each net is a cell."""
    own = [(str(cell), epoch, layer) for cell, net in enumerate(nets) for layer in net for _ in range(2)]
    return pd.DataFrame(own, columns=["cell", "epoch", "layer"])


@pytest.mark.parametrize(
    ("nets", "expected"),
    [
        ([SHALLOW], SHALLOW),
        ([SHALLOW, DEEP], DEEP),
        ([DEEP, SHALLOW], DEEP),
        ([("b", "c"), ("a", "b")], ("a", "b", "c")),
        ([SHALLOW, ("stages.0", "stages.1")], (*SHALLOW, "stages.0", "stages.1")),
        ([("a", "b"), ("b", "a")], ("a", "b")),
        ([], ()),
    ],
)
def test_each_net_has_its_layers_in_order(nets, expected):
    assert layer_orders(rows(*nets)) == {layer: order for order, layer in enumerate(expected)}


def test_a_layer_of_a_later_epoch_has_a_place_too():
    late = rows(("blocks.0", "blocks.1"), epoch=2)
    assert layer_orders(pd.concat([rows(("blocks.0",)), late])) == {"blocks.0": 0, "blocks.1": 1}
