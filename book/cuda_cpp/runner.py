"""Compiles a .cu file with g++ and runs it without a GPU: every thread is a fiber, and whoever breaks a rule is named.

    source = runner.read("softmax.cu")
    y = np.zeros_like(x)
    runner.run(source, x, y, *x.shape)   # its one extern "C" function, in place; raises Broken

    python book/cuda_cpp/runner.py check FILE.cu   softmax_rows or layer_norm_rows of a file, on rows that break kernels
    python book/cuda_cpp/runner.py record          runs the page and keeps what it computed, for machines without g++

Where g++ is missing, `run` and `registers` answer from recorded.json what that page asks, and nothing else.
"""

import atexit
import base64
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RECORD = HERE / "recorded.json"
# Where it is set, everything that is computed is added to the record in this file.
RECORDING = "NORMLAB_RECORD_CUDA_CPP"

# Precise where CUDA is: no fusing of a product into a sum, so that every machine computes the same. A frame larger than
# a quarter of a fiber's stack is refused.
KERNEL_FLAGS = (
    "-O0 -g1 -ffp-contract=off -fno-exceptions -Werror=frame-larger-than=16384 "
    "-fsanitize=thread -fsanitize-coverage=trace-pc"
).split()
GUARD = 1 << 16  # bytes around each array that belong to no array
LAUNCH = re.compile(r"(\w+)\s*<<<(.+?)>>>\s*\(", re.DOTALL)
DYNAMIC = re.compile(r"extern\s+__shared__\s+(\w+)\s+(\w+)\s*\[\s*\]\s*;")
ENTRY = re.compile(r'extern\s+"C"\s+void\s+(\w+)\s*\(([^)]*)\)\s*\{')
# "softmax.cu:24: error: ..." becomes "line 24: ..."
COMPLAINT = re.compile(r"^[^:\n]*\.cu:(\d+):\d+: (?:fatal )?error: (.*)$", re.MULTILINE)


class Broken(Exception):
    """A kernel broke a rule of CUDA; the message says which thread, where, and what stands in those lines."""


class NotCompiled(Exception):
    """g++ or nvcc refuses the source; the message is its first complaint."""


class NotRecorded(Exception):
    """There is no compiler here, and the record does not hold this launch."""


# ---- Reading ---------------------------------------------------------------------------------------------------------


