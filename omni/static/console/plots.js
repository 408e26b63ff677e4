// Figures over time. The server gives columns of numbers; a gap stays a gap.
const KINDS = {
  cpu: { lines: [["cpu_percent", "CPU"]], unit: (v) => (v > 0 && v < 10 ? Math.round(v * 10) / 10 : Math.round(v)) + " %", floor: 10, fill: true },
  memory: { lines: [["memory_bytes", "used"], ["memory_limit", "limit"]], unit: bytes, fill: true, limit: 1, binary: true },
  requests: { lines: [["requests_per_second", "requests/s"], ["error_percent", "failed %"]], unit: short, floor: 1, fill: true },
  latency: { lines: [["p50_ms", "p50"], ["p95_ms", "p95"], ["p99_ms", "p99"]], unit: (v) => short(v) + " ms", floor: 1 },
};
const EVERY_MS = 10000;
const groups = [];

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (Math.abs(value) >= 1000 && at < units.length - 1) { value /= 1024; at++; }
  return (value >= 100 || at === 0 ? Math.round(value) : Math.round(value * 10) / 10) + " " + units[at];
}
function short(value) { return value >= 1000 ? Math.round(value / 100) / 10 + " k" : String(value >= 10 ? Math.round(value) : Math.round(value * 100) / 100); }
function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function options(kind, plot, width, group) {
  const inks = ["--accent", kind.limit ? "--off-mark" : "--bad-mark", "--warn-mark"].map(colour), muted = colour("--muted"), grid = colour("--line");
  if (plot.dataset.plot === "latency") { inks[1] = colour("--warn-mark"); inks[2] = colour("--bad-mark"); }
  const axis = { stroke: muted, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "11px Inter" };
  const series = kind.lines.map(([, label], at) => ({
    label, stroke: inks[at], width: at === kind.limit ? 1.2 : 1.6, dash: at === kind.limit ? [4, 4] : undefined,
    fill: kind.fill && at === 0 ? inks[0] + "1f" : undefined, points: { show: false }, spanGaps: false,
    value: (_, v) => (v == null ? "–" : kind.unit(v)),
  }));
  return {
    width, height: 132, padding: [6, 20, 0, 0], legend: { show: false }, cursor: { y: false, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high == null ? 0 : high * 1.1, kind.floor || 1)] } },
    axes: [{ ...axis, size: 26, values: (_, ticks) => ticks.map((t) => { const d = new Date(t * 1000); return group.window === "7d" ? d.toLocaleDateString([], { day: "2-digit", month: "2-digit" }) : d.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }); }) },
           { ...axis, size: 58, values: (_, ticks) => ticks.map((t) => kind.unit(t)), space: 34, incrs: kind.binary ? powers() : undefined }],
    series: [{}, ...series],
    hooks: { draw: [(u) => marks(u, group)], setCursor: [(u) => told(u, plot, kind)] },
  };
}
function powers() { const found = []; for (let at = 10; at < 50; at++) found.push(2 ** at); return found; }

function marks(u, group) {
  const ctx = u.ctx;
  ctx.save();
  ctx.setLineDash([4, 4]);
  ctx.lineWidth = devicePixelRatio;
  const taken = [];
  for (const mark of [...group.marks].reverse()) {
    const x = u.valToPos(mark.at, "x", true);
    if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
    ctx.strokeStyle = colour(mark.status === "failed" || mark.status === "reverted" ? "--bad-mark" : "--muted");
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
    // only where it has room: one label over the other tells neither
    ctx.font = 10 * devicePixelRatio + "px Inter";
    ctx.textAlign = "left";
    const text = " " + mark.label + " ", wide = ctx.measureText(text).width, right = x + wide <= u.bbox.left + u.bbox.width;
    const from = right ? x : x - wide;
    if (from < u.bbox.left || taken.some(([a, b]) => from < b && from + wide > a)) continue;
    taken.push([from, from + wide]);
    ctx.fillStyle = colour("--muted");
    ctx.fillText(text, from, u.bbox.top + 10 * devicePixelRatio);
  }
  ctx.restore();
}

// The values under the pointer, else the last ones, stand in the plot's own heading.
function told(u, plot, kind) {
  const at = u.cursor.idx;
  kind.lines.forEach((_, number) => {
    const column = u.data[number + 1];
    const value = at != null ? column[at] : last(column);
    const cell = plot.querySelector(`[data-value="${number}"]`);
    if (cell) cell.textContent = value == null ? "–" : kind.unit(value);
  });
}
function last(column) { for (let at = column.length - 1; at >= Math.max(0, column.length - 6); at--) if (column[at] != null) return column[at]; return null; }

function heading(plot, kind) {
  const title = document.createElement("h3");
  title.append(plot.dataset.title);
  kind.lines.forEach(([, label], at) => {
    const cell = document.createElement("b"), mark = document.createElement("i"), value = document.createElement("span");
    mark.dataset.line = kind.limit === at ? "l" : plot.dataset.plot === "latency" ? [0, 2, 1][at] : String(at);
    value.dataset.value = at;
    cell.append(mark, label + " ", value);
    title.append(cell);
  });
  return title;
}

function draw(group, anew) {
  for (const plot of group.root.querySelectorAll("[data-plot]")) {
    const kind = KINDS[plot.dataset.plot];
    const data = [group.at, ...kind.lines.map(([name]) => group.columns[name] || group.at.map(() => null))];
    let found = group.made.get(plot);
    if (found && anew) { found.destroy(); found = null; }
    if (!found) {
      plot.replaceChildren(heading(plot, kind));
      found = new uPlot(options(kind, plot, plot.clientWidth, group), data, plot);
      group.made.set(plot, found);
    } else found.setData(data);
    told(found, plot, kind);
    const measured = data.slice(1, kind.limit ? 2 : undefined).some((column) => column.some((value) => value != null));
    let nothing = plot.querySelector(".nothing");
    if (!measured && !nothing) { nothing = document.createElement("p"); nothing.className = "nothing"; plot.append(nothing); }
    if (nothing) nothing.textContent = measured ? "" : "Nothing was measured in this time.";
  }
}

async function load(group) {
  if (document.hidden) return;
  try {
    const answer = await fetch(`${group.root.dataset.plots}?window=${group.window}`, { cache: "no-store" });
    if (!answer.ok || answer.redirected) return;
    const anew = group.drawn !== group.window;
    Object.assign(group, await answer.json());
    draw(group, anew);
    group.drawn = group.window;
  } catch { /* the page says that there is no answer; the next try is on its way */ }
}

export function refreshPlots(anew) { for (const group of groups) if (anew && group.at) draw(group, true); else load(group); }

export function startPlots() {
  for (const root of document.querySelectorAll("[data-plots]"))
    groups.push({ root, window: "1h", at: null, columns: {}, marks: [], made: new Map(), drawn: "" });
  if (!groups.length) return;
  for (const chosen of document.querySelectorAll("[data-windows]"))
    chosen.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of chosen.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      for (const group of groups) { group.window = button.value; load(group); }
    });
  new ResizeObserver(() => { for (const group of groups) for (const [plot, made] of group.made) if (plot.clientWidth && Math.abs(made.width - plot.clientWidth) > 2) made.setSize({ width: plot.clientWidth, height: 132 }); }).observe(document.getElementById("live"));
  refreshPlots();
  setInterval(() => refreshPlots(), EVERY_MS);
}
