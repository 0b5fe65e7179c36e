"""Pictures of the book: one style, drawn once for light pages and once for dark ones.

A chapter writes a function that takes a theme `c`, draws with matplotlib in its colors and returns the Figure::

    def draw(c):
        fig, ax = plt.subplots()
        figures.histogram(ax, values, edges, c)
        return fig

    numbers = [["mean", outputs.mean()], ["std", outputs.std()]], ["", "output"]
    figures.show(draw, alt="Histogram of the eight outputs: ...", caption="The eight outputs.", numbers=numbers)

`numbers` is the picture's twin: a small folded table, for who cannot see the picture or wants the values.
"""

import base64
import html
import io
import re
from dataclasses import dataclass
from itertools import product

import matplotlib
import numpy as np
from IPython.display import HTML, display
from matplotlib import pyplot as plt
from matplotlib.patches import Polygon

from normlab.axes import LETTERS, NORMS

SHORTEST_ALT = 40
COLUMN_HEADING, ROW_HEADING = 'th scope="col"', 'th scope="row"'


@dataclass(frozen=True)
class Theme:
    """Colors of one mode. Those of the five hues differ for readers with any kind of color blindness."""

    name: str
    background: str
    text: str
    muted: str
    grid: str
    faint: str
    shadow: str
    blue: str
    orange: str
    green: str
    red: str
    purple: str

    @property
    def cycle(self):
        """The hues in the order in which series take them."""
        return self.blue, self.orange, self.green, self.purple, self.red


LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1f2730",
    muted="#5d6672",
    grid="#d5dae0",
    faint="#e3e7ed",
    shadow="#3d4856",
    blue="#1d5dcb",
    orange="#db6903",
    green="#489e89",
    red="#9a3b42",
    purple="#68176e",
)
DARK = Theme(
    name="dark",
    background="#14181e",
    text="#e3e7ec",
    muted="#a3adba",
    grid="#3b434e",
    faint="#3a424e",
    shadow="#000000",
    blue="#91bef3",
    orange="#fba850",
    green="#74f5d0",
    red="#ea5247",
    purple="#c166ab",
)


def style(c):
    """Matplotlib settings for the theme `c`.

    A page shows a figure 540 px wide and a phone about 370 px: type of 11 pt on 5.6 inches is then 15 px and 10 px.
    """
    return {
        "figure.figsize": (5.6, 3.3),
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "axes.prop_cycle": matplotlib.cycler(color=c.cycle),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.edgecolor": c.muted,
        "axes.labelcolor": c.text,
        "axes.titlecolor": c.text,
        "text.color": c.text,
        "xtick.color": c.muted,
        "ytick.color": c.muted,
        "xtick.labelcolor": c.text,
        "ytick.labelcolor": c.text,
        "grid.color": c.grid,
        "lines.linewidth": 2,
        "patch.linewidth": 0,
        "hatch.color": c.background,
        "svg.fonttype": "path",
        "svg.hashsalt": "normlab",
    }


