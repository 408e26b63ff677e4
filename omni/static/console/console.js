// Keeps an open page up to date, and turns its forms into dialogs. Everything works without it, by whole pages.
import { startPlots, refreshPlots } from "./plots.js";
import { startLogs } from "./log.js";
import { startActing } from "./act.js";

const body = document.body, live = document.getElementById("live"), pulse = document.getElementById("pulse");
let tag = "", timer = 0, asking = null, misses = 0;

// One request at a time; none while nobody looks.
export async function refresh() {
  clearTimeout(timer);
  if (document.hidden || asking || !body.dataset.live) return;
  asking = new AbortController();
  const late = setTimeout(() => asking && asking.abort(), 8000);
  try {
    const headers = { "X-Live": "1" };
    if (tag) headers["If-None-Match"] = tag;
    const answer = await fetch(location.href, { headers, signal: asking.signal, cache: "no-store" });
    if (answer.redirected || answer.status === 403) { location.reload(); return; }
    if (answer.status === 200) {
      const text = await answer.text();
      tag = answer.headers.get("ETag") || "";
      show(text);
    } else if (answer.status !== 304) throw new Error(String(answer.status));
    misses = 0;
    pulse.textContent = "";
  } catch {
    misses += 1;
    if (misses > 1) pulse.textContent = "no answer, trying again";
  } finally {
    clearTimeout(late);
    asking = null;
    schedule();
  }
}

function schedule() {
  clearTimeout(timer);
  if (document.hidden || !body.dataset.live) return;
  timer = setTimeout(refresh, Math.min(Number(body.dataset.live) * 1000 * (misses ? 1 + misses / 2 : 1), 15000));
}

// Only what differs is touched, so that focus, selection, scroll and open menus stay.
function show(html) {
  Idiomorph.morph(live, html, {
    morphStyle: "innerHTML", ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed: (old) => !(old.nodeType === 1 && old.hasAttribute("data-keep")),
      beforeAttributeUpdated: (name, node) =>
        !((name === "value" && node.name === "csrfmiddlewaretoken") || (name === "open" && node.tagName === "DETAILS") || name === "aria-busy"),
    },
  });
  clockTick();
}

function ago(seconds) {
  if (seconds < 0) return "in " + span(-seconds);
  return seconds < 2 ? "just now" : span(seconds) + " ago";
}
function span(seconds) {
  const s = Math.floor(seconds);
  if (s >= 172800) return Math.floor(s / 86400) + " d";
  if (s >= 3600) return Math.floor(s / 3600) + " h";
  return s >= 60 ? Math.floor(s / 60) + " min" : s + " s";
}
function clockTick() {
  const now = Date.now() / 1000;
  for (const one of document.querySelectorAll("time[datetime]")) {
    const text = ago(now - Date.parse(one.dateTime) / 1000);
    if (one.textContent !== text && !one.hasAttribute("data-exact")) one.textContent = text;
  }
}

document.addEventListener("visibilitychange", () => { if (document.hidden) { clearTimeout(timer); } else { refresh(); refreshPlots(); } });
document.getElementById("theme").addEventListener("click", () => {
  const dark = document.documentElement.classList.toggle("dark");
  try { localStorage.setItem("omni-theme", dark ? "dark" : "light"); } catch { /* for this page only */ }
  refreshPlots(true);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea, dialog")) {
    event.preventDefault();
    document.querySelector('[data-key="/"]').focus();
  }
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.drop[open], details.menu[open]"))
    if (!open.contains(event.target)) open.open = false;
});
setInterval(() => { if (!document.hidden) clockTick(); }, 1000);
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
startActing(refresh);
startPlots();
startLogs();
schedule();
