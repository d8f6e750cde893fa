"""One table: a line for each measure, a column for each peer, and the bars."""

from pathlib import Path
from statistics import median

from .scenarios import BUSY, CPU, DIRECT, ERRORS, MILLION, P50, P99, SAVED, THROUGHPUT, TITLES, Results

#: Bars: at most this, as a ratio to nginx ("x") or as it is (""); or at least this (">=").
BARS = {
    ("S1", CPU): ("x", 1.20),
    ("S2", CPU): ("x", 0.40),
    ("S2b", CPU): ("x", 0.20),
    ("S3", CPU): ("x", 0.40),
    ("S8", CPU): ("x", 1.20),
    ("S4", "CPU us/event"): ("x", 1.00),
    ("S1", P50): ("x", 1.00),
    ("S1", P99): ("x", 1.00),
    ("S2m", MILLION): ("", 1.20),
    ("S5", "upstream calls"): ("", 1),
    ("S5", "slowest waiter after the answer, ms"): ("", 10),
    ("S6", SAVED): (">=", 5),
    ("S7", "KiB per stream at 8000"): ("", 20),
    ("memory", "MiB idle"): ("", 15),
}
ORDER = ["S1", "S1c", "P10", "P100", "P1000", "S2", "S2b", "S2m", "S9", "T20", "S3", "S3d", "T2000"]
ORDER += ["S4", "S5", "S6", "S7", "S8", "memory"]


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(values: list[float] | None, base: float | None) -> str:
    if not values:
        return "-"
    middle = median(values)
    told = number(middle)
    if len(values) > 1:
        told += f" ({number(min(values))}..{number(max(values))})"
    if base is not None and base > 0:
        told += f" x{middle / base:.2f}"
    return told


def bar(scenario: str, measure: str, peers: dict[str, list[float]]) -> str:
    if (scenario, measure) not in BARS or not peers.get("pillion"):
        return ""
    kind, limit = BARS[scenario, measure]
    value = median(peers["pillion"])
    if kind == ">=":
        return f">= {limit:g} {'ok' if value >= limit else 'MISSED'}"
    if kind:
        if not peers.get("nginx"):
            return f"<= x{limit:.2f}"
        # Not a quotient: what is added to direct may be below nothing.
        return f"<= x{limit:g} {'ok' if value <= limit * median(peers['nginx']) else 'MISSED'}"
    return f"<= {kind}{limit:g} {'ok' if value <= limit else 'MISSED'}"


def rows_of(results: Results, names: list[str]) -> list[list[str]]:
    """Names of the columns; then of each scenario its title, alone in its row, and a row for each measure."""
    names = [DIRECT, *names]
    rows = [["scenario and measure", *names, "bar"]]
    for scenario in [name for name in ORDER if name in results.values]:
        measures = results.values[scenario]
        rows.append([f"{scenario}  {TITLES[scenario]}"])
        for measure, peers in measures.items():
            if measure == ERRORS and not any(sum(values) for values in peers.values()):
                continue
            if measure == ERRORS:
                row = [measure, *(number(sum(peers[name])) if name in peers else "-" for name in names), ""]
                rows.append(row)
                continue
            base = median(peers["nginx"]) if peers.get("nginx") and measure not in (BUSY, "events per read") else None
            cells = []
            for name in names:
                ratio = None if name in ("nginx", DIRECT) else base
                bound = measure == THROUGHPUT and name in peers and median(measures[BUSY][name]) < 90
                told = ">= " + cell(peers[name], None) if bound else cell(peers.get(name), ratio)
                cells.append(told)
            rows.append([measure, *cells, bar(scenario, measure, peers)])
    used = [n for n in range(len(rows[0])) if n == 0 or any(len(r) > n and r[n] not in ("-", "") for r in rows[1:])]
    return [[row[n] for n in used] if len(row) > 1 else row for row in rows]


def table(results: Results, names: list[str]) -> str:
    rows = rows_of(results, names)
    rows = [rows[0], *([f"  {row[0]}", *row[1:]] if len(row) > 1 else row for row in rows[1:])]
    widths = [max(len(row[n]) for row in rows if len(row) > 1) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        if len(row) == 1:
            lines += ["", row[0]]
            continue
        cells = [word.ljust(width) if n == 0 else word.rjust(width) for n, (word, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(file: Path, mark: str, results: Results, names: list[str], told: list[str]) -> None:
    """Writes the table between `<!-- MARK -->` and `<!-- end of MARK -->`, or a file of it where there is none."""
    rows = rows_of(results, names)
    lines = [f"| {' | '.join(rows[0])} |", "|---" + "|--:" * (len(rows[0]) - 1) + "|"]
    for row in rows[1:]:
        row = row if len(row) > 1 else [f"**{row[0]}**"] + [""] * (len(rows[0]) - 1)
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", *(f"- {line}" for line in told)]
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    text = file.read_text() if file.exists() else f"{begin}\n{end}\n"
    if begin not in text or end not in text:
        raise ValueError(f"{file} has no {begin} and {end}")
    before, after = text.split(begin)[0], text.split(end)[1]
    file.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}")


EXPLANATION = """Medians of the rounds (least..most), and the ratio to nginx. CPU is that of the proxy's processes, the
kernel's part included. ">=" in a throughput: the load or the upstream filled its core before the proxy filled its own.
The direct column has the latency itself, the others what they add. "-": the peer cannot do it, or was not asked to."""


def gateways(results: Results) -> list[str]:
    """The bars of S1 against what is not nginx, and of S9 against S1."""
    lines = []
    measured = results.values.get("S1", {}).get(CPU, {})
    for name, limit in (("litellm", 100), ("portkey", 100), ("envoy", 1.8), ("traefik", 0)):
        if measured.get(name) and measured.get("pillion"):
            ratio = median(measured[name]) / median(measured["pillion"])
            word = f" (bar: >= {limit:g}) {'ok' if ratio >= limit else 'MISSED'}" if limit else ""
            lines.append(f"S1: {name} uses {ratio:.1f} x Pillion's CPU{word}")
    hit = results.values.get("S9", {}).get(CPU, {})
    for name in hit:
        if measured.get(name):
            ratio = median(hit[name]) / median(measured[name])
            lines.append(f"S9: {name} uses {ratio:.2f} x its CPU of S1 (bar: <= 2) {'ok' if ratio <= 2 else 'MISSED'}")
    return lines
