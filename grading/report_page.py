"""The class report as one HTML file: no scripts, nothing loaded from elsewhere, whatever learners wrote escaped."""

import datetime
import re
from collections import Counter
from html import escape

from grading.export import number
from grading.findings import BINS, FAILED, PASSED, UNTOUCHED, labels, people, summary, worst
from normlab.misconceptions import GROUPS, MISCONCEPTIONS, of

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --text: #1f2730; --muted: #5d6672; --line: #dfe3e8;
  --faint: #eef1f4; --belief: #1d5dcb; --slip: #b65503; --precision: #2f7d6a; --failed: #9a3b42; --passed: #489e89; }
@media (prefers-color-scheme: dark) { :root { --page: #14181e; --card: #1b2129; --text: #e3e7ec; --muted: #a3adba;
  --line: #343d48; --faint: #262e38; --belief: #91bef3; --slip: #fba850; --precision: #74d5b8; --failed: #f08a83;
  --passed: #57b39c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .35rem; }
h3 { font-size: 1.08rem; line-height: 1.35; margin: 0; }
p { margin: .4rem 0; max-width: 44rem; }
.lead, .muted, figcaption, caption { color: var(--muted); }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0; padding: 0; }
.numbers div { flex: 1 1 8.5rem; background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .7rem 1rem; }
.numbers dt { font-size: .85rem; color: var(--muted); }
.numbers dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.agenda { list-style: none; margin: 1rem 0 0; padding: 0; display: grid; gap: 1rem; }
.agenda > li { background: var(--card); border: 1px solid var(--line); border-left: .35rem solid var(--kind);
  border-radius: .7rem; padding: 1.1rem 1.3rem; }
.head { display: flex; gap: .5rem 1rem; align-items: baseline; justify-content: space-between; flex-wrap: wrap; }
.head strong { font-size: 1.05rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.chip { color: var(--kind); border: 1px solid currentColor; border-radius: 99px; font-size: .78rem;
  padding: .05rem .6rem; white-space: nowrap; font-weight: 600; vertical-align: .1em; margin-left: .4rem; }
dl.more { margin: .7rem 0 0; display: grid; grid-template-columns: 9.5rem 1fr; gap: .45rem 1rem; }
dl.more dt { color: var(--muted); font-size: .92rem; }
dl.more dd { margin: 0; }
.belief { --kind: var(--belief); } .slip { --kind: var(--slip); } .precision { --kind: var(--precision); }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 3px solid var(--belief); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0 0; font-size: .95rem; }
caption { text-align: left; padding-bottom: .4rem; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line); }
thead th { font-size: .85rem; color: var(--muted); font-weight: 600; }
tbody th { font-weight: 500; } th.part, th.part code { white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0 0; background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: 1rem 1.2rem; }
figure svg { display: block; width: 100%; max-width: 30rem; height: auto; }
figcaption { font-size: .92rem; margin-top: .6rem; }
svg text { fill: var(--text); font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg .small { fill: var(--muted); font-size: 12px; }
.bars { display: grid; gap: .55rem; max-width: 52rem; }
.bars > div { display: grid; grid-template-columns: 19rem 1fr 2rem; gap: .2rem .9rem; align-items: center; }
.bars span:first-child { font-size: .95rem; line-height: 1.3; }
.bars strong { font-variant-numeric: tabular-nums; font-weight: 600; }
.track { display: block; height: .95rem; border-radius: .3rem; background: var(--faint); overflow: hidden; }
.track .bar { display: block; height: 100%; background: var(--kind); border-radius: .3rem; }
svg .bar { fill: var(--kind); } svg .base { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: .7rem 0 0; padding: 0;
  font-size: .9rem; }
.legend span { display: inline-block; width: .8em; height: .8em; border-radius: .2em; background: var(--kind);
  margin-right: .4em; }
.stack { display: flex; min-width: 7rem; height: .95rem; border-radius: .3rem; overflow: hidden;
  background: var(--faint); margin-top: .25rem; }
.stack i { display: block; } .f { --kind: var(--failed); } .u { --kind: var(--line); } .p { --kind: var(--passed); }
.stack i { background: var(--kind); }
.stack .f { background-image: repeating-linear-gradient(45deg, transparent 0 4px, var(--card) 4px 5px); }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--faint); border-radius: .25rem;
  padding: .05em .3em; overflow-wrap: anywhere; }
a { color: var(--belief); } details { margin-top: .8rem; } summary { cursor: pointer; color: var(--muted); }
@media (max-width: 40rem) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.6rem; }
  dl.more { grid-template-columns: 1fr; gap: .1rem; } dl.more dd { margin-bottom: .6rem; }
  .numbers div { flex-basis: 7.5rem; padding: .55rem .8rem; } .numbers dd { font-size: 1.15rem; }
  .wide { display: none; } td, th { padding-right: .6rem; } table { font-size: .9rem; }
  th.part { white-space: normal; }
  .bars > div { grid-template-columns: 1fr 1.6rem; } .bars span:first-child { grid-column: 1 / -1; } }
