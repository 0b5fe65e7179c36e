"""What the benchmark needs of a GPU: whether there is one, what it is called, how much memory is free, how long a call
takes there.

A call's time is what `triton.testing.do_bench` measures: that between two events around it, on the GPU's own clock,
after the cache was overwritten. do_bench fills a queue with one contender's calls; here each call is a sample of its
own, so that contenders can take turns. Importing this file loads neither torch nor triton.
"""

import datetime
import os
import shutil
import subprocess
import time

from normlab import cuda

FLUSHED = 256 << 20  # bytes written before each sample, or twice the card's cache, if that is more
HEAD_START = 1.5  # how many times as long as Python needs for a call the GPU is kept busy before it
MOST_PASSES = 16  # over what is flushed, for a head start
PATIENCE = 10.0  # seconds that nvidia-smi has to answer
ASKED = {
    "driver": "driver_version",
    "clock_MHz": "clocks.sm",
    "clock_max_MHz": "clocks.max.sm",
    "memory_clock_MHz": "clocks.mem",
    "memory_clock_max_MHz": "clocks.max.mem",
    "power_W": "power.draw",
    "power_limit_W": "power.limit",
    "temperature_C": "temperature.gpu",
}


def why_not():
    """None, or a sentence: why nothing can be timed on a GPU here."""
    if reason := cuda.why_not():
        return reason
    compiler = os.environ.get("CC")
    found = shutil.which(compiler) if compiler else shutil.which("gcc") or shutil.which("clang")
    return None if found else f"Triton needs a C compiler, and there is none ({compiler or 'gcc or clang'})."


def stopwatch(torch):
    """A function: a call without arguments -> seconds it keeps the GPU busy, with nothing of it in the cache.

    Zeros are written until Python has launched all of the call: otherwise the GPU would wait for Python between the two
    events, and they would time Python.
    """
    cache = torch.cuda.get_device_properties().L2_cache_size
    scratch = torch.empty(max(FLUSHED, 2 * cache), dtype=torch.uint8, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    launching = {}  # how long Python takes for a call, the shortest seen

    def seconds(call, passes):
        for _ in range(passes):
            scratch.zero_()
        start.record()
        begun = time.perf_counter()
        call()
        launched = time.perf_counter() - begun
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3, launched

    flush = min(seconds(scratch.zero_, 1)[0] for _ in range(5))

    def sample(call):
        passes = head_start(launching.get(call, 0.0), flush)
        busy, launched = seconds(call, passes)
        launching[call] = min(launched, launching.get(call, launched))
        return busy

    return sample


def head_start(launching, flush):
    """How many passes over what is flushed: enough for a call that takes Python `launching` seconds.

    >>> head_start(0.0, 1e-4), head_start(3e-4, 1e-4), head_start(10.0, 1e-4)
    (1, 5, 16)
    """
    return min(max(-int(-HEAD_START * launching // flush), 1), MOST_PASSES)


def room(torch):
    """Bytes of the card's memory that a tensor could get."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def describe(torch):
    """The card, what drives it and what compiles for it; the variables that change any of this."""
    import triton

    card = torch.cuda.get_device_properties()
    return {
        "device": "cuda",
        "card": card.name,
        "capability": f"{card.major}.{card.minor}",
        "processors": card.multi_processor_count,
        "memory_GB": card.total_memory / 1e9,
        "cache_MB": card.L2_cache_size / 1e6,
        **under_load(torch, f"GPU-{card.uuid}"),
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "date": datetime.date.today().isoformat(),
        "variables": {k: v for k, v in os.environ.items() if k.startswith(("CUDA_", "PYTORCH_", "TRITON_"))},
    }


def under_load(torch, card):
    """What nvidia-smi says of the card while it copies: a card that rests has other clocks."""
    x = torch.randn(FLUSHED // 4, device="cuda")
    y = torch.empty_like(x)

    def copy():
        for _ in range(20):
            y.copy_(x)
        torch.cuda.synchronize()

    copy()  # it is at work before it is asked
    process, deadline = ask(card), time.monotonic() + PATIENCE
    while process is not None and process.poll() is None and time.monotonic() < deadline:
        copy()
    return heard(process)


def ask(card):
    """nvidia-smi, started to say ASKED of a card; None where it is not installed."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    question = [f"--query-gpu={','.join(ASKED.values())}", "--format=csv,noheader,nounits", "-i", card]
    return subprocess.Popen([program, *question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def heard(process):
    """ASKED's answers: text for the driver, numbers for others, None where the card or the program does not say."""
    line = ""
    if process is not None:
        with process:
            if process.poll() is None:
                process.kill()
            else:
                line = process.stdout.read()
    answers = [answer.strip() for answer in line.split(",")]
    if len(answers) != len(ASKED):
        return dict.fromkeys(ASKED)
    return {name: a if name == "driver" else _number(a) for name, a in zip(ASKED, answers, strict=True)}


def _number(text):
    try:
        return float(text)
    except ValueError:  # [N/A]
        return None
