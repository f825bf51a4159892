"""Draw the rooms, and an array's path through them: `python docs/rooms.py`.

The rooms and their floors are those that import-linter holds the code to, in `pyproject.toml`; a
test draws the picture again and compares.
"""

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"

# The room on whose floor a group of floors begins, from the top, and what the group is about.
GROUPS = {
    "__main__": "what people type",
    "experiment": "the verbs",
    "places": "the life of a run",
    "sweeping": "sweeps, readers",
    "agreement": "said and written",
    "gather": "what files hold",
    "pulse": "bytes, locks, jobs",
    "checkout": "names and facts",
}
# What becomes of an array: in which room, or in which file if there is a dot in it.
WRITTEN = (
    ("logbook", 'log.array("T", block, start=…, shape=…, halo=1)'),
    ("pieces", "leaves the halo out, and checks the place"),
    ("places", "claims this rank's folder, by mkdir"),
    ("arraywriter", "a file that is whole or absent"),
    ("ranks/rank_00003/data/T.npy", ""),
    ("rankfolder", "then one line that says where it belongs"),
    ("ranks/rank_00003/manifest.jsonl", ""),
)
MERGED = (
    ("manifests", "reads which pieces ranks finished"),
    ("assembly", "puts pieces together; names what contradicts"),
    ("merging", "plan: is every file there, and whole?"),
    ("merging", "arrays: copies pieces under a temporary name"),
    ("merging", "commit: renames, once all is there"),
    ("data/T.npy", ""),
)

CHAR, ROW, GAP, PAD = 6.6, 25, 7, 6  # pixels: a letter, a floor, between rooms, inside one
LEFT, RIGHT, TOP = 130, 760, 64
STEP, WIDTH = 49, 340
INK, FAINT, PATH, DISK = "#1f2933", "#7b8794", "#0b6e99", "#8a5a00"


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top, without what import-linter's marks say."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["containers"] == ["notata"])
    return [[room.strip(" ()") for room in layer.split("|")] for layer in layers]


def text(
    x: float, y: float, words: str, *, size: float = 11, fill: str = INK, more: str = ""
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"'
    return f"<text {place}{more}>{escape(words)}</text>"


def code(x: float, y: float, words: str, *, fill: str = INK) -> str:
    """Text in a monospaced font, as wide as we reckon with, whatever font there is."""
    long = f' class="code" textLength="{len(words) * CHAR:.1f}" lengthAdjust="spacingAndGlyphs"'
    return text(x, y, words, fill=fill, more=long)


def box(
    x: float, y: float, width: float, height: float, stroke: str, fill: str, round_: int
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} rx="{round_}" fill="{fill}" stroke="{stroke}"/>'


def draw_floors() -> tuple[list[str], float]:
    """All rooms, a row a floor, or two; those that an array comes through are coloured."""
    on_the_way = {room for room, _ in (*WRITTEN, *MERGED)}
    parts, y = [], TOP
    for rooms in floors():
        group = next((GROUPS[room] for room in rooms if room in GROUPS), None)
        if group is not None:
            parts.append(f'<path d="M16 {y - 4}H{RIGHT - 36}" stroke="#d8dee6"/>')
            parts.append(text(16, y + 13, group, size=12, fill=FAINT))
        x = float(LEFT)
        for room in rooms:
            width = len(room) * CHAR + 2 * PAD
            if x + width > RIGHT - 30:
                x, y = float(LEFT), y + ROW - 4
            met = room in on_the_way
            parts.append(
                box(
                    x,
                    y,
                    width,
                    ROW - 7,
                    PATH if met else "#c3ccd6",
                    "#dff1f8" if met else "#f6f8fa",
                    4,
                )
            )
            parts.append(code(x + PAD, y + 13, room, fill=PATH if met else INK))
            x += width + GAP
        y += ROW
    return parts, y


def draw_path(y: float, title: str, steps: tuple[tuple[str, str], ...]) -> tuple[list[str], float]:
    """One after another the rooms and files that an array comes through, with arrows."""
    parts = [text(RIGHT, y, title, size=13, more=' font-weight="600"')]
    y += 14
    for place, (name, what) in enumerate(steps):
        if place:
            parts.append(f'<path d="M{RIGHT + 20} {y - 13}v9" class="arrow"/>')
        is_file = "." in name
        stroke, fill = (DISK, "#fff6e0") if is_file else (PATH, "#dff1f8")
        height = STEP - 15 if what else 24
        parts.append(box(RIGHT, y, WIDTH, height, stroke, fill, 0 if is_file else 4))
        parts.append(code(RIGHT + 10, y + 14 + (0 if what else 2), name, fill=stroke))
        if what:
            parts.append(text(RIGHT + 10, y + 28, what, size=11.5))
        y += height + 15
    return parts, y


def svg() -> str:
    """The picture."""
    rows, floor = draw_floors()
    written, y = draw_path(TOP + 12, "An array is written", WRITTEN)
    merged, y = draw_path(y + 24, "notata merge", MERGED)
    height = max(floor, y) + 16
    width = RIGHT + WIDTH + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
            'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
            "<title>The rooms of notata, and the path of one array</title>",
            "<style>.code { font-family: DejaVu Sans Mono, Menlo, Consolas, monospace }",
            f".arrow {{ stroke: {INK}; fill: none; marker-end: url(#head) }}</style>",
            '<defs><marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" '
            'markerHeight="6" orient="auto">'
            f'<path d="M0 0L6 3L0 6z" fill="{INK}"/></marker></defs>',
            f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
            text(16, 28, "Rooms, a row a floor", size=15, more=' font-weight="600"'),
            text(16, 46, "A room imports from lower floors only. Blue: an array comes through."),
            text(RIGHT, 28, "The path of one array", size=15, more=' font-weight="600"'),
            text(RIGHT, 46, "Blue: a room. Yellow: a file in the run's folder."),
            *rows,
            *written,
            *merged,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    print(PICTURE)
