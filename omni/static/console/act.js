// Forms marked data-act: the server's question in a dialog, its answer as a short message.
const dialog = document.getElementById("dialog"), toasts = document.getElementById("toasts");
const TRIES = 4;

export function say(text, address) {
  const toast = document.createElement("p");
  toast.className = "toast";
  toast.textContent = text + " ";
  if (address) {
    const link = document.createElement("a");
    link.href = address;
    link.textContent = "Watch it";
    toast.append(link);
  }
  toasts.append(toast);
  setTimeout(() => toast.remove(), 9000);
}

// A change of leader takes a second: what was refused meanwhile, and says so, is asked again under the same key.
async function send(form) {
  const data = new URLSearchParams(new FormData(form));
  if (!data.has("back")) data.set("back", location.pathname + location.search);
  const headers = { "X-Console": "1" };
  if (data.get("key")) headers["Idempotency-Key"] = "console-" + data.get("key");
  for (let tries = 1; ; tries++) {
    const answer = await fetch(form.action, { method: "POST", body: data, headers }).catch(() => null);
    const again = answer === null ? data.get("step") !== "do" || data.get("key") : answer.status === 503;
    if (!again || tries >= TRIES) return answer;
    await new Promise((done) => setTimeout(done, 400 * tries));
  }
}

function problem(body) {
  const section = document.createElement("section");
  section.className = "ask";
  const title = document.createElement("h2"), text = document.createElement("p"), row = document.createElement("div");
  title.id = "dialog-title";
  title.textContent = body.title || "No answer";
  text.className = "note";
  text.dataset.tone = "bad";
  text.textContent = body.detail || "The platform did not answer. Nothing is known about what was asked for.";
  row.className = "row end";
  const close = document.createElement("button");
  close.className = "button";
  close.type = "button";
  close.dataset.close = "";
  close.textContent = "Close";
  row.append(close);
  section.append(title, text, row);
  dialog.replaceChildren(section);
}

export function startActing(refresh) {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-act]");
    if (!form) return;
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    button.setAttribute("aria-busy", "true");
    let answer = null;
    try { answer = await send(form); } finally { button.removeAttribute("aria-busy"); }
    if (answer && answer.redirected) { location.reload(); return; }
    const kind = answer ? answer.headers.get("Content-Type") || "" : "";
    if (kind.startsWith("application/json")) {
      const done = await answer.json();
      dialog.close();
      if (done.to) { location.href = done.to; return; }
      say(done.said, done.follow);
      for (const kept of document.querySelectorAll("[data-reload-after]")) if (kept.contains(form) || form.closest("dialog")) { setTimeout(() => location.reload(), 700); break; }
      refresh();
      return;
    }
    if (kind.startsWith("text/html")) dialog.innerHTML = await answer.text();
    else problem(kind.includes("json") ? await answer.json() : {});
    if (!dialog.open) dialog.showModal();
    // what destroys is not the first thing that Enter does
    const first = ["input:not([type=hidden])", ".button.primary", ".button"].map((one) => dialog.querySelector(one)).find(Boolean);
    if (first) first.focus();
  });
  document.addEventListener("click", (event) => {
    const close = event.target.closest("dialog [data-close]");
    if (close) { event.preventDefault(); dialog.close(); }
    if (event.target === dialog) dialog.close();
    const copy = event.target.closest("[data-copy]");
    if (copy) navigator.clipboard.writeText(document.querySelector(copy.dataset.copy).textContent).then(() => { copy.textContent = "Copied"; });
  });
}
