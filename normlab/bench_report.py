"""What the benchmark found, for people: the tables and sentences of the terminal, the picture.

A row is what `bench.numbers` makes of one case; a report is what `--json` writes.
"""

from statistics import geometric_mean

HEADINGS = {
    "eager": "torch eager",
    "compile": "torch.compile",
    "eager out": "eager, out=",
    "compile out": "compile, out=",
    "yours": "eager / yours",
}


def title(row):
    """What a row is about, in one line."""
    return f"{row['op']} {row['direction']} {row['where']} {row['dtype']}"


def summary(rows, goal=None):
    """What the rows come to: for each ratio its geometric mean over all shapes but the small ones, how many there are,
    and those below 1; and the lowest and highest share of a copy's bandwidth past the cache.

    goal: a share of that bandwidth. With it all shapes but the small ones are past the cache, and `goal` says how many
    reach it, and which do not, the lowest first.
    """
    rows = [row for row in rows if row["size"] != "small" and not row["wrong"]]
    ratios, shares = {}, {}
    for name in HEADINGS:
        found = {title(row): row["ratios"][name] for row in rows if name in row["ratios"]}
        if found:
            mean, slower = geometric_mean([r[1] for r in found.values()]), {k: r for k, r in found.items() if r[1] < 1}
            ratios[name] = {"geometric_mean": mean, "count": len(found), "below_1": slower}
    for name in ("normlab", "normlab out"):
        of = {title(row): row["of_copy"].get(name) for row in rows if goal or row["size"] == "large"}
        of = {key: share for key, share in of.items() if share is not None}
        if of:
            shares[name] = {"lowest": min(of.values()), "of": min(of, key=of.get), "highest": max(of.values())}
    found = {"ratios": ratios, "of_copy": shares}
    if goal:
        of = sorted((row["of_copy"]["normlab"], title(row)) for row in rows)
        below = {key: share for share, key in of if share < goal}
        found["goal"] = {"share": goal, "count": len(of), "reached": len(of) - len(below), "below": below}
    return found


def _spread(quartiles, form="{:.2f}", between="–"):
    """The median and, dim, the quartiles; nothing for None."""
    if quartiles is None:
        return ""
    low, middle, high = (form.format(q) for q in quartiles)
    return f"{middle} [dim]{low}{between}{high}[/dim]"


def ratio_cells(row, names):
    """A row of the table of ratios, those below 1 in red."""
    found = [row["ratios"].get(name) for name in names]
    shares = [row["of_copy"].get(name) for name in ("normlab", "normlab out")]
    return [f"[red]{_spread(r)}[/red]" if r and r[1] < 1 else _spread(r) for r in found] + [
        "" if share is None else f"{share:.2f}" for share in shares
    ]


def card_cells(row, names):
    """The same for a GPU: normlab's own microseconds stand beside the ratios, and nothing is timed with out=."""
    microseconds = _spread([q * 1e6 for q in row["seconds"]["normlab"]], "{:.1f}")
    return [microseconds, *ratio_cells(row, names)[:-1]]


def small_cells(row, names):
    """A row of the table of microseconds."""
    times = [row["seconds"].get(name) for name in ("normlab", *names)]
    return ["" if q is None else f"{q[1] * 1e6:.1f}" for q in times] + [
        _spread(row["above_us"].get(name), "{:+.1f}", " to ") for name in names
    ]


def tables(rows, card=None):
    """The tables of the terminal: the ratios, and the microseconds of small calls; `card` is the name of a GPU."""
    from rich.table import Table

    for small in (False, True):
        part = [row for row in rows if (row["size"] == "small") == small]
        if not part:
            continue
        names = [n for n in HEADINGS if any(n in row.get("above_us" if small else "ratios", {}) for row in part)]
        shown = [HEADINGS[name] for name in names]
        if small:
            table = Table(title="Microseconds a call on small inputs; how many normlab is above the others")
            headings, cells = ["normlab", *shown, *(f"above {name}" for name in shown)], small_cells
        else:
            table = Table(title="Time of the other / time of normlab: above 1, normlab is faster")
            headings, cells = [*shown, "of copy", "out="], ratio_cells
            if card:
                headings, cells = ["normlab, us", *shown, "of copy"], card_cells
        for heading in ("op", "", "shape", *headings):
            table.add_column(heading, no_wrap=True)
        for row, following in zip(part, [*part[1:], {"op": ""}], strict=True):
            found = ["[red]wrong[/red]"] if row["wrong"] else cells(row, names)
            table.add_row(row["op"], row["direction"], row["where"], *found, end_section=following["op"] != row["op"])
        yield table


