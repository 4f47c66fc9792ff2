// Everything that comes from the model, its tools or a file's name becomes text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
let user = localStorage.getItem("user") || "";
let folder = "";
let answering = null; // an AbortController while an answer is under way

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  Object.assign(element, attributes);
  return element;
}

async function asked(method, path, { headers, ...options } = {}) {
  const answer = await fetch(path, { method, ...options, headers: { "X-User": encodeURIComponent(user), ...headers } });
  if (!answer.ok) {
    const { detail } = await answer.json().catch(() => ({}));
    throw new Error(typeof detail === "string" ? detail : `the server says ${answer.status}`);
  }
  return answer;
}

let hiding;
function notice(error) {
  $("notice").textContent = error.message || String(error);
  $("notice").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { $("notice").hidden = true; }, 8000);
}

function state(text, kind = "") {
  $("state").textContent = text;
  $("state").className = kind;
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
  let unit = -1;
  for (; bytes >= 1024 && unit < 3; unit++) bytes /= 1024;
  return `${bytes.toFixed(1)} ${["KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function ordinal(number) {
  const ending = { one: "st", two: "nd", few: "rd" }[new Intl.PluralRules("en", { type: "ordinal" }).select(number)];
  return `${number}${ending || "th"}`;
}

// --- the conversation

const empty = $("messages").firstElementChild;
let following = true; // whether the latest stays in view: until somebody scrolls up
$("messages").addEventListener("scroll", ({ target }) => {
  following = target.scrollHeight - target.scrollTop - target.clientHeight < 60;
});

function follow() {
  if (following) $("messages").scrollTop = $("messages").scrollHeight;
}

function add(element) {
  empty.remove();
  $("messages").append(element);
  follow();
  return element;
}

// Text with fenced code, as nodes.
function show(element, text) {
  element.replaceChildren();
  text.split(/^```.*$\n?/m).forEach((part, index) => {
    if (index % 2) element.append(make("pre", part.trimEnd()));
    else if (part.trim()) element.append(make("p", part.trim()));
  });
}

class Answer {
  constructor() {
    this.calls = new Map();
    this.text = "";
    this.element = null;
    this.since = "";
  }

  take(event) {
    if (event.type === "waiting") state(`waiting: ${ordinal(event.position)} in line`, "busy");
    else if (event.type === "behind") state("waiting for your earlier request", "busy");
    else if (event.type === "ready") this.ready(event);
    else if (event.type === "asked") this.asked(event.text);
    else if (event.type === "text") this.say(event.text);
    else if (event.type === "call") this.begin(event);
    else if (event.type === "result") this.end(event);
    else if (event.type === "error") this.fail(event.text);
    else if (event.type === "done") state(this.since, "ready");
  }

