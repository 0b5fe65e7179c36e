"""The table of what is proven of the CUDA kernels without a GPU: that the kept one is of today's kernels, what it must
say, and a slice of it made anew; and machine code for every architecture."""

import dataclasses
import json

import pytest
import torch

from normlab import watch
from normlab.cuda import proof

ahead = pytest.importorskip("normlab.cuda.ahead")
if reason := watch.why_not():
    pytest.skip(f"{reason} Not checked: the kernels' machine code and traffic.", allow_module_level=True)


@pytest.fixture(scope="module")
def kept(repo):
    return json.loads((repo / "book/cuda_proof.json").read_text(encoding="utf-8"))


def rows_of(kept, **wanted):
    return [row for row in kept["rows"] if all(row[name] == value for name, value in wanted.items())]


def test_the_kept_table_is_of_these_kernels(kept):
    """If this fails: python -m normlab.cuda.proof --json book/cuda_proof.json"""
    assert kept["made"] == {"sha256": proof.source_hash(), **proof.versions()}
    expected = {(str(op), dtype, way) for op in proof.OPS for dtype in proof.DTYPES for way in proof.DIRECTIONS}
    assert {(row["op"], row["dtype"], row["direction"]) for row in kept["rows"]} == expected
    architectures = {str(arch) for arch in ahead.ARCHITECTURES}
    assert all(row["builds"].keys() == architectures for row in kept["rows"])


def test_nothing_spills_and_everything_fits(kept):
    for row in kept["rows"]:
        for arch, build in row["builds"].items():
            assert build["spills"] == 0, (row["op"], row["direction"], arch)
            assert build["problems"] == []


def test_aligned_numbers_are_loaded_sixteen_bytes_at_a_time(kept):
    assert all(build["loads_128"] > 0 for row in kept["rows"] for build in row["builds"].values())


def test_errors_are_a_few_units_in_the_last_place(kept):
    """In half types one rounding, at the end. In float32 sums are rounded too, and of x_hat with a mean far from 0."""
    for row in kept["rows"]:
        limit = 16 if row["dtype"] == "float32" else 4
        # dweight and dbias are float32 in either, and sums over all rows.
        assert row["error"] < (limit if row["direction"] == "forward" else 16), row


def test_traffic_is_compulsory(kept):
    """Rows are read once where a program can hold them, and twice where not. Batch norm reads twice."""
    for row in kept["rows"]:
        twice = row["op"].startswith("batch_norm")
        for which, moved in row["traffic"].items():
            for name, share in moved.items():
                written = name in ("y", "dx") and (row["direction"] == "forward" or name == "dx")
                again = twice or (which == "wide" and row["op"] != "cross_entropy")
                least = 1 if written or not again else 2
                # Cross entropy reads the target's logit a second time.
                assert least <= share <= least + (0.001 if row["op"] == "cross_entropy" else 0), (row, name)


SLICE = [("layer_norm", "float32"), ("group_norm", "bfloat16"), ("cross_entropy", "float16")]


@pytest.mark.parametrize(("name", "dtype"), SLICE, ids=str)
def test_a_slice_made_anew_says_the_same(name, dtype, kept):
    op = next(op for op in proof.OPS if str(op) == name)
    small = dataclasses.replace(op, wide=None)
    for direction, row in proof.interpreted(small, getattr(torch, dtype)).items():
        (same,) = rows_of(kept, op=name, dtype=dtype, direction=direction)
        assert row["traffic"]["whole"] == same["traffic"]["whole"]
        assert row["error"] <= same["error"] * 1.5 + 1e-9  # that one is the worst of long pools, too


LARGEST = {
    "layer_norm": ((4096, 8192), (4096, 16384), (4096, 65536)),
    "group_norm": ((8, 512, 32, 32), (2, 64, 256, 256)),
    "batch_norm": ((8, 64, 64, 64),),
    "batch_norm NHWC": ((8, 512, 32, 32),),
    "softmax": ((4096, 16384), (4096, 32768), (4096, 65536)),
    "log_softmax of columns": ((8, 512, 1024),),
    "cross_entropy": ((4096, 32768),),
}


@pytest.fixture(scope="module")
def wanted():
    """{op, direction: [Launch]} of float32 at the largest tiles."""
    ops = {str(op): op for op in proof.OPS}
    return {
        (name, direction): found
        for name, shapes in LARGEST.items()
        for direction, found in proof.launches(ops[name], torch.float32, shapes).items()
    }


# The oldest and the newest: instructions and limits of the others lie between. The kept table has all.
SAMPLE = (min(ahead.ARCHITECTURES), max(ahead.ARCHITECTURES))
ARCHITECTURES = [
    arch if arch in SAMPLE else pytest.param(arch, marks=pytest.mark.exhaustive) for arch in ahead.ARCHITECTURES
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request, wanted):
    """Of one architecture: its name and {op, direction: summary}."""
    compiled = proof.compiled(wanted, (request.param,))
    return request.param, {key: summaries[request.param] for key, summaries in compiled.items()}


def test_the_largest_tiles_compile_without_spills(built):
    _, summaries = built
    assert summaries.keys() == {(op, direction) for op in LARGEST for direction in proof.DIRECTIONS}
    for (op, direction), found in summaries.items():
        assert found["problems"] == []
        assert found["spills"] == 0, (op, direction)
        assert found["loads_128"] > 0, (op, direction)
        assert found["registers"] <= 255


def test_machine_code_made_anew_is_what_the_table_says(built, kept):
    """The table's row is the most of more shapes."""
    arch, summaries = built
    for (op, direction), found in summaries.items():
        (same,) = rows_of(kept, op=op, dtype="float32", direction=direction)
        assert found["registers"] <= same["builds"][str(arch)]["registers"]


def test_what_spills_is_told():
    """A tile of twice the largest: 65,536 numbers in 1,024 threads."""
    op = next(op for op in proof.OPS if op.name == "softmax" and op.dim == -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normlab.cuda.plan.ONE_PASS", 65536)
        wanted = {"": proof.launches(op, torch.float32, [(64, 65536)])["forward"]}
    found = proof.compiled(wanted, (90,))[""][90]
    assert found["spills"] > 0
    assert "spills" in found["problems"][0]


def test_the_command_line_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(watch, "why_not", lambda: "Because.")
    assert proof.main([]) == 2
    assert capsys.readouterr().err == "Because.\n"


def test_the_table_of_the_terminal_has_a_line_for_each_row(kept):
    assert proof.table(kept["rows"]).row_count == len(kept["rows"])