@media print { body { background: none; } .agenda > li, figure { break-inside: avoid; } }
"""


def prose(text):
    """Text of ours or a learner's as HTML; what stands between backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(text)))


def histogram(found):
    """The distribution of scores as an SVG that takes its colors from the page."""
    counts = found.histogram()
    top, step, base = max([1, *counts]), 31, 150
    said = ", ".join(f"{label}: {count}" for label, count in zip(labels(), counts, strict=True))
    parts = [
        f'<svg viewBox="0 0 350 190" role="img" class="belief" aria-label="Scores in percent of all points. {said}.">',
        f'<line class="base" x1="0" x2="350" y1="{base}.5" y2="{base}.5"/>',
    ]
    for place, (low, count) in enumerate(zip(BINS, counts, strict=True)):
        x, height = 6 + place * step, 125 * count / top
        if count:
            parts.append(
                f'<rect class="bar" rx="3" x="{x}" y="{base - height:.1f}" width="{step - 5}" height="{height:.1f}"/>'
            )
            parts.append(f'<text text-anchor="middle" x="{x + 13}" y="{base - height - 5:.1f}">{count}</text>')
        parts.append(f'<text class="small" text-anchor="middle" x="{x + 13}" y="{base + 17}">{low}</text>')
    parts.append(f'<text class="small" x="0" y="{base + 34}">percent of {number(found.worth)} points</text></svg>')
    return "".join(parts)


def bars(found, most=12):
    """The misconceptions as a picture of bars: titles on the left, on a phone above, so that they stay readable."""
    counted = list(found.misconceptions().items())[:most]
    total = max(1, len(found.scores))
    said = "; ".join(f"{MISCONCEPTIONS[slug].title}: {len(students)}" for slug, students in counted)
    parts = [f'<div class="bars" role="img" aria-label="Students by misconception, of {total}. {escape(said)}.">']
    for slug, students in counted:
        entry = MISCONCEPTIONS[slug]
        width = 100 * len(students) / total
        parts.append(
            f'<div class="{entry.kind}"><span>{prose(entry.title)}</span>'
            f'<span class="track"><i class="bar" style="width:{width:.1f}%"></i></span>'
            f"<strong>{len(students)}</strong></div>"
        )
    return "".join([*parts, "</div>"])


def card(found, slug, site, names):
    """One misconception with what to teach against it."""
    entry, students = MISCONCEPTIONS[slug], found.misconceptions()[slug]
    seen = sorted(
        ((len(who), exercise, mistake) for (exercise, mistake), who in found.mistakes.items()
         if of(exercise, mistake).slug == slug), key=lambda item: (-item[0], item[1:])
    )  # fmt: skip
    mistakes = ", ".join(f"<code>{escape(mistake)}</code> in {escape(ex)}, {count}" for count, ex, mistake in seen)
    where = f"“{escape(entry.heading)}” in the chapter {escape(entry.chapter)}"
    if site:
        where = f'<a href="{escape(site.rstrip("/"))}/book/{escape(entry.chapter)}.html">{where}</a>'
    rows = [
        ("What they think", prose(entry.belief)),
        ("What to do", prose(entry.teach)),
        ("Read again", where),
        ("Seen as", mistakes),
    ]
    if names:
        rows.append(("Who", escape(", ".join(sorted(students)))))
    more = "".join(f"<dt>{what}</dt><dd>{value}</dd>" for what, value in rows)
    return (
        f'<li class="{entry.kind}"><div class="head"><h3>{prose(entry.title)}'
        f'<span class="chip">{entry.kind}</span></h3>'
        f'<strong>{len(students)} of {len(found.scores)}</strong></div><dl class="more">{more}</dl></li>'
    )


def legend(*entries):
    items = "".join(f'<li class="{kind}"><span aria-hidden="true"></span>{text}</li>' for kind, text in entries)
    return f'<ul class="legend">{items}</ul>'


def scrolls(label, table):
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{table}</div>'