  ready({ uptime }) {
    const started = new Date(Date.now() - uptime * 1000);
    this.since = `running since ${started.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
    state(this.since, "busy");
  }

  asked(text) {
    this.element = null;
    const mine = make("div", undefined, { className: "mine" });
    mine.append(make("p", text));
    add(mine);
  }

  say(text) {
    if (!this.element) {
      this.element = add(make("div", undefined, { className: "theirs" }));
      this.text = "";
    }
    this.text += text;
    show(this.element, this.text);
    follow();
  }

  begin({ id, tool, arguments: given }) {
    this.element = null;
    const [[, first] = [], ...others] = Object.entries(given);
    const card = make("details", undefined, { className: "running", open: true });
    const summary = make("summary");
    summary.append(make("b", tool), make("code", first ?? ""), make("span", "running", { className: "mark" }));
    card.append(summary);
    const whole = others.map(([name, value]) => (others.length === 1 ? value : `${name}: ${value}`));
    if (first?.includes("\n")) whole.unshift(first);
    if (whole.length) card.append(make("pre", whole.join("\n").trimEnd(), { className: "given" }));
    this.calls.set(id, add(card));
  }

  end({ id, text, failed }) {
    const card = this.calls.get(id);
    if (!card) return;
    this.calls.delete(id);
    // A command that ran is a tool that worked; people want to see at once how it ended.
    const status = /^\[exit (\d+)/m.exec(text)?.[1] ?? "0";
    const bad = failed || status !== "0";
    card.className = bad ? "failed" : "";
    card.querySelector(".mark").textContent = failed ? "failed" : bad ? `exit ${status}` : "done";
    card.append(make("pre", text.trimEnd()));
    card.open = bad || text.length < 1500;
    follow();
  }

  // Whatever was not heard of again did not end well.
  fail(text) {
    for (const [id] of this.calls) this.end({ id, text: "broken off", failed: true });
    add(make("p", text, { className: "error" }));
    state("failed", "bad");
  }

  stopped() {
    for (const [id, card] of this.calls) {
      this.end({ id, text: "stopped by you", failed: true });
      card.querySelector(".mark").textContent = "stopped";
    }
    state(this.since, "ready");
  }
}

function clear() {
  $("messages").replaceChildren(empty);
  following = true;
}

async function earlier() {
  const asker = user;
  try {
    const events = await (await asked("GET", "/chat")).json();
    const { running } = await (await asked("GET", "/sandbox")).json();
    if (asker !== user || answering) return;
    const shown = new Answer();
    events.forEach((event) => shown.take(event));
    state(running ? "running" : "asleep until you ask for something", running ? "ready" : "");
  } catch (error) { notice(error); }
}

async function say(text) {
  if (!user) return $("name").focus();
  if (answering) return;
  const asking = answering = new AbortController();
  $("send").textContent = "Stop";
  $("text").value = "";
  following = true;
  const shown = new Answer();
  shown.asked(text);
  state("starting…", "busy");
  try {
    const body = JSON.stringify({ text });
    const headers = { "Content-Type": "application/json" };
    const answer = await asked("POST", "/chat", { headers, body, signal: asking.signal });
    await heard(answer.body, (event) => {
      if (asking.signal.aborted) return;
      shown.take(event);
      if (event.type === "result") files();
    });
    if (shown.calls.size) shown.fail("The answer broke off.");
  } catch (error) {
    // When it is another user's turn, this one's conversation is not on the page any more.
    if (asking !== answering) return;
    if (asking.signal.aborted) shown.stopped();
    else shown.fail(error.message);
  }
  if (asking !== answering) return;
  done();
  files();
}

function done() {
  answering = null;
  $("send").textContent = "Send";
}

async function heard(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    events.forEach((event) => take(JSON.parse(event.slice("data: ".length))));
  }
}

// --- files

const path = (name) => (folder ? `${folder}/${name}` : name);
const encoded = (name) => name.split("/").map(encodeURIComponent).join("/");

let looks = 0;
async function files() {
  if (!user) return;
  const look = ++looks;
  try {
    const found = await (await asked("GET", `/files?path=${encodeURIComponent(folder)}`)).json();
    const points = await (await asked("GET", "/checkpoints")).json();
    if (look !== looks) return; // somebody looked again, perhaps as another user or elsewhere
    where();
    const order = (entry) => (entry.kind === "directory" ? 0 : 1);
    found.entries.sort((one, other) => order(one) - order(other) || (one.name < other.name ? -1 : 1));
    $("entries").replaceChildren(...found.entries.map(entry), ...(found.truncated ? [make("li", "… and more")] : []));
    if (!found.entries.length) $("entries").append(make("li", "nothing here yet", { className: "nothing" }));
    $("used").hidden = !found.limit;
    if (found.limit) $("used").value = found.used / found.limit;
    $("room").textContent = found.limit ? `${size(found.used)} of ${size(found.limit)} used` : `${size(found.used)} used`;
    $("points").replaceChildren(...points.reverse().map(point));
  } catch (error) {
    if (look !== looks) return;
    if (folder) { folder = ""; files(); } else notice(error);
  }
}

function enterFolder(to) {
  folder = to;
  files();
}

function where() {
  const steps = ["", ...folder.split("/").filter(Boolean)];
  $("where").replaceChildren(...steps.flatMap((step, index) => {
    const to = steps.slice(1, index + 1).join("/");
    const button = make("button", step || "workspace", { type: "button", onclick: () => enterFolder(to) });
    return index ? [make("span", " / "), button] : [button];
  }));
}

function entry({ name, kind, size: bytes }) {
  const item = make("li");
  const button = make("button", kind === "directory" ? `${name}/` : name, { type: "button" });
  if (kind === "directory") button.onclick = () => enterFolder(path(name));
  else Object.assign(button, { title: "Download", onclick: () => save(`/files/${encoded(path(name))}`, name) });
  const known = kind === "directory" || kind === "file";
  item.append(known ? button : make("span", name), make("small", kind === "file" ? size(bytes) : known ? "" : kind));
  return item;
}

function point({ id, created, files: count, bytes }) {
  const item = make("li");
  const when = new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const about = make("span", when);
  about.append(make("small", ` ${count} ${count === 1 ? "file" : "files"}, ${size(bytes)}`));
  item.append(about, make("button", "Restore", { type: "button", onclick: () => act("POST", `/checkpoints/${id}/restore`) }));
  return item;
}

async function save(from, name) {
  try {
    const link = make("a", "", { href: URL.createObjectURL(await (await asked("GET", from)).blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) { notice(error); }
}

async function upload(chosen) {
  if (!user) return $("name").focus();
  for (const file of chosen) {
    try { await asked("PUT", `/files/${encoded(path(file.name))}`, { body: file }); } catch (error) { notice(error); }
  }
  files();
}

async function act(method, where) {
  try { await asked(method, where); } catch (error) { notice(error); }
  await files();
}

// --- who, and what they press

function enter(name) {
  answering?.abort();
  done();
  user = name.trim();
  localStorage.setItem("user", user);
  $("name").value = user;
  folder = "";
  state("");
  clear();
  document.querySelector("aside").inert = !user;
  if (user) earlier();
  files();
}

function submitted(form, action) {
  $(form).onsubmit = (event) => { event.preventDefault(); action(); };
}

submitted("who", () => { enter($("name").value); $("text").focus(); });
submitted("say", () => { answering ? answering.abort() : $("text").value.trim() && say($("text").value.trim()); });
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!answering) $("say").requestSubmit();
};
document.querySelectorAll(".idea").forEach((idea) => { idea.onclick = () => say(idea.textContent); });
$("anew").onclick = async () => {
  if (!user || !confirm("Forget this conversation? Your files stay.")) return;
  answering?.abort();
  await act("DELETE", "/chat");
  clear();
};
$("pick").onclick = () => $("file").click();
$("file").onchange = async ({ target }) => { await upload(target.files); target.value = ""; };
$("all").onclick = () => save("/archive", "workspace.tar.gz");
$("remember").onclick = () => act("POST", "/checkpoints");
$("forget").onclick = async () => {
  if (!user || !confirm("Delete your files, checkpoints and conversation for good?")) return;
  answering?.abort();
  await act("DELETE", "/everything");
  enter(user);
};

const dragged = (event) => event.dataTransfer?.types.includes("Files");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    $("drop").className = kind.startsWith("drage") || kind === "dragover" ? "over" : "";
    if (kind === "drop") upload(event.dataTransfer.files);
  });
}
enter(user);
