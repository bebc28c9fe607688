"""A run as a page of Markdown and a picture: deeds, recoveries and rows by the second. Measures nothing."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from html import escape
from pathlib import Path

from tests.chaos.verdict import Verdict
from tests.chaos.violence import Attack
from tests.chaos.watching import Sample

COLOURS = {
    "partition": "#c0392b",
    "coordinator": "#8e44ad",
    "metadata": "#2980b9",
    "raylet": "#d35400",
    "zombie": "#27ae60",
    "zombie node": "#16a085",
    "broker": "#2c3e50",
    "rescale": "#b7950b",
}
WIDTH, LEFT, ROW, PLOT = 1200, 90, 16, 180
REFUSALS = (
    ("sink", ("has another owner", "took over", "fenced")),
    ("store", ("record ",)),
    ("coordinator", ("reports under epoch",)),
)
SHOWN = 4


def write_report(
    folder: Path,
    command: str,
    verdict: Verdict,
    attacks: list[Attack],
    samples: list[Sample],
    refusals: list[str],
    notes: list[str],
) -> None:
    """`report.md` and `timeline.svg` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timeline.svg").write_text(timeline(attacks, samples))
    lines = [
        "# Chaos: Kafka to Kafka on Ray",
        "",
        (
            f"**{'Clean' if verdict.clean else 'NOT CLEAN'}**: {verdict.events:,} events in, {verdict.copies:,} copies out, "
            f"{verdict.lost} lost, {verdict.doubled} doubled, {verdict.unordered} out of order; "
            f"{verdict.windows:,} windows and {verdict.totals:,} totals"
            f"{' exact' if verdict.clean else ''}."
        ),
        "",
        f"Again: `{command}`",
        "",
        *(f"- {fault}" for fault in verdict.faults),
        *(f"- {note}" for note in notes),
        "",
        "![timeline](timeline.svg)",
        "",
        "| what was done | times | decided again after, median s | longest s |",
        "|---|---|---|---|",
    ]
    for kind, times in Counter(attack.kind for attack in attacks).most_common():
        took = [a.recovered for a in attacks if a.kind == kind and a.recovered is not None]
        shown = f"{statistics.median(took):.1f} | {max(took):.1f}" if took else "– | –"
        lines.append(f"| {kind} | {times} | {shown} |")
    lines += ["", "## Owners that came too late", ""]
    for place, found in refused(refusals).items():
        lines.append(f"**Refused at the {place}: {len(found)}**")
        lines += ["", *(f"    {line.strip()[:220]}" for line in found[:SHOWN]), ""]
    lines += ["## All deeds", "", "| s | what | to | decided again after s |", "|---|---|---|---|"]
    for a in sorted(attacks, key=lambda a: a.at):
        took_s = "" if a.recovered is None else f"{a.recovered:.1f}"
        lines.append(f"| {a.at:.1f} | {a.kind} | {a.what} | {took_s} |")
    (folder / "report.md").write_text("\n".join(lines) + "\n")


def refused(lines: list[str]) -> dict[str, list[str]]:
    """Log lines by the place that refused an owner."""
    return {
        place: [line for line in lines if any(word in line.partition("refused: ")[2] for word in words)]
        for place, words in REFUSALS
    }


def timeline(attacks: list[Attack], samples: list[Sample]) -> str:
    """An SVG: rows committed a second by topic, when jobs did not run, and a mark for every deed."""
    end = max([s.at for s in samples] + [a.at for a in attacks] + [1.0])
    jobs = list(samples[0].phases) if samples else []
    topics = list(samples[0].rows) if samples else []
    height = 60 + PLOT + ROW * (len(jobs) + len(COLOURS)) + 40

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * at / end

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    speeds = {topic: _speeds(samples, topic) for topic in topics}
    top = max([speed for points in speeds.values() for _, speed in points] + [1.0])
    for topic, colour in zip(topics, ("#1f77b4", "#ff7f0e", "#7f7f7f"), strict=False):
        points = " ".join(f"{x(at):.1f},{30 + PLOT * (1 - speed / top):.1f}" for at, speed in speeds[topic])
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        place = LEFT + 160 * topics.index(topic)
        out.append(f'<text x="{place}" y="18" fill="{colour}">{escape(topic)}, rows/s</text>')
    out.append(f'<text x="8" y="38">{top:,.0f}/s</text><text x="8" y="{30 + PLOT}">0</text>')
    y = 40 + PLOT
    for job in jobs:
        out.append(f'<text x="8" y="{y + 11}">{escape(job)}</text>')
        for before, after in itertools.pairwise(samples):
            running = before.phases[job] == "running"
            out.append(
                f'<rect x="{x(before.at):.1f}" y="{y}" width="{max(0.3, x(after.at) - x(before.at)):.1f}" height="{ROW - 4}"'
                f' fill="{"#a9dfbf" if running else "#e6b0aa"}"/>'
            )
        y += ROW
    for kind, colour in COLOURS.items():
        out.append(f'<text x="8" y="{y + 11}" fill="{colour}">{kind}</text>')
        for attack in attacks:
            if attack.kind == kind:
                title = f"<title>{attack.at:.1f} s: {escape(kind)}, {escape(attack.what)}</title>"
                out.append(
                    f'<line x1="{x(attack.at):.1f}" x2="{x(attack.at):.1f}" y1="30" y2="{y + ROW - 2}" stroke="{colour}"'
                    f' stroke-opacity="0.25"/><circle cx="{x(attack.at):.1f}" cy="{y + 7}" r="4" fill="{colour}">{title}</circle>'
                )
        y += ROW
    step = max(10, round(end / 12 / 10) * 10)
    out += [f'<text x="{x(at):.0f}" y="{y + 14}">{at} s</text>' for at in range(0, int(end) + 1, step)]
    return "\n".join([*out, "</svg>"]) + "\n"


def _speeds(samples: list[Sample], topic: str) -> list[tuple[float, float]]:
    return [
        (after.at, max(0.0, (after.rows[topic] - before.rows[topic]) / max(1e-3, after.at - before.at)))
        for before, after in itertools.pairwise(samples)
    ]
