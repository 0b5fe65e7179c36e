"""What a class needs tomorrow: python -m grading.report ASSIGNMENT [--html FILE]

Run it in the course folder, after grading. It counts the students behind every misconception that the checks named,
with what to teach against it, the scores, and the parts that failed. The page is one file without scripts, and names
nobody unless --names asks for it.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from grading import here
from grading.findings import FAILED, PASSED, UNTOUCHED, collect, labels, people, summary, worst
from grading.report_page import page
from normlab.misconceptions import MISCONCEPTIONS


def lines(found, names=False):
    """The report for a terminal."""
    yield f"{found.assignment}: " + "; ".join(f"{what} {value}" for what, value in summary(found))
    if found.unread:
        yield f"No autograded notebook could be read of {people(len(found.unread))}: grade them first."
    yield from ("", "Scores")
    for label, count in zip(labels(), found.histogram(), strict=True):
        yield f"  {label:>8} {count:4} {'#' * count}".rstrip()
    yield from ("", "Misconceptions")
    for slug, students in found.misconceptions().items():
        entry = MISCONCEPTIONS[slug]
        yield f"  {len(students):4}  {entry.title} ({entry.kind}; {entry.chapter}, {entry.heading})"
        if names:
            yield f"        {', '.join(sorted(students))}"
    if not found.mistakes:
        yield "  none that the checks named"
    yield from ("", "Parts: failed, not attempted, passed")
    for (exercise, part), states in worst(found):
        counts = Counter(states.values())
        yield f"  {counts[FAILED]:4} {counts[UNTOUCHED]:4} {counts[PASSED]:4}  {exercise}, {part}"


def run(options):
    app = here.course(*([f"--db={options.db}"] if options.db else []))

    def notebook(student, name):
        folder = app.coursedir.format_path(app.coursedir.autograded_directory, student, options.assignment)
        return Path(folder, f"{name}.ipynb")

    with here.gradebook(app, options.assignment) as (book, _):
        found = collect(book, options.assignment, notebook)
    print("\n".join(lines(found, options.names)))
    if options.html:
        options.html.write_text(page(found, names=options.names, site=options.site), encoding="utf-8")
        print(f"\n{options.html}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m grading.report", description=__doc__.splitlines()[0])
    parser.add_argument("assignment")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page, too")
    parser.add_argument("--names", action="store_true", help="say who; without it nobody is named")
    parser.add_argument("--site", metavar="ADDRESS", help="address of the built course, for links to its chapters")
    parser.add_argument("--db", metavar="URL", help="the gradebook, if it is not the one of nbgrader's settings")
    return here.main(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