def _processor(e):
    yield f"{e['cpu']}, {e['cores']} cores, {e['threads']} threads; copy {e['copy_GB_per_s']:.1f} GB/s"
    yield f"Python {e['python']}, torch {e['torch']}, numba {e['numba']}, numpy {e['numpy']}"
    if e["load"] > 0.5:
        yield f"Beware: the machine was busy when this began (load {e['load']:.1f}). Threads then wait for one another,"
        yield "and ratios mean little. Run it again when nothing else runs."


def _card(e):
    yield (
        f"{e['card']}: compute capability {e['capability']}, {e['processors']} processors, "
        f"{e['memory_GB']:.0f} GB, cache {e['cache_MB']:.0f} MB; copy {e['copy_GB_per_s']:.0f} GB/s"
    )
    names = {"clock_MHz": "MHz", "memory_clock_MHz": "MHz of memory", "power_W": "W", "temperature_C": "degrees"}
    limits = {"clock_MHz": "clock_max_MHz", "memory_clock_MHz": "memory_clock_max_MHz", "power_W": "power_limit_W"}
    said = [
        f"{e[name]:.0f}{f' of {e[limits[name]]:.0f}' if e.get(limits.get(name)) else ''} {unit}"
        for name, unit in names.items()
        if e[name] is not None
    ]
    if said:
        yield f"While it copied: {', '.join(said)}"
    driver = e["driver"] or "unknown"
    yield f"Driver {driver}, CUDA {e['cuda']}, Triton {e['triton']}, torch {e['torch']}, Python {e['python']}"
    yield f"{e['cpu']}, {e['cores']} cores; {e['date']}"


def _shares(of_copy):
    for name, part in of_copy.items():
        where = "with out=" if name.endswith("out") else "into fresh memory"
        yield f"past the cache, {where}: {part['lowest']:.2f} to {part['highest']:.2f} of a copy; lowest {part['of']}"


def _goal(goal, shown=12):
    """The goal's line, and the lowest of the rows below it."""
    yield f"{goal['reached']} of {goal['count']} rows reach {goal['share']:.2f} of a copy"
    yield from (f"    {share:.3f}  {key}" for key, share in list(goal["below"].items())[:shown])
    if len(goal["below"]) > shown:
        yield f"    and {len(goal['below']) - shown} more"


def sentences(report):
    """The lines below the tables."""
    e, found = report["environment"], report["summary"]
    yield from _card(e) if "card" in e else _processor(e)
    if variables := e.get("allocator") or e.get("variables"):
        yield "Set in the environment: " + " ".join(f"{name}={value}" for name, value in variables.items())
    for name, part in found["ratios"].items():
        mean, slower = part["geometric_mean"], part["below_1"]
        yield f"{HEADINGS[name]}: {mean:.2f}, geometric mean of {part['count']}; {len(slower)} below 1"
        yield from (f"    {middle:.3f} ({low:.3f} to {high:.3f})  {key}" for key, (low, middle, high) in slower.items())
    yield from _goal(found["goal"]) if "goal" in found else _shares(found["of_copy"])
    yield from report["notes"]
    yield from (f"WRONG: {title(row)} {row['wrong']}." for row in report["rows"] if row["wrong"])


def picture(report, path):
    """Draw the ratios: a line for each shape, forward on the left, backward on the right."""
    from matplotlib.figure import Figure

    rows = [row for row in report["rows"] if row["size"] != "small" and not row["wrong"]]
    places = {key: i for i, key in enumerate(dict.fromkeys((r["op"], r["where"], r["dtype"]) for r in rows))}
    figure = Figure(figsize=(10, 1.6 + 0.2 * len(places)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    looks = {"eager": ("o", "#0072b2"), "compile": ("s", "#d55e00"), "yours": ("^", "#009e73")}
    for panel, direction in zip(panels, ("forward", "backward"), strict=True):
        for name, (marker, color) in looks.items():
            dots = [
                (places[r["op"], r["where"], r["dtype"]], r["ratios"][name])
                for r in rows
                if r["direction"] == direction and name in r["ratios"]
            ]
            if dots:
                heights, ratios = zip(*dots, strict=True)
                low, middle, high = zip(*ratios, strict=True)
                panel.hlines(heights, low, high, colors=color, linewidth=1)
                label = HEADINGS[name] if name == "yours" else f"{HEADINGS[name]} / normlab"
                panel.plot(middle, heights, marker, color=color, markersize=4, label=label)
        panel.axvline(1, color="#1f2730", linewidth=1)
        panel.set(title=direction, xscale="log", xlabel="ratio of times: right of the line, normlab is faster")
        panel.grid(axis="x", which="both", color="#e3e7ed", linewidth=0.5)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
    several = len({dtype for *_, dtype in places}) > 1
    names = [f"{op} {where}{f' {dtype}' if several else ''}" for op, where, dtype in places]
    panels[0].set_yticks(range(len(places)), names, fontsize=7)
    panels[0].set_ylim(len(places) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150, facecolor="white")