def table(caption, headings, rows):
    """headings [(text, class)]; rows [[html]]: the first cell of a row names it."""
    kinds = [kind for _, kind in headings]
    head = "".join(f'<th scope="col" class="{kind}">{text}</th>' for text, kind in headings)
    body = "".join(
        f'<tr><th scope="row" class="{kinds[0]}">{first}</th>'
        + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(rest, kinds[1:], strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def misconception_section(found, site, names):
    counted, total = found.misconceptions(), len(found.scores)
    if not counted:
        return "<h2>Misconceptions</h2><p>The checks named no known mistake in this class.</p>"
    agenda = found.agenda()
    cards = "".join(card(found, slug, site, names) for slug in agenda)
    first = (
        f"<p class=lead>Each of these was shown by a tenth of the class or more. The first one leads the lesson.</p>"
        f'<ol class="agenda">{cards}</ol>'
        if agenda
        else "<p class=lead>No misconception reached a tenth of the class: talk to those who have one.</p>"
    )
    rows = [
        [
            prose(MISCONCEPTIONS[slug].title),
            MISCONCEPTIONS[slug].kind,
            escape(GROUPS[MISCONCEPTIONS[slug].group]),
            f"{escape(MISCONCEPTIONS[slug].chapter)}: {escape(MISCONCEPTIONS[slug].heading)}",
            len(students),
            f"{100 * len(students) / total:.0f} %",
        ]
        for slug, students in counted.items()
    ]
    headings = [("misconception", ""), ("kind", ""), ("about", "wide"), ("read again", "wide"), ("students", "n")]
    shown = min(12, len(counted))
    return "".join(
        [
            "<h2>What to teach tomorrow</h2>",
            first,
            "<h2>All misconceptions</h2><p class=lead>A student counts once for each, however many cells failed.</p>",
            "<figure>",
            bars(found),
            legend(
                ("belief", "belief: will be written again"),
                ("slip", "slip: knows better"),
                ("precision", "precision: right on paper"),
            ),
            f"<figcaption>Students by misconception, the first {shown}. The whole width is the {total} who handed in."
            if shown < len(counted)
            else f"<figcaption>Students by misconception. The whole width is the {total} who handed in.",
            "</figcaption></figure>",
            scrolls(
                "Misconceptions",
                table("Students by misconception", [*headings, ("share", "n")], rows),
            ),
        ]
    )


def part_section(found):
    rows, total = [], max(1, len(found.scores))
    for (exercise, part), states in worst(found):
        counts = Counter(states.values())
        shares = (
            (kind, 100 * counts[state] / total) for kind, state in (("f", FAILED), ("u", UNTOUCHED), ("p", PASSED))
        )
        stack = "".join(f'<i class="{kind}" style="width:{share:.1f}%"></i>' for kind, share in shares)
        rows.append(
            [
                f"<code>{escape(exercise)}</code> {escape(part)}",
                counts[FAILED],
                counts[UNTOUCHED],
                counts[PASSED],
                f'<div class="stack" aria-hidden="true">{stack}</div>',
            ]
        )
    headings = [("part", "part"), ("failed", "n"), ("not tried", "n"), ("passed", "n"), ("shares", "wide")]
    return (
        "<h2>Parts</h2><p class=lead>Those that fail most come first. Not tried: the answer is as released.</p>"
        + legend(("f", "failed"), ("u", "not tried"), ("p", "passed"))
        + scrolls("Parts", table("Students by part of each exercise", headings, rows))
    )


def unnamed_section(found, names):
    if not found.unnamed:
        return ""
    ordered = sorted(found.unnamed.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [
        [prose(s if len(s) <= 300 else s[:299] + "…"), len(who), *([escape(", ".join(sorted(who)))] if names else [])]
        for s, who in ordered
    ]
    headings = [("sentence", ""), ("students", "n"), *([("who", "")] if names else [])]
    everyone = set().union(*found.unnamed.values())
    return (
        "<h2>Refused without a name</h2><p class=lead>Wrong, and not a mistake that the checks know. Look at one "
        f"or two: a misconception may be new. {people(len(everyone))}.</p>"
        f"<details><summary>{len(rows)} sentences</summary>"
        + scrolls("Sentences", table("Students by sentence", headings, rows))
        + "</details>"
    )


def page(found, *, names=False, site=None, today=None):
    """The report as one HTML file: no scripts, nothing loaded from elsewhere, whatever learners wrote escaped."""
    today = today or datetime.datetime.now(datetime.UTC).date()
    name = escape(found.assignment)
    boxes = "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for what, value in summary(found))
    rows = [[label, count] for label, count in zip(labels(), found.histogram(), strict=True)]
    scores = [
        f"<h2>Scores</h2><figure>{histogram(found)}<figcaption>Extra credit counts, lateness is taken off. The last "
        "column is for all points or more.</figcaption></figure>",
        "<details><summary>The same as a table</summary>",
        table("Students by score", [("score", ""), ("students", "n")], rows),
        "</details>",
    ]
    note = ""
    if found.unread:
        note = f"<p><strong>No autograded notebook of {people(len(found.unread))}: grade them first.</strong></p>"
    sections = [misconception_section(found, site, names), *scores, part_section(found), unnamed_section(found, names)]
    if not found.scores:
        sections = ["<p>Nobody handed anything in, or nothing was graded yet.</p>"]
    who = "with names" if names else "without names"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{name}: class report</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{name}: class report</h1><p class=lead>{today.isoformat()}, {who}. For the teacher.</p>"
        f'<dl class="numbers">{boxes}</dl>{note}{"".join(sections)}</main></body></html>\n'
    )
