// Asking the agent about images and videos of one's own: its turns appear as they come.
import { h, notice, pill, reveal, words } from "./dom.js";
import { givenMedia, toTurn } from "./trajectory.js";
import { figuresOf, openFigures, turnNode } from "./turns.js";

async function sendFile(file) {
  const response = await fetch(`/api/file?${new URLSearchParams({ name: file.name })}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return { ...answer, name: file.name, url: URL.createObjectURL(file) };
}

function previewNode(file, name) {
  const shown = file.kind === "image" ? h("img", { src: file.url, alt: name }) : h("video", { src: file.url, controls: true, muted: true, preload: "metadata", "aria-label": name });
  return h("figure", {}, shown, h("figcaption", {}, h("code", {}, name), h("span", { class: "muted" }, ` ${file.name}`)));
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

export async function askPage(route, app) {
  const files = h("input", { type: "file", accept: "image/*,video/*", multiple: true, id: "files" });
  const question = h("textarea", { id: "question", rows: 2, placeholder: "What do you want to know about it?" });
  const send = h("button", { type: "submit", class: "button primary" }, "Ask");
  const preview = h("div", { class: "preview" });
  const media = h("div", { class: "media" });
  const turns = h("ol", { class: "turns" });
  const status = h("p", { class: "ending muted", role: "status" });
  let sent = [];
  let sending = null;
  const ofKind = (kind) => sent.filter((file) => file.kind === kind);

  // Files go to the server as soon as they are chosen; a question waits for them.
  async function choose(chosen) {
    for (const file of sent) URL.revokeObjectURL(file.url);
    sent = [];
    preview.replaceChildren(notice("reading"));
    sent = await Promise.all(chosen.map(sendFile));
    preview.replaceChildren(...["image", "video"].flatMap((kind) => ofKind(kind).map((file, place) => previewNode(file, `${kind}_clue_${place}`))));
  }
  function take(chosen) {
    sending = choose([...chosen]).catch((error) => { preview.replaceChildren(notice(error.message, "bad")); });
  }
  files.addEventListener("change", () => take(files.files));

  async function ask(event) {
    event.preventDefault();
    if (!question.value.trim() || send.disabled) { question.focus(); return; }
    send.disabled = true;
    await sending;
    if (preview.querySelector(".bad")) { send.disabled = false; return; }
    turns.replaceChildren();
    media.replaceChildren();
    status.replaceChildren(h("span", { class: "thinking" }, "the agent is thinking"));
    const images = new Map();
    const views = [];
    let opening = null;
    let ended = false;
    try {
      const response = await fetch("/api/ask", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ question: question.value, files: sent.map((file) => file.file) }) });
      for await (const message of lines(response)) {
        for (const [sha1, url] of Object.entries(message.images ?? {})) images.set(sha1, url);
        if (message.error) throw new Error(message.error);
        if (message.opening) { opening = message.opening; preview.replaceChildren(); }
        if (message.turn) {
          views.push(message.turn);
          opening.looks = message.looks;
          opening.turns = views;
          const figures = figuresOf(opening, (sha1) => images.get(sha1));
          turns.replaceChildren(...views.map((turn, place) => turnNode(turn, place, figures[place], (index) => openFigures(figures, index), toTurn)));
          reveal(turns.lastElementChild, "nearest");
        }
        if (opening) media.replaceChildren(...givenMedia(opening, { original: (k) => ofKind("image")[k]?.url ?? null, seen: (sha1) => images.get(sha1), film: () => null, frame: () => null }, toTurn));
        ended ||= Boolean(message.stop);
        if (message.stop) status.replaceChildren(message.answer === null ? pill(words(message.stop), "warn") : pill(`answer: ${message.answer}`, "good"));
      }
      if (!ended) throw new Error("The episode broke off: the command that serves this page has failed or ended.");
    } catch (error) {
      status.replaceChildren(notice(error.message, "bad"));
    } finally {
      send.disabled = false;
    }
  }
  question.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) ask(event); });
  const form = h("form", {
    class: "card ask", onsubmit: ask, ondragover: (event) => event.preventDefault(),
    ondrop: (event) => { event.preventDefault(); files.files = event.dataTransfer.files; take(files.files); },
  },
    h("label", { class: "field" }, h("span", {}, "Images or videos"), files), preview, h("label", { class: "field" }, h("span", {}, "Question"), question), send, h("span", { class: "muted" }, app.hello.model));
  return { title: "Ask", node: h("div", { class: "page trajectory" }, h("div", { class: "columns" }, h("aside", {}, form, media), h("div", { class: "conversation" }, turns, status))) };
}