def read(name):
    """The text of a .cu file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def replace(source, old, new, count=1):
    """`source` with `old` replaced by `new`, everywhere: it must stand there `count` times, else ValueError."""
    found = source.count(old)
    if found != count:
        raise ValueError(f"{old!r} stands {found} times in the source, and not {count}")
    return source.replace(old, new)


def as_cpp(source):
    """CUDA C++ as C++: the two things that no macro can mend, the launch and dynamic shared memory, are rewritten."""
    text = LAUNCH.sub(r"fibers::with(\1, \2)(", source)
    text = DYNAMIC.sub(r"auto *\2 = reinterpret_cast<\1 *>(fibers::dynamic_memory);", text)
    return f'#include "fibers.h"\n#line 1 "kernel.cu"\n{text}'


def entry(source):
    """Name of the one extern "C" function, and its parameters as (name, ctypes type; None for a pointer)."""
    found = ENTRY.findall(source)
    if len(found) != 1:
        raise ValueError(f'a .cu file has one function with extern "C", and this has {len(found)}')
    types = {"int": ctypes.c_int, "float": ctypes.c_float, "unsigned": ctypes.c_uint, "size_t": ctypes.c_size_t}
    parameters = []
    for text in found[0][1].split(","):
        *words, name = text.replace("*", " * ").split()
        parameters.append((name, None if "*" in words else types[" ".join(w for w in words if w != "const")]))
    return found[0][0], parameters


# ---- Compiling -------------------------------------------------------------------------------------------------------


def find(tool):
    """Path of a program, or None."""
    return shutil.which(tool)


def compiler():
    """Path of g++, or None where there is none or the system is not Linux: fibers.cpp reads what its linker leaves."""
    return find("g++") if sys.platform == "linux" else None


@functools.cache
def folder():
    """A folder for what is compiled, as long as this process lives."""
    made = tempfile.mkdtemp(prefix="fibers")
    atexit.register(shutil.rmtree, made)
    return Path(made)


def command(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, encoding="utf-8", cwd=HERE)
    if done.returncode:
        line = COMPLAINT.search(done.stderr)
        raise NotCompiled(f"line {line[1]}: {line[2]}" if line else done.stderr.strip())
    return done.stdout + done.stderr


@functools.cache
def fibers(gxx):
    """fibers.cpp as an object file. It is compiled without -fsanitize: it must not watch itself."""
    out = folder() / "fibers.o"
    command(gxx, "-std=gnu++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-c", HERE / "fibers.cpp", "-o", out)
    return out


@functools.cache
def library(source):
    """`source` as a loaded shared library. Errors: NotCompiled."""
    gxx = compiler()
    stem = folder() / hashlib.sha256(source.encode()).hexdigest()[:16]
    cpp, kernel, shared = (stem.with_suffix(end) for end in (".cpp", ".o", ".so"))
    cpp.write_text(as_cpp(source), encoding="utf-8")
    command(gxx, "-std=gnu++17", *KERNEL_FLAGS, "-fPIC", "-I", HERE, "-c", cpp, "-o", kernel)
    command(gxx, "-shared", kernel, fibers(gxx), "-o", shared, "-ldl")
    loaded = ctypes.CDLL(str(shared))
    loaded.fibers_begin.argtypes = [ctypes.c_uint64, ctypes.c_int]
    loaded.fibers_array.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    loaded.fibers_report.restype = ctypes.c_char_p
    return loaded


# ---- Running ---------------------------------------------------------------------------------------------------------


def lines(report, source, shared):
    """`report` with {12} and {@1f} replaced by the number of the line, and the lines themselves below."""
    numbers = []

    def number(match):
        line = match[1]
        if line.startswith("@"):
            found = command("addr2line", "-e", shared, f"0x{line[1:]}") if find("addr2line") else ""
            known = re.search(r"kernel\.cu:(\d+)", found)
            if not known:
                return "(line unknown)"
            line = known[1]
        numbers.append(int(line))
        return f"(line {line})"

    sentence = re.sub(r"\{(@?[0-9a-f]+)\}", number, report)
    text = source.splitlines()
    return "\n".join([sentence, *(f"{n:5}: {text[n - 1].strip()}" for n in sorted(set(numbers)))])


def launch(source, arguments, seed, watch):
    """Run the extern "C" function of `source` on fibers; arrays change in place. Returns the report, or None."""
    name, parameters = entry(source)
    loaded = library(source)
    loaded.fibers_begin(seed, watch)
    arena = np.zeros(sum(GUARD + a.nbytes + 64 for a in arguments if isinstance(a, np.ndarray)) + GUARD, np.uint8)
    at, passed, copies = GUARD, [], []
    for (parameter, kind), argument in zip(parameters, arguments, strict=True):
        if kind is not None:
            passed.append(kind(argument))
            continue
        copy = arena[at : at + argument.nbytes].view(argument.dtype).reshape(argument.shape)
        copy[...] = argument
        copies.append((argument, copy))
        passed.append(ctypes.c_void_p(arena.ctypes.data + at))
        loaded.fibers_array(parameter.encode(), arena.ctypes.data + at, argument.nbytes, argument.itemsize)
        at += -(-argument.nbytes // 64) * 64 + GUARD
    getattr(loaded, name)(*passed)
    report = loaded.fibers_report().decode()
    for argument, copy in copies:
        argument[...] = copy
    return lines(report, source, loaded._name) if report else None


def run(source, *arguments, seed=0, watch=True):
    """Call the extern "C" function of a .cu source with NumPy arrays and numbers; arrays change in place.

    `seed` other than 0 permutes the order in which blocks and threads run. With `watch=False` races go unnoticed, and
    so does shared memory that is read before it is written; it holds NaN. Errors: Broken, NotCompiled; NotRecorded
    where there is no g++ and the record does not hold this call.
    """
    for argument in arguments:
        if isinstance(argument, np.ndarray) and not (argument.flags.c_contiguous and argument.flags.writeable):
            raise ValueError("a kernel gets arrays that are contiguous and can be written")
    ask = partial(digest, source, seed, watch, *(a for argument in arguments for a in described(argument)))
    arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
    if compiler():
        recording = RECORDING in os.environ
        key, before = (ask(), [a.tobytes() for a in arrays]) if recording else (None, [])
        report = launch(source, arguments, seed, watch)
        if recording:
            changed = [a.tobytes() if a.tobytes() != old else b"" for a, old in zip(arrays, before, strict=True)]
            keep("runs", key, {"report": report, "arrays": [base64.b64encode(bits).decode() for bits in changed]})
    else:
        kept = recall("runs", ask())
        report = kept["report"]
        for array, bits in zip(arrays, kept["arrays"], strict=True):
            if bits:
                array[...] = np.frombuffer(base64.b64decode(bits), array.dtype).reshape(array.shape)
    if report:
        raise Broken(report)


# ---- nvcc ------------------------------------------------------------------------------------------------------------

ARCHITECTURES = (75, 80, 90, 100, 120)


def registers(source):
    """What nvcc makes of the kernel of `source`: a list of dicts with `architecture`, `registers`, `spilled` and
    `shared` (both in bytes), one for each of ARCHITECTURES. Errors: NotCompiled; NotRecorded as for `run`."""
    key = digest(source, *ARCHITECTURES)
    nvcc = find("nvcc")
    if not nvcc:
        return recall("nvcc", key)["table"]
    cu = folder() / "kernel.cu"
    cu.write_text(source, encoding="utf-8")
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    said = command(nvcc, *targets, "-Xptxas", "-v", "-Werror", "all-warnings", "-c", cu, "-o", cu.with_suffix(".o"))
    table = []
    for part in said.split("Compiling entry function")[1:]:
        spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
        shared = re.search(r"(\d+) bytes smem", part)
        row = {"architecture": int(re.search(r"'sm_(\d+)'", part)[1])}
        row |= {"registers": int(re.search(r"Used (\d+) registers", part)[1])}
        table.append(row | {"spilled": spilled, "shared": int(shared[1]) if shared else 0})
    table.sort(key=lambda row: row["architecture"])
    if RECORDING in os.environ:
        keep("nvcc", key, {"version": nvcc_version(), "table": table})
    return table


def nvcc_version():
    """Release of the nvcc that is installed, or None."""
    nvcc = find("nvcc")
    return re.search(r"release [\d.]+, V([\d.]+)", command(nvcc, "--version"))[1] if nvcc else None


# ---- The record ------------------------------------------------------------------------------------------------------


def digest(*parts):
    """One name for a question: the same source and arguments, and the same fibers, have the same answer."""
    code = [(HERE / name).read_bytes() for name in ("fibers.h", "fibers.cpp")]
    return hashlib.sha256(b"\0".join(code + [str(part).encode() for part in parts])).hexdigest()[:16]


def described(argument):
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.shape, argument.tobytes()
    return (argument,)


def record_file():
    return Path(os.environ.get(RECORDING) or RECORD)


def load_record(path=RECORD):
    return json.loads(path.read_text(encoding="utf-8"))


def save(record):
    record_file().write_text(json.dumps(record, indent=0, sort_keys=True) + "\n", encoding="utf-8")


def keep(table, key, answer):
    record = load_record(record_file())
    record[table][key] = answer
    record["made"] = f"g++ {version()}, {platform.machine()}"
    save(record)


def recall(table, key):
    answers = load_record()[table]
    if key not in answers:
        raise NotRecorded("There is no compiler here, and this is not among the recorded answers.")
    return answers[key]


def version():
    return command(compiler(), "-dumpfullversion").strip()


def provenance():
    """A sentence: whether the numbers are computed here and now, or recorded."""
    if compiler():
        return f"Run on this machine, compiled with g++ {version()}."
    return f"There is no g++ here: what follows is recorded ({load_record()['made']})."


def provenance_of_registers():
    """Likewise for nvcc."""
    if find("nvcc"):
        return f"Compiled on this machine with nvcc {nvcc_version()}."
    versions = sorted({answer["version"] for answer in load_record()["nvcc"].values()})
    return f"There is no nvcc here: this is recorded, with nvcc {', '.join(versions)}."


# ---- A reader's kernel -----------------------------------------------------------------------------------------------


def rows():
    """(what it is, x) of float32 rows that break kernels."""
    rng = np.random.default_rng(0)
    for length in (1, 2, 31, 32, 33, 50, 64, 127, 128, 129, 300, 1024, 1100):
        yield f"rows of {length}", rng.normal(size=(3, length))
    yield "rows far from zero", rng.normal(size=(3, 300)) + 1e4
    yield "rows of large numbers", rng.normal(size=(3, 300)) * 100
    for name, value in {"-inf": -np.inf, "NaN": np.nan}.items():
        x = rng.normal(size=(3, 300))
        x[1, 7] = value
        x[2] = value
        yield f"rows with {name}, in one place and everywhere", x


def check(source):
    """What is wrong with `softmax_rows` or `layer_norm_rows` of a .cu source, in a sentence; None if nothing is."""
    from normlab import cases, reference  # the page does without

    name, _ = entry(source)
    for kind, x in rows():
        x = x.astype(np.float32)
        weight, bias = (a.astype(np.float32) for a in cases.affine(np.random.default_rng(1), x.shape[-1]))
        rounded = x.astype(np.float64) * (1 + np.random.default_rng(2).choice([-0.5, 0.5], x.shape) * 2**-23)
        formula = {"softmax_rows": reference.softmax}.get(name)
        between, after = (), ()
        if name == "layer_norm_rows":
            formula = partial(reference.normalize, norm="layer", weight=weight, bias=bias)
            between, after = (weight, bias), (1e-5,)
        if formula is None:
            return f"{name} is not known here: it is softmax_rows or layer_norm_rows that is checked."
        with np.errstate(invalid="ignore"):
            truth, plain, moved = formula(x.astype(np.float64)), formula(x), formula(rounded)
        far = (moved, float(np.abs(x).max())) if kind == "rows far from zero" else ()
        for seed in (0, 1):
            y = np.full_like(x, 1e30)
            try:
                run(source, x, *between, y, *x.shape, *after, seed=seed)
            except Broken as broken:
                return f"On {kind}: {broken}"
            if not np.array_equal(np.isnan(y), np.isnan(truth)):
                return f"On {kind}: NaN stands in other places than it should."
            if not np.abs(np.nan_to_num(y - truth)).max() <= cases.tolerance(truth, plain, np.float32, *far):
                return f"On {kind}: the values are wrong."
    return None


def cells():
    """The code cells of the page, as texts."""
    page = (HERE.parent / "cuda_cpp.md").read_text(encoding="utf-8")
    return re.findall(r"```\{code-cell\} python\n(?::[^\n]*\n)*(.*?)```", page, re.DOTALL)


def record():
    """Run the code of the page, and keep what it computes in `recorded.json`, or in the file named by RECORDING."""
    os.environ.setdefault(RECORDING, str(RECORD))
    old = load_record()["nvcc"] if RECORD.is_file() and not find("nvcc") else {}
    save({"runs": {}, "nvcc": old})
    names = {"__name__": "page"}
    for cell in cells():
        exec(compile(cell, "cuda_cpp.md", "exec"), names)


def main(arguments):
    if arguments == ["record"]:
        sys.path.insert(0, str(HERE.parent))
        record()
        return f"{RECORD} is written."
    if len(arguments) != 2 or arguments[0] != "check":
        return __doc__.strip().split("\n\n", 1)[1]
    if not compiler():
        return "There is no g++ here, or this is not Linux."
    try:
        return check(Path(arguments[1]).read_text(encoding="utf-8")) or "All rows are right."
    except (NotCompiled, ValueError) as error:
        return str(error)


if __name__ == "__main__":
    print(main(sys.argv[1:]))
