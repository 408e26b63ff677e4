// Log lines as they come: the API's own pages, one after the other, from the cursor of the last line.
const MOST = 5000, EVERY_MS = 1000, FIRST = 300;

class Log {
  constructor(box) {
    this.box = box;
    this.form = box.closest(".logs")?.querySelector("[data-log-filters]") || null;
    this.note = box.closest(".logs")?.querySelector("[data-log-note]") || null;
    this.path = box.dataset.log;
    this.paused = false;
    this.round = 0;
    box.classList.add("wrap");
    this.restart();
    this.form?.addEventListener("submit", (event) => event.preventDefault());
    this.form?.addEventListener("input", (event) => {
      if (event.target.name === "wrap") { box.classList.toggle("wrap", event.target.checked); return; }
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.restart(), event.target.name === "q" ? 350 : 0);
    });
    this.form?.querySelector("[data-pause]")?.addEventListener("click", (event) => this.pause(event.currentTarget));
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.next(this.round); });
  }
  value(name) { return this.form?.elements[name]?.value || ""; }
  pause(button) {
    this.paused = !this.paused;
    button.setAttribute("aria-pressed", String(this.paused));
    button.querySelector("span").textContent = this.paused ? "Go on" : "Pause";
    if (!this.paused) this.next(this.round);
  }
  restart() {
    this.round += 1;
    this.cursor = "";
    this.count = 0;
    this.box.replaceChildren();
    this.empty("Reading…");
    this.next(this.round);
  }
  address() {
    const instance = this.value("instance"), asked = new URLSearchParams();
    const path = instance ? this.path.replace(/\/logs$/, `/instances/${instance}/logs`) : this.path;
    for (const name of ["q", "stream"]) if (this.value(name)) asked.set(name, this.value(name));
    if (this.cursor) { asked.set("cursor", this.cursor); asked.set("limit", "500"); }
    else { asked.set("tail", this.box.classList.contains("small-log") ? "100" : String(FIRST)); if (this.value("since")) asked.set("since", this.value("since")); }
    return `${path}?${asked}`;
  }
  // One request at a time; the next only when somebody looks.
  async next(round) {
    clearTimeout(this.timer);
    if (round !== this.round || document.hidden || this.paused || this.busy === round) return;
    this.busy = round;
    let wait = EVERY_MS;
    try {
      const answer = await fetch(this.address(), { cache: "no-store" });
      if (round !== this.round) return;
      if (!answer.ok) throw new Error(String(answer.status));
      const body = await answer.json();
      if (round !== this.round) return;
      this.add(body.items);
      const further = this.cursor && body.next ? new URL(body.next, location.href).searchParams.get("cursor") : "";
      if (body.items.length) this.cursor = body.items[body.items.length - 1].cursor;
      if (further) { this.cursor = further; wait = 20; }
      if (!this.count) this.empty(this.value("q") || this.value("stream") ? "No line is like that so far." : "Nothing was written so far.");
      if (this.note) this.note.textContent = `${this.count} lines shown${this.count >= MOST ? ", the newest ones" : ""}${this.value("q") ? `, those that contain “${this.value("q")}”` : ""}.`;
    } catch { wait = 3000; if (this.note) this.note.textContent = "No answer, trying again."; }
    finally { if (this.busy === round) this.busy = 0; if (round === this.round) this.timer = setTimeout(() => this.next(round), wait); }
  }
  empty(text) { if (this.count) return; const line = document.createElement("p"); line.className = "gap"; line.textContent = text; this.box.replaceChildren(line); }
  add(items) {
    if (!items.length) return;
    const atEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    if (!this.count) this.box.replaceChildren();
    const fragment = document.createDocumentFragment();
    for (const item of items) fragment.append(this.line(item));
    this.box.append(fragment);
    this.count += items.length;
    while (this.count > MOST) { this.box.firstChild.remove(); this.count--; }
    if (atEnd) this.box.scrollTop = this.box.scrollHeight;
  }
  line(item) {
    const line = document.createElement("p"), at = document.createElement("time"), who = document.createElement("span"), text = document.createElement("span");
    at.textContent = item.at.slice(11, 23);
    at.title = item.at;
    who.className = "slot";
    who.textContent = item.instance_id ?? "";
    text.className = "text";
    if (item.stream === "stderr") line.className = "err";
    if (item.stream === "system") line.className = "system";
    const needle = this.value("q"), shown = item.line.replace(/\x1b\[[0-9;]*m/g, "");
    const found = needle ? shown.toLowerCase().indexOf(needle.toLowerCase()) : -1;
    if (found >= 0) {
      const mark = document.createElement("mark");
      mark.textContent = shown.slice(found, found + needle.length);
      text.append(shown.slice(0, found), mark, shown.slice(found + needle.length));
    } else text.textContent = shown;
    line.append(at, ...(item.instance_id != null ? [who] : []), text);
    return line;
  }
}

export function startLogs() { for (const box of document.querySelectorAll("[data-log]")) new Log(box); }