def picture(draw, c):
    """The figure `draw(c)` as SVG text, the same bytes on every run."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": matplotlib.get_backend(), **style(c)}):
        fig = draw(c)
        file = io.StringIO()
        fig.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(fig)
    return file.getvalue()


def markup(draw, alt, caption=None, width=None, *, numbers):
    """HTML of a figure: both pictures, of which the page's mode shows one, and the numbers that they show.

    `alt` says in words what the picture shows; `caption` is plain text; `width` is in CSS pixels, the figure's own when
    None. `numbers` is (rows, header), as `table_markup` takes them, or (rows, header, caption), or a list of such; or
    "below" where a table follows that holds them, or "none" where the picture is drawn from none. Outside the site,
    where no style sheet chooses, only the light picture shows.
    Errors: ValueError when `alt` is too short to say anything, or `numbers` is another word.
    """
    if len(alt.strip()) < SHORTEST_ALT:
        raise ValueError(f"alt text must say what the picture shows, in {SHORTEST_ALT} characters or more: {alt!r}")
    if isinstance(numbers, str) and numbers not in ("below", "none"):
        raise ValueError(f'numbers must be tables, "below" or "none": {numbers!r}')
    images = ""
    for c, hidden in ((LIGHT, ""), (DARK, "display:none;")):
        data = base64.b64encode(picture(draw, c).encode()).decode()
        size = f"width:{width}px;" if width else ""
        images += (
            f'<img class="only-{c.name}" style="{hidden}{size}max-width:100%" alt="{html.escape(alt)}" '
            f'src="data:image/svg+xml;base64,{data}">'
        )
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    if isinstance(numbers, str):
        return f'<figure class="picture" data-numbers="{numbers}">{images}{text}</figure>'
    tables = "".join(table_markup(*one) for one in (numbers if isinstance(numbers, list) else [numbers]))
    # HTML wants a caption to come last. It is shown above the fold: there it stays next to its picture.
    fold = f'<details class="twin" style="order:1"><summary>The numbers of this picture</summary>{tables}</details>'
    columns = "display:flex;flex-direction:column;align-items:center"
    return f'<figure class="picture" style="{columns}">{images}{fold}{text}</figure>'


def show(draw, alt, caption=None, width=None, *, numbers):
    """Show the picture that `draw(c)` draws, in light and dark; arguments as in `markup`."""
    display(HTML(markup(draw, alt, caption, width, numbers=numbers)))


def short(value, digits=2):
    """`value` to so many digits, for numbers that are far apart in size.

    >>> short(0.00001234), short(-0.5), short(250_000, 1)
    ('1.2e−5', '−0.5', '2e5')
    """
    text = re.sub(r"e([+-])0*(\d+)", lambda e: f"e{e[1].strip('+')}{e[2]}", f"{value:.{digits}g}")
    return text.replace("-", "\N{MINUS SIGN}")


def span(values, digits=2):
    """The least and the largest of `values`, or the one that they are to so many digits.

    >>> span([0.25, -1.5, 0]), span([1, 1])
    ('−1.50 to 0.25', '1.00')
    """
    ends = dict.fromkeys(f"{end:z.{digits}f}" for end in (np.min(values), np.max(values)))
    return " to ".join(ends).replace("-", "\N{MINUS SIGN}")


def table(rows, header, caption=None):
    """Show a small table: `rows` of cells under `header`; floats are shown with four decimals."""
    display(HTML(table_markup(rows, header, caption)))


def table_markup(rows, header, caption=None):
    """HTML of a small table. The first cell of a row is its heading; columns of numbers stand on the right.

    >>> table_markup([["mean", 0.5]], ["", "value"])[:40]
    '<div class="numbers"><table><thead><tr><'
    """

    def is_number(value):
        return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)

    def words(value):
        if is_number(value):
            # A sum that rounds to zero is zero, not minus zero.
            text = f"{value:z.4f}" if isinstance(value, (float, np.floating)) else str(value)
            return text.replace("-", "\N{MINUS SIGN}")
        return html.escape(str(value))

    numeric = [all(map(is_number, column)) for column in zip(*rows, strict=True)]

    def cell(tag, value, column):
        kind = ' class="number"' if numeric[column] else ""
        return f"<{tag}{kind}>{words(value)}</{tag.split()[0]}>"

    head = "".join(cell(COLUMN_HEADING if name else "td", name, column) for column, name in enumerate(header))
    body = ""
    for first, *rest in rows:
        cells = "".join(cell("td", value, column) for column, value in enumerate(rest, start=1))
        body += f"<tr>{cell(ROW_HEADING, first, 0)}{cells}</tr>"
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<div class="numbers"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def histogram(ax, values, edges, c, color=None, weights=None, density=False, label=None):
    """Bars of how many `values` fall between `edges`; `weights` and `density` as in numpy.histogram.

    Returns the heights, so that a table or a sentence can say them.
    """
    heights, edges = np.histogram(values, bins=edges, weights=weights, density=density)
    bars(ax, heights, edges, c, color=color, label=label)
    return heights


def bars(ax, heights, edges, c, color=None, label=None):
    """Bars of given `heights` between `edges`, with a hairline of background between neighbors."""
    ax.bar(
        edges[:-1],
        heights,
        width=np.diff(edges),
        align="edge",
        color=color or c.blue,
        edgecolor=c.background,
        linewidth=0.8,
        label=label,
    )
    ax.grid(axis="y")
    ax.tick_params(length=0)
    ax.spines["left"].set_visible(False)


def pooled(norm, sizes, element=(0, 0, 0, 0)):
    """Which elements share their statistics with `element`, in an array of `sizes` (N, G, D, S).

    Returns a boolean array of shape (N, G, D, S), read off the letters of `normlab.axes.NORMS`.
    """
    return np.logical_and.reduce(
        [
            (index == own) | (letter in NORMS[norm].pools)
            for letter, index, own in zip(LETTERS, np.indices(sizes), element, strict=True)
        ]
    )


# One step along each axis of the cube on paper, seen from above with the first element nearest to the reader.
RIGHT_BACK = np.array([0.87, 0.42])
LEFT_BACK = np.array([-0.87, 0.42])
DOWN = np.array([0.0, -1.0])
GROUP_GAP = 0.3


def pool_cube(ax, norm, c, sizes=(3, 2, 2, 4), color=None, title=None, labels=True):
    """Draw the (N, C, position) cube as blocks, with the pool of its first element in color.

    `sizes` is (N, G, D, S); the cube has C = G * D channels, and a gap between groups where the norm tells groups from
    channels. A norm that does not center is hatched. Returns the pool, a boolean array of shape (N, C, S).
    """
    n_size, groups, depth, s_size = sizes
    c_size = groups * depth
    pool = pooled(norm, sizes).reshape(n_size, c_size, s_size)
    hue = color or c.blue
    hatch = None if NORMS[norm].centered else "////"
    gap = GROUP_GAP if ("G" in NORMS[norm].pools) != ("D" in NORMS[norm].pools) else 0.0

    def corner(n, channel, s):
        return n * LEFT_BACK + (channel + gap * (channel // depth)) * RIGHT_BACK + s * DOWN

    def face(element, along, across, shade):
        start = corner(*element)
        inside = pool[element]
        ax.add_patch(
            Polygon(
                [start, start + along, start + along + across, start + across],
                facecolor=mix(hue if inside else c.faint, c.shadow, shade),
                edgecolor=c.background,
                linewidth=1.1,
                hatch=hatch if inside else None,
                gid="pooled" if inside else None,
            )
        )

    for element in product(range(n_size), range(c_size), range(s_size)):
        n, channel, s = element
        if s == 0:
            face(element, RIGHT_BACK, LEFT_BACK, 0.0)
        if n == 0:
            face(element, RIGHT_BACK, DOWN, 0.13)
        if channel == 0:
            face(element, LEFT_BACK, DOWN, 0.26)

    low, far_n, far_c = s_size * DOWN, n_size * LEFT_BACK, c_size * RIGHT_BACK + gap * (groups - 1) * RIGHT_BACK
    if labels:
        slope = np.degrees(np.arctan2(RIGHT_BACK[1], RIGHT_BACK[0]))
        name = {"ha": "center", "va": "center", "color": c.muted, "rotation_mode": "anchor"}
        ax.text(*(low + far_n / 2 + (-0.25, -0.5)), f"N = {n_size}", rotation=-slope, **name)
        ax.text(*(low + far_c / 2 + (0.25, -0.5)), f"C = {c_size}", rotation=slope, **name)
        ax.text(*(far_n + low / 2 + (-0.5, 0)), f"position = {s_size}", rotation=90, **name)
    if title:
        ax.set_title(title, loc="center")
    # The same frame with and without labels and gap, so that cubes side by side are of one size.
    ax.set_xlim(far_n[0] - 0.9, (c_size + GROUP_GAP * (groups - 1)) * RIGHT_BACK[0] + 0.1)
    ax.set_ylim(low[1] - 0.3, (far_n + far_c)[1] + 0.1)
    ax.set_aspect("equal")
    ax.axis("off")
    return pool


def mix(color, other, share):
    """The color `share` of the way from `color` to `other`."""
    a, b = np.array(matplotlib.colors.to_rgb(color)), np.array(matplotlib.colors.to_rgb(other))
    return matplotlib.colors.to_hex(a + share * (b - a))
