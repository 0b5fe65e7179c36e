"""What is proven of the kernels for CUDA without a GPU, as one table.

    python -m normlab.cuda.proof                 the table: some minutes
    python -m normlab.cuda.proof --json FILE     the same, kept as the book keeps it

A row is an op, a dtype and a direction. Its numbers:

    error      the largest error in Triton's interpreter against PyTorch in float64, over several inputs, in units in
               the last place of the result's type at the result's scale
    traffic    bytes moved of each tensor over its own bytes: for pools that a program holds whole, and for long ones
    registers, spills, loads of 128 bits and narrower ones: what the machine code of each architecture says

Times are not here: no GPU runs.
"""

import argparse
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

DTYPES = ("float32", "float16", "bfloat16")
DIRECTIONS = ("forward", "backward")
EPS = 1e-5


@dataclass(frozen=True)
class Op:
    """An op, with the shapes of x it is tried on. `dim` is softmax's axis, `groups` group norm's number of groups.

    whole: a small x whose pools are held whole; wide: one with long pools, None where that makes no difference.
    compiled: shapes at which the kernels are compiled, the largest tiles among them.
    """

    name: str
    whole: tuple
    wide: tuple | None
    compiled: tuple
    dim: int = -1
    groups: int = 1
    layout: str = ""

    def __str__(self):
        where = {1: " of columns"}.get(self.dim, "") if "softmax" in self.name else ""
        return f"{self.name}{where}{' NHWC' if self.layout else ''}"

    @property
    def has_bias(self):
        return self.name in ("layer_norm", "group_norm", "instance_norm", "batch_norm")

    @property
    def has_weight(self):
        return self.has_bias or self.name == "rms_norm"


ROWS = tuple((4096, size) for size in (64, 1024, 4096, 8192, 16384, 32768, 65536))
IMAGES = ((8, 64, 64, 64), (8, 512, 32, 32), (2, 64, 256, 256))
OPS = (
    Op("layer_norm", (64, 1024), (2, 65536), ROWS),
    Op("rms_norm", (64, 1024), (2, 65536), ROWS),
    Op("instance_norm", (4, 8, 16, 16), (1, 2, 256, 256), (*IMAGES, (4, 64, 32768)), groups=8),
    Op("group_norm", (4, 16, 16, 16), (1, 4, 160, 160), (*IMAGES, (2, 64, 512)), groups=2),
    Op("batch_norm", (16, 8, 16, 16), None, (*IMAGES, (4096, 1024))),
    Op("batch_norm", (16, 64, 8, 8), None, IMAGES, layout="channels_last"),
    Op("softmax", (64, 1024), (2, 65536), ROWS),
    Op("log_softmax", (64, 1024), (2, 65536), ROWS),
    Op("softmax", (2, 64, 64), (1, 2048, 64), ((8, 64, 4096), (8, 256, 4096), (8, 512, 1024), (8, 4096, 512)), dim=1),
    Op("log_softmax", (2, 64, 64), (1, 2048, 64), ((8, 256, 4096), (8, 512, 1024), (8, 4096, 512)), dim=1),
    Op("cross_entropy", (64, 1024), (2, 65536), ((4096, 1024), (4096, 32768), (4096, 128256), (8, 64, 64, 64))),
)


def tensors(op, shape, dtype, device="cpu", values=None):
    """{name: tensor} of what goes in; on the device "meta" nothing is drawn. `values` makes x of normal numbers."""
    import torch

    random = torch.Generator().manual_seed(0)

    def normal(*sizes):
        if device == "meta":
            return torch.empty(sizes, dtype=dtype, device=device)
        return torch.randn(sizes, generator=random)

    x = normal(*shape)
    x = (values(x) if values else x).to(dtype)
    dy = normal(*(() if op.name == "cross_entropy" else shape)).to(dtype)
    if op.layout:
        x, dy = (t.to(memory_format=getattr(torch, op.layout)) for t in (x, dy))
    t = {"x": x, "dy": dy, "weight": None, "bias": None, "target": None}
    if op.has_weight:
        channels = shape[-1] if op.name in ("layer_norm", "rms_norm") else shape[1]
        t["weight"] = normal(channels).to(dtype)
        t["bias"] = normal(channels).to(dtype) if op.has_bias else None
    if op.name == "cross_entropy":
        count = shape[0] * math.prod(shape[2:])
        t["target"] = (torch.arange(count, device=device) * 7 % shape[1]).reshape(shape[0], *shape[2:])
    return t


def _spec(op, shape):
    """num_groups, channels, positions, eps and whether it is centered."""
    if op.name in ("layer_norm", "rms_norm"):
        return 1, shape[-1], 1, EPS, op.name == "layer_norm"
    num_groups = shape[1] if op.name == "instance_norm" else op.groups
    return num_groups, shape[1] // num_groups, math.prod(shape[2:]), EPS, True


