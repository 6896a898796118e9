"""What the plain data says about itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.nets import NETS, traced

from compress.core.topology import ChannelGroup, GroupId, Layer, LayerName, Member, Role, TensorInfo, Topology

every_net = pytest.mark.parametrize("name", NETS)


@every_net
def test_flat_tables_say_what_positions_say(name: str) -> None:
    topology = traced(name)[1]
    for group in topology.groups:
        for m, (key, dim, taken) in zip(group.members, topology.occupancy[group.id], strict=True):
            assert (key, dim) == (m.key, m.dim) and taken.tolist() == [len(p) for p in m.positions]
            indices, owners = topology.flat[group.id, (m.key, m.dim)]
            assert [tuple(indices[owners == c]) for c in range(group.size)] == list(m.positions)
            assert (group.id, m) in topology.slots[m.key, m.dim]


@every_net
def test_orbits_partition_the_channels(name: str) -> None:
    for group in traced(name)[1].groups:
        orbits = group.orbits()
        assert sorted(c for orbit in orbits for c in orbit) == list(range(group.size))
        for orbit in orbits:
            for m in group.members:
                assert len({len(m.positions[c]) for c in orbit}) == 1


def test_an_option_a_stream_has_an_orbit_for_each_width() -> None:
    topology = traced("option-a")[1]
    assert sorted(map(len, topology.by_id[GroupId("stem.0")].orbits())) == [4, 6]
    assert all(len(g.orbits()) == 1 for g in traced("residual")[1].groups)


def test_kinds_set_channels_apart() -> None:
    member = Member("w", 0, Role.WRITES, ((0,), (1,), (2,)))
    assert ChannelGroup(GroupId("w"), 3, (member,)).orbits() == ((0, 1, 2),)
    assert ChannelGroup(GroupId("w"), 3, (member,), (0, 1, 0)).orbits() == ((0, 2), (1,))


def test_writers_and_readers() -> None:
    def names(layers: tuple[Layer, ...]) -> list[str]:
        return [layer.name for layer in layers]

    residual = traced("residual")[1]
    assert names(residual.writers(GroupId("stem.0"))) == ["stem.0", "b.0"]
    assert names(residual.readers(GroupId("stem.0"))) == ["a.0", "head.2"]
    narrow = traced("depthwise")[1]
    assert names(narrow.writers(GroupId("0.0"))) == ["0.0"]  # the depthwise layer follows, it makes nothing
    assert names(narrow.readers(GroupId("0.0"))) == ["2.0"]
    assert names(traced("transposed")[1].writers(GroupId("1"))) == ["1"]
    assert names(traced("shared")[1].readers(GroupId("stem.0"))) == ["both", "last.0"]


def test_dimensions_and_tables_of_layers() -> None:
    conv = Layer(LayerName("a"), "conv", "a.weight")
    up = Layer(LayerName("a"), "conv_transpose", "a.weight")
    assert (conv.write_dim, conv.read_dim, up.write_dim, up.read_dim) == (0, 1, 1, 0)
    assert conv.selection == "a.reads"


@every_net
def test_the_whole_is_the_sum_of_its_tensors(name: str) -> None:
    model, topology = traced(name)
    macs, params = topology.whole
    assert params == sum(p.numel() for p in model.parameters())
    assert macs == topology.fixed_macs + sum(t.sites * math.prod(t.shape) for t in topology.tensors.values())
    assert list(topology.tensors) == list(model.state_dict())


def test_digests_tell_structures_apart_and_ignore_weights() -> None:
    digests = {traced(name)[1].digest for name in NETS}
    assert len(digests) == len(NETS) - 1  # "frozen" is "chain"
    assert traced("frozen")[1].digest == traced("chain")[1].digest


@every_net
def test_json_is_json(name: str) -> None:
    topology = traced(name)[1]
    data = json.loads(json.dumps(topology.to_json()))
    assert [g["size"] for g in data["groups"]] == [g.size for g in topology.groups]
    assert data["digest"] == topology.digest and data["frozen"] == dict(topology.frozen)


def test_an_empty_topology_costs_nothing() -> None:
    empty = Topology((), {"a": TensorInfo((2, 3), False)}, ())
    assert empty.whole == (0, 0) and empty.slots == {} and empty.flat == {} and np.prod(empty.example) == 1
