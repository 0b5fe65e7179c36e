"""What the kernels stand on: the disk cache, threads, forks."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import normlab.functional as F
from normlab import cpu, jit

# -- The disk cache --------------------------------------------------------------------------------------------------

SOFTMAX = """
    import torch
    import normlab.functional as F
    from normlab import cpu

    y = F.softmax(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), 1)
    assert y.tolist() == [[0.25] * 4], y
    y = F.softmax(torch.linspace(-5, 5, 700 * 257, dtype=y.dtype).sin().reshape(700, 257), 1)
    bits = y.view(torch.int32).sum().item()
    stats = cpu.softmax.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), bits)
"""


def run(code, **environment):
    """Output of a new Python that runs `code`; it must succeed and keep quiet."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.split()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in which a process has left its compiled softmax, and the bits that it computed."""
    folder = tmp_path_factory.mktemp("cache")
    hits, misses, bits = run(SOFTMAX, NUMBA_CACHE_DIR=str(folder))
    assert (hits, misses) == ("0", "1")
    return folder, bits


def test_the_second_process_compiles_nothing_and_computes_the_same_bits(cache):
    folder, bits = cache
    assert run(SOFTMAX, NUMBA_CACHE_DIR=str(folder)) == ["1", "0", bits]


@pytest.mark.exhaustive
def test_a_damaged_cache_is_compiled_again(cache):
    cache, bits = cache
    files = list(cache.rglob("*.nbc"))
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert run(SOFTMAX, NUMBA_CACHE_DIR=str(cache)) == ["0", "1", bits]
    assert run(SOFTMAX, NUMBA_CACHE_DIR=str(cache)) == ["1", "0", bits], "what was compiled again was not kept"


def test_without_a_writable_folder_it_works_uncached(tmp_path):
    """Neither the folder that is asked for nor the checkout's nor the home can be made: a file stands in the way."""
    file = tmp_path / "a file"
    file.touch()
    assert run(SOFTMAX, NUMBA_CACHE_DIR=str(file / "below"))[1] in ("0", "1")


def test_a_full_disk_is_survived(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    @jit.compiled(entry=True)
    def double(x):
        return 2 * x

    monkeypatch.setattr(jit.CacheFiles, "save", full)
    assert double(21) == 42


def test_cache_files_hold_what_was_saved_and_nothing_else(tmp_path):
    files = jit.CacheFiles(tmp_path, "kernel", "stamp")
    files.save("key", {"code": 1})
    assert files.load("key") == {"code": 1}
    assert list(tmp_path.iterdir()) == [files.path("key")], "a temporary file was left"
    assert jit.CacheFiles(tmp_path, "kernel", "newer").load("key") is None, "stale code was taken"
    whole = files.path("key").read_bytes()
    for damaged in (b"", b"not a cache", whole[:-1], whole[:40] + b"?" + whole[41:], b"?" + whole[1:]):
        files.path("key").write_bytes(damaged)
        assert files.load("key") is None
    files.path("key").write_bytes(whole)
    files.path("key").rename(files.path("another key"))
    assert files.load("another key") is None, "code of another signature was taken"
    files.flush()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_two_processes_may_compile_at_once(tmp_path):
    code = textwrap.dedent(SOFTMAX)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code.replace("0.0]]", f"0.0]], dtype=torch.{dtype}")],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        )
        for dtype in ("float32", "float64")
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(tmp_path.rglob("cpu.softmax-*.nbc"))) == 2, "one process lost what the other compiled"


# -- Threads ---------------------------------------------------------------------------------------------------------


def test_small_loops_are_not_shared_and_large_ones_are():
    assert [jit.cut.py_func(n, 64, 4) for n in (4096, 65536, 10**6)] == [1, 2, 4]
    assert jit.cut.py_func(10**6, 2, 4) == 2, "more parts than rows"
    assert jit.cut.py_func(0, 0, 4) == 1


@jit.compiled()
def _note(first, last, owner, seen):
    for row in range(first, last):
        owner[row] = first
        seen[row] += 1


@jit.compiled(entry=True)
def _share(rows, parts, owner, seen):
    jit.share(_note, rows, parts, (owner, seen))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_each_row_is_done_once_and_parts_do_not_depend_on_timing(parts):
    rows = 50
    for _ in range(20):
        owner, seen = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        _share(rows, parts, owner, seen)
        assert (seen == 1).all()
        edges = [rows * part // parts for part in range(parts + 1)]
        expected = [first for first, last in zip(edges, edges[1:], strict=False) for _ in range(last - first)]
        assert owner.tolist() == expected


def test_set_num_threads_is_respected(monkeypatch):
    asked = []
    monkeypatch.setattr(cpu, "softmax", lambda *args: asked.append(args[-2]))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            F.softmax(torch.zeros(4, 4), 1)
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 2, 3]


def test_kernels_run_in_pytorchs_own_openmp_threads():
    assert jit.OPENMP, "no OpenMP runtime was found in this process, so everything runs in one thread"


def _compute(queue, x):
    y = F.softmax(x, -1)
    queue.put((y[0, 0].item(), jit.parallel()))  # a sum in PyTorch's threads would wait forever here


def test_a_forked_child_computes_in_one_thread():
    """Parallel kernels ran in the parent before the fork: its threads are not in the child."""
    x = torch.zeros(512, 512)
    F.softmax(x, -1)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_compute, args=(queue, x), daemon=True)
    child.start()
    assert queue.get(timeout=60) == (1 / 512, False)
    child.join()
    assert child.exitcode == 0
    assert jit.parallel(), "the parent goes on in parallel"