def forward(op, t):
    """({name: result}, what the backward needs), by the kernels."""
    from normlab.cuda import ops

    x, weight, bias = t["x"], t["weight"], t["bias"]
    if op.name == "batch_norm":
        y, saved = ops.batch_norm_forward(x, weight, bias, None, None, EPS)
    elif op.has_weight:
        y, saved = ops.row_norm_forward(x, weight, bias, *_spec(op, x.shape))
    elif op.name == "cross_entropy":
        y, saved = ops.cross_entropy_forward(x, t["target"], None, 1, -100, 0.0)
    else:
        y = saved = ops.softmax_forward(x, op.dim % x.dim(), op.name == "log_softmax")
    return {"y": y}, saved


def backward(op, t, saved):
    """{name: gradient}, by the kernels."""
    from normlab.cuda import ops

    x, dy, weight = t["x"], t["dy"], t["weight"]
    if op.name == "batch_norm":
        found = ops.batch_norm_backward(dy, x, weight, saved, EPS, True, True, True)
    elif op.has_weight:
        found = ops.row_norm_backward(dy, x, weight, saved, *_spec(op, x.shape), True, True)
    elif op.name == "cross_entropy":
        found = (ops.cross_entropy_backward(dy, x, t["target"], None, saved, -100, 0.0),)
    else:
        found = (ops.softmax_backward(dy, saved, op.dim % x.dim(), op.name == "log_softmax"),)
    names = ("dx", "dweight", "dbias") if op.has_bias else ("dx", "dweight")
    return dict(zip(names, found, strict=False))


def truths(op, t):
    """{name: result and gradients} by PyTorch in float64."""
    import torch
    from torch.nn import functional

    leaves = {n: v.double().requires_grad_() for n, v in t.items() if n in ("x", "weight", "bias") and v is not None}
    x, weight, bias = (leaves.get(name) for name in ("x", "weight", "bias"))
    if op.name == "layer_norm":
        y = functional.layer_norm(x, x.shape[-1:], weight, bias, EPS)
    elif op.name == "rms_norm":
        y = functional.rms_norm(x, x.shape[-1:], weight, EPS)
    elif op.name == "instance_norm":
        y = functional.instance_norm(x, None, None, weight, bias, eps=EPS)
    elif op.name == "group_norm":
        y = functional.group_norm(x, op.groups, weight, bias, EPS)
    elif op.name == "batch_norm":
        y = functional.batch_norm(x, None, None, weight, bias, True, eps=EPS)
    elif op.name == "cross_entropy":
        y = functional.cross_entropy(x, t["target"])
    else:
        y = getattr(functional, op.name)(x, op.dim)
    gradients = torch.autograd.grad(y, list(leaves.values()), t["dy"].double())
    return {"y": y.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


# ---- Numbers and traffic, in the interpreter -------------------------------------------------------------------------


def hundreds(x):
    """Whole numbers of either sign whose squares overflow float16."""
    return (260 + 70 * x.abs().clamp(max=2)).round().copysign(x)


INPUTS = {"normal": None, "a thousandth": lambda x: x * 1e-3, "off by 10": lambda x: x + 10, "hundreds": hundreds}


def units(found, truth):
    """The largest error, in units in the last place of found's type at the truth's scale."""
    import torch

    scale = truth.abs().max().clamp(min=1e-300)
    return float((found.double() - truth).abs().max() / scale / torch.finfo(found.dtype).eps)


def interpreted(op, dtype):
    """{direction: {"error": ..., "traffic": {"whole": {tensor: times}, "wide": ...}}}; nothing is faulty, or Faulty."""
    from normlab import watch

    rows = {direction: {"error": 0.0, "traffic": {}} for direction in DIRECTIONS}
    for which, shape in (("whole", op.whole), ("wide", op.wide)):
        for name, values in INPUTS.items() if shape else ():
            t = tensors(op, shape, dtype, values=values)
            right = truths(op, t)
            with watch.watched(order=0) as seen:
                results, saved = forward(op, t)
            moved = {"forward": (seen, {"x": t["x"]} | results)}
            seen.check()
            with watch.watched(order=1) as seen:
                gradients = backward(op, t, saved)
            read = {"y": results["y"]} if "softmax" in op.name else {"x": t["x"]}
            read |= {"dy": t["dy"]} if t["dy"].dim() else {}  # a single number, cached, is not traffic
            moved["backward"] = (seen, read | {"dx": gradients["dx"]})
            seen.check()
            for direction, found in (("forward", results), ("backward", gradients)):
                row = rows[direction]
                row["error"] = max(row["error"], *(units(value, right[n]) for n, value in found.items()))
                if name == "normal":
                    row["traffic"][which] = {n: times(moved[direction][0], v) for n, v in moved[direction][1].items()}
    return rows


def times(seen, tensor):
    """Bytes loaded from and stored to a tensor over its own bytes."""
    return (seen.loaded(tensor) + seen.stored(tensor)) / tensor.nbytes


# ---- Machine code ----------------------------------------------------------------------------------------------------


def launches(op, dtype, shapes=None):
    """{direction: [Launch]}: what the op would launch at its `compiled` shapes."""
    import torch

    from normlab.cuda import ahead

    found = {direction: [] for direction in DIRECTIONS}
    for shape in shapes or op.compiled:
        t = tensors(op, shape, dtype, "meta")
        with ahead.recording() as made:
            _, saved = forward(op, t)
        found["forward"] += made
        if saved.dtype is not torch.float32 and "softmax" not in op.name:
            raise TypeError(f"{op} keeps {saved.dtype}")
        with ahead.recording() as made:
            backward(op, t, saved)
        found["backward"] += made
    return found


def summary(builds):
    """What the builds of one architecture come to: registers of a thread at most, bytes spilled, and of the kernel with
    the most loads of 128 bits those and its narrower ones; what does not fit the card, in sentences."""
    widest = max(builds, key=lambda build: build.loads.get(128, 0))
    return {
        "registers": max(build.registers for build in builds),
        "spills": sum(build.spill_stores + build.spill_loads for build in builds),
        "loads_128": widest.loads.get(128, 0),
        "loads_narrower": sum(count for bits, count in widest.loads.items() if bits < 128),
        "problems": [problem for build in builds for problem in build.problems],
    }


def compiled(wanted, architectures, progress=None):
    """{key: {architecture: summary}} of {key: [Launch]}."""
    from normlab.cuda import ahead

    every = list({str(launch): launch for found in wanted.values() for launch in found}.values())
    built = {(b.launch, b.arch): b for b in ahead.build_all(every, architectures, progress=progress)}
    return {
        key: {arch: summary([built[str(launch), arch] for launch in found]) for arch in architectures}
        for key, found in wanted.items()
    }


# ---- The table -------------------------------------------------------------------------------------------------------


def source_hash():
    """Of the kernels and of what launches them: whatever the table's numbers follow from."""
    files = ("columns", "groups", "loss", "ops", "plan", "proof", "rows", "softmax")
    content = b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in files)
    return hashlib.sha256(content).hexdigest()


