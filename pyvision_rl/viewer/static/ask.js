// Asking the agent about an image of one's own: its turns appear as they come.
import { h, notice, pill, reveal, words } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { givenMedia } from "./trajectory.js";
import { figuresOf, turnNode } from "./turns.js";

function readDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
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
  const files = h("input", { type: "file", accept: "image/*", multiple: true, id: "files" });
  const question = h("textarea", { id: "question", rows: 2, placeholder: "What do you want to know about it?" });
  const send = h("button", { type: "submit", class: "button primary" }, "Ask");
  const preview = h("div", { class: "preview" });
  const media = h("div", { class: "media" });
  const turns = h("ol", { class: "turns" });
  const status = h("p", { class: "ending muted", role: "status" });
  let urls = [];

  async function choose() {
    urls = await Promise.all([...files.files].map(readDataUrl));
    preview.replaceChildren(...urls.map((url, place) => h("img", { src: url, alt: `image_clue_${place}` })));
  }
  files.addEventListener("change", choose);

  async function ask(event) {
    event.preventDefault();
    if (!question.value.trim()) { question.focus(); return; }
    send.disabled = true;
    turns.replaceChildren();
    media.replaceChildren();
    status.replaceChildren(h("span", { class: "thinking" }, "the agent is thinking"));
    const images = new Map();
    const views = [];
    let opening = null;
    try {
      const response = await fetch("/api/ask", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ question: question.value, images: urls }) });
      for await (const message of lines(response)) {
        for (const [sha1, url] of Object.entries(message.images ?? {})) images.set(sha1, url);
        if (message.error) throw new Error(message.error);
        if (message.opening) opening = message.opening;
        if (message.turn) {
          views.push(message.turn);
          opening.looks = message.looks;
          opening.turns = views;
          const figures = figuresOf(views, (sha1) => images.get(sha1));
          turns.append(turnNode(message.turn, views.length - 1, figures.at(-1), (place) => openLightbox(figures.flat(), place)));
          reveal(turns.lastElementChild, "nearest");
        }
        if (opening) media.replaceChildren(...givenMedia(opening, (k) => urls[k] ?? null, (sha1) => images.get(sha1), () => {}));
        if (message.stop) status.replaceChildren(message.answer === null ? pill(words(message.stop), "warn") : pill(`answer: ${message.answer}`, "good"));
      }
    } catch (error) {
      status.replaceChildren(notice(error.message, "bad"));
    } finally {
      send.disabled = false;
      preview.replaceChildren();
    }
  }
  question.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) ask(event); });
  const form = h("form", { class: "card ask", onsubmit: ask },
    h("label", { class: "field" }, h("span", {}, "Images"), files), preview, h("label", { class: "field" }, h("span", {}, "Question"), question), send, h("span", { class: "muted" }, app.hello.model));
  return { title: "Ask", node: h("div", { class: "page trajectory" }, h("div", { class: "columns" }, h("aside", {}, form, media), h("div", { class: "conversation" }, turns, status))) };
}
