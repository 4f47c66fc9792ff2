// Everything that comes from the model, its tools or a file's name becomes text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
let user = localStorage.getItem("user") || "";
let folder = "";
let busy = false;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  Object.assign(element, attributes);
  return element;
}

function call(method, path, options = {}) {
  return fetch(path, { method, ...options, headers: { "X-User": encodeURIComponent(user), ...options.headers } });
}

async function asked(method, path, options) {
  const answer = await call(method, path, options);
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

function state(text, kind) {
  $("state").textContent = text;
  $("state").className = kind;
}

function size(bytes) {
  for (const unit of ["bytes", "KiB", "MiB"]) {
    if (bytes < 1024) return `${unit === "bytes" ? bytes : bytes.toFixed(1)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} GiB`;
}

// --- the conversation

function add(element) {
  const messages = $("messages");
  messages.querySelector(".empty")?.remove();
  const low = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 80;
  messages.append(element);
  if (low) element.scrollIntoView({ block: "end" });
  return element;
}

// Text with fenced code, as nodes.
function show(element, text) {
  element.replaceChildren();
  text.split(/^```.*$\n?/m).forEach((part, index) => {
    if (index % 2) element.append(make("pre", part));
    else if (part.trim()) element.append(make("span", part.trim()));
  });
}

class Answer {
  constructor() {
    this.calls = new Map();
    this.text = "";
    this.element = null;
  }

  take(event) {
    if (event.type === "starting") state("starting…", "busy");
    else if (event.type === "waiting") state(`waiting: number ${event.position} in line`, "busy");
    else if (event.type === "ready") state("at work", "busy");
    else if (event.type === "text") this.say(event.text);
    else if (event.type === "call") this.begin(event);
    else if (event.type === "result") this.end(event);
    else if (event.type === "error") {
      add(make("p", event.text, { className: "error" }));
      state("failed", "bad");
    } else if (event.type === "done") state("ready", "ready");
  }

  say(text) {
    this.element ||= add(make("div", undefined, { className: "theirs" }));
    this.text += text;
    show(this.element, this.text);
    $("messages").scrollTop = $("messages").scrollHeight;
  }

  begin({ id, tool, arguments: given }) {
    this.element = null;
    this.text = "";
    const card = make("details", undefined, { className: "running", open: true });
    const summary = make("summary");
    const first = Object.values(given)[0];
    summary.append(make("b", tool), make("code", first === undefined ? "" : String(first)), make("span", "", { className: "mark" }));
    card.append(summary);
    if (Object.keys(given).length > 1) card.append(make("pre", Object.values(given).slice(1).map(String).join("\n")));
    this.calls.set(id, add(card));
  }

  end({ id, text, cut }) {
    const card = this.calls.get(id);
    if (!card) return;
    card.className = "";
    card.querySelector(".mark").textContent = "done";
    card.append(make("pre", text + (cut ? "\n… (there is more)" : "")));
    card.open = text.length < 1500;
    files();
  }
}

async function say(text) {
  if (busy || !user) return $("name").focus();
  busy = $("send").disabled = true;
  const mine = make("div", undefined, { className: "mine" });
  mine.append(make("p", text));
  add(mine);
  try {
    const answer = await asked("POST", "/chat", { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text }) });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const shown = new Answer();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      parts.forEach((part) => shown.take(JSON.parse(part.slice("data: ".length))));
    }
  } catch (error) {
    notice(error);
    state("failed", "bad");
  }
  busy = $("send").disabled = false;
  files();
}

// --- files

const path = (name) => (folder ? `${folder}/${name}` : name);
const encoded = (name) => name.split("/").map(encodeURIComponent).join("/");

async function files() {
  if (!user) return;
  try {
    const found = await (await asked("GET", `/files?path=${encodeURIComponent(folder)}`)).json();
    where();
    $("entries").replaceChildren(...found.entries.map(entry), ...(found.truncated ? [make("li", "… and more")] : []));
    $("used").hidden = !found.limit;
    if (found.limit) $("used").value = found.used / found.limit;
    $("room").textContent = found.limit ? `${size(found.used)} of ${size(found.limit)}` : size(found.used);
    points();
  } catch (error) {
    if (folder) { folder = ""; files(); } else notice(error);
  }
}

function where() {
  const steps = ["", ...folder.split("/").filter(Boolean)];
  $("where").replaceChildren(...steps.flatMap((step, index) => {
    const to = steps.slice(1, index + 1).join("/");
    const button = make("button", step || "workspace", { type: "button", onclick: () => { folder = to; files(); } });
    return index ? [make("span", " / "), button] : [button];
  }));
}

function entry({ name, kind, size: bytes }) {
  const item = make("li");
  if (kind === "directory") item.append(make("button", `${name}/`, { type: "button", onclick: () => { folder = path(name); files(); } }));
  else if (kind === "file") item.append(make("button", name, { type: "button", title: "Download", onclick: () => save(`/files/${encoded(path(name))}`, name) }), make("small", size(bytes)));
  else item.append(make("span", name), make("small", kind));
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
  for (const file of chosen) {
    try { await asked("PUT", `/files/${encoded(path(file.name))}`, { body: file }); } catch (error) { notice(error); }
  }
  files();
}

// --- going back

async function points() {
  const found = await (await asked("GET", "/checkpoints")).json();
  $("points").replaceChildren(...found.reverse().map(({ id, created, bytes }) => {
    const item = make("li");
    item.append(make("span", new Date(created).toLocaleString()), make("small", size(bytes)));
    item.append(make("button", "Restore", { type: "button", onclick: () => act("POST", `/checkpoints/${id}/restore`) }));
    return item;
  }));
}

async function act(method, where) {
  try { await asked(method, where); } catch (error) { notice(error); }
  files();
}

// --- who, and what they press

function enter(name) {
  user = name.trim();
  localStorage.setItem("user", user);
  $("name").value = user;
  folder = "";
  state(user ? "no sandbox yet: say something" : "", "");
  files();
}

$("who").onsubmit = (event) => { event.preventDefault(); $("messages").replaceChildren(); enter($("name").value); $("text").focus(); };
$("say").onsubmit = (event) => { event.preventDefault(); const text = $("text").value.trim(); if (text && user) { $("text").value = ""; say(text); } else $("name").focus(); };
$("text").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("say").requestSubmit(); } };
document.querySelectorAll(".idea").forEach((idea) => { idea.onclick = () => say(idea.textContent); });
$("pick").onclick = () => $("file").click();
$("file").onchange = () => { upload($("file").files); };
$("all").onclick = () => save("/archive", "workspace.tar.gz");
$("remember").onclick = () => act("POST", "/checkpoints");
$("forget").onclick = () => { if (confirm("Delete your files, checkpoints and conversation for good?")) act("DELETE", "/everything"); };
["dragenter", "dragover"].forEach((name) => document.addEventListener(name, (event) => { event.preventDefault(); $("drop").className = "over"; }));
["dragleave", "drop"].forEach((name) => document.addEventListener(name, (event) => { event.preventDefault(); $("drop").className = ""; }));
document.addEventListener("drop", (event) => upload(event.dataTransfer.files));
enter(user);
