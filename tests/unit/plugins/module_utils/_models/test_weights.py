from __future__ import annotations

import json

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import weights
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.weights import Model, WeightFile
from helpers.bounded import ends
from helpers.weights import GOOD, entry, packed


def read(data: bytes, size: int | None = None):
    return weights.read_header("draft x", WeightFile(len(data) if size is None else size, data))


def test_a_whole_file():
    assert read(GOOD) == ({"a": ("BF16", [2, 3]), "b": ("F8_E4M3", [4])}, [])


def test_an_unknown_dtype_is_not_held_against_its_shape():
    assert read(packed({"a": entry([7], 0, 3, "F6_NEW")}, bytes(3)))[1] == []


@pytest.mark.parametrize(
    ("data", "size", "expected"),
    [
        (GOOD, len(GOOD) - 1, f"expected {len(GOOD)} bytes, seen {len(GOOD) - 1}"),
        (GOOD + b"x", None, f"expected {len(GOOD)} bytes, seen {len(GOOD) + 1}"),
        (b"", None, "seen 0 bytes"),
        (GOOD[:5], None, "seen 5 bytes"),
        (b"\xff" * 64, None, "a header of 18446744073709551615 bytes in a file of 64"),
        (GOOD[:40], None, "a header of"),
        (packed(b"{", b""), None, "a safetensors header, seen line 1, column 2: Expecting property name"),
        (packed(b"[]", b""), None, "AttributeError"),
        (packed({"a": {"shape": [1]}}, b""), None, "KeyError"),
        (packed({"a": entry([2], 0, 4), "b": entry([2], 6, 10)}, bytes(10)), None, "x b: expected bytes 4 to 8, seen 6 to 10"),
        (packed({"a": entry([2], 0, 4), "b": entry([2], 2, 6)}, bytes(6)), None, "x b: expected bytes 4 to 8, seen 2 to 6"),
        (packed({"a": entry([3], 0, 4)}, bytes(4)), None, "x a: expected bytes 0 to 6, seen 0 to 4"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole(data, size, expected):
    _, (problem,) = read(data, size)
    assert expected in str(problem)
    assert "verify the snapshot" in str(problem)


HANGS = """
from {home} import WeightFile, read_header
for one in ("1", "9223372036854775807"):
    header = ('{{"a": {{"dtype": "F4", "data_offsets": [0, 1], "shape": [' + ", ".join([one] * 150_000) + "]}}}}").encode()
    data = len(header).to_bytes(8, "little") + header + b"x"
    (problem,) = read_header("draft x", WeightFile(len(data), data))[1]
    print(problem)
"""


def test_a_shape_without_end_is_refused_at_once():
    told = ends(HANGS.format(home=weights.__name__))
    assert told.count("a shape of at most 16 sizes, seen [") == 2 and told.count("verify the snapshot") == 2


@pytest.mark.parametrize("size", ["-1", "1.5", "true", '"7"', "18446744073709551616", "null"])
@pytest.mark.parametrize("where", ["shape", "begin", "end"])
def test_a_size_that_is_none_is_told(size, where):
    values = {"shape": "1", "begin": "0", "end": "2"} | {where: size}
    entry = '"dtype": "BF16", "shape": [{shape}], "data_offsets": [{begin}, {end}]'.format(**values)
    header = f'{{"a": {{{entry}}}}}'
    _, (problem,) = read(packed(header.encode(), bytes(2)))
    assert "expected a safetensors header, seen ValueError: expected a whole number from 0 to" in str(problem)


@pytest.mark.parametrize(
    ("size", "seen"), [("1e400", "the number 1e400"), ("1" * 30, "a number of 30 digits")]
)
def test_a_number_that_no_reader_takes_is_told(size, seen):
    _, (problem,) = read(packed(f'{{"a": {{"shape": [{size}]}}}}'.encode(), bytes(2)))
    assert f"expected a safetensors header, seen {seen}" in str(problem)


def test_a_header_that_nests_for_ever_is_told():
    _, (problem,) = read(packed(b"[" * 100_000, b""))
    assert "expected a safetensors header, seen nested deeper than 64 levels" in str(problem)


def model(index, name=weights.INDEX):
    files = {"one.safetensors": WeightFile(len(GOOD), GOOD)}
    return Model("body", b"{}", {name: json.dumps(index).encode()}, files)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}, "expected two.safetensors, which 1 tensors are in, seen no such file"),
        ({"weight_map": {"a": "one.safetensors", "c": "one.safetensors"}}, "1 of them missing (c)"),
        ({}, "expected a weight_map"),
        ([], "expected a weight_map"),
    ],
)  # fmt: skip
def test_an_index_that_the_files_do_not_keep(index, expected):
    *_, (problem,) = weights.read_weights(model(index))
    assert expected in str(problem)


def test_an_index_that_the_files_keep():
    assert (
        weights.read_weights(model({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))[2] == []
    )


def test_the_index_of_mistrals_layout_is_kept_as_well():
    *_, (problem,) = weights.read_weights(model({"weight_map": {"c": "two.safetensors"}}, weights.INDEXES[1]))
    assert "body consolidated.safetensors.index.json: expected two.safetensors" in str(problem)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"weight_map": null}', b'{"weight_map": {"a": 5}}']
)
def test_an_index_that_cannot_be_read_is_told(text):
    files = {"one.safetensors": WeightFile(len(GOOD), GOOD)}
    *_, (problem,) = weights.read_weights(Model("body", b"{}", {weights.INDEX: text}, files))
    assert "expected a weight_map of {tensor: file}" in str(problem)