def prove(ops=OPS, dtypes=DTYPES, architectures=None, progress=lambda *done: None):
    """The rows: one for each op, dtype and direction."""
    import torch

    from normlab.cuda import ahead

    wanted, rows = {}, {}
    for number, (op, name) in enumerate((op, name) for op in ops for name in dtypes):
        progress("interpreted", number, len(ops) * len(dtypes))
        dtype = getattr(torch, name)
        for direction, found in launches(op, dtype).items():
            wanted[op, name, direction] = found
        for direction, row in interpreted(op, dtype).items():
            rows[op, name, direction] = row
    built = compiled(
        wanted, architectures or ahead.ARCHITECTURES, lambda done, total: progress("compiled", done, total)
    )
    return [
        {"op": str(op), "dtype": name, "direction": direction, **row, "builds": built[op, name, direction]}
        for (op, name, direction), row in rows.items()
    ]


def versions():
    import numpy
    import torch
    import triton

    return {"triton": triton.__version__, "torch": torch.__version__.split("+")[0], "numpy": numpy.__version__}


def table(rows):
    """The rows for a terminal."""
    from rich.table import Table

    shown = Table(title="CUDA kernels, proven without a GPU")
    for heading in (
        "op",
        "dtype",
        "",
        "error, ulp",
        "traffic",
        "traffic, long pools",
        "registers",
        "spills",
        "LDG.128",
    ):
        shown.add_column(heading)
    for row in rows:
        builds = row["builds"].values()
        spread = sorted({build["registers"] for build in builds})
        moved = [
            " ".join(f"{name} {share:.2f}" for name, share in row["traffic"].get(which, {}).items())
            for which in ("whole", "wide")
        ]
        loads = sorted({f"{build['loads_128']}+{build['loads_narrower']}" for build in builds})
        spills = str(sum(build["spills"] for build in builds))
        registers = f"{spread[0]}-{spread[-1]}"
        cells = (row["op"], row["dtype"], row["direction"], f"{row['error']:.1f}", *moved, registers, spills)
        shown.add_row(*cells, ", ".join(loads))
    return shown


def main(argv=None):
    """The command line; returns the exit status: 0, 1 if something does not hold, 2 if something is missing."""
    parser = argparse.ArgumentParser(prog="python -m normlab.cuda.proof", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to FILE")
    options = parser.parse_args(argv)
    from normlab import watch

    reason = watch.why_not()
    if not reason:
        from normlab.cuda import ahead

        reason = ahead.why_not()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks = {what: bar.add_task(what, total=1) for what in ("interpreted", "compiled")}
        rows = prove(progress=lambda what, done, total: bar.update(tasks[what], completed=done, total=total))
    if options.json:
        made = {"sha256": source_hash(), **versions()}
        lines = ",\n".join(json.dumps(row) for row in rows)
        options.json.write_text(f'{{"made": {json.dumps(made)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console.width = 180
    console.print(table(rows))
    problems = [problem for row in rows for build in row["builds"].values() for problem in build["problems"]]
    for problem in dict.fromkeys(problems):
        console.print(problem, markup=False)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
