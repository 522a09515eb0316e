// The turns of a trajectory: thought, program, output, figures, answer, and their tokens.
import { boxesOver, turnColour } from "./boxes.js";
import { h, number, pill, plural } from "./dom.js";
import { openLightbox } from "./lightbox.js";

const LONG_LINES = 28;

function clamped(node, text) {
  if (text.split("\n").length <= LONG_LINES && text.length < 6000) return node;
  node.classList.add("clamped");
  const button = h("button", { type: "button", class: "link", onclick: () => {
    const open = node.classList.toggle("clamped");
    button.textContent = open ? "show all" : "show less";
  } }, "show all");
  return [node, button];
}

function segmentNode(segment) {
  const text = segment.pieces.map((piece) => piece[1]).join("");
  if (segment.kind === "code") {
    return clamped(h("pre", { class: "code" }, h("code", {}, segment.pieces.map(([style, part]) => (style ? h("span", { class: `py-${style}` }, part) : part)))), text);
  }
  if (segment.kind === "answer") return h("div", { class: "answered" }, h("span", { class: "muted" }, "answer"), h("b", {}, text || "(empty)"));
  return h("p", { class: "thought" }, text);
}

export function notKept() {
  return h("span", { class: "unkept", title: "the run keeps the images of some groups of a step only" }, "picture not kept");
}

// A figure, with what later programs cut out of it.
function figureNode(item, open, onPick) {
  if (!item.url) return h("figure", {}, notKept(), h("figcaption", {}, h("code", {}, item.caption)));
  const image = h("img", { src: item.url, alt: item.caption, loading: "lazy" });
  image.addEventListener("load", () => {
    image.classList.toggle("pixels", image.naturalWidth < 240);
    size.textContent = ` ${image.naturalWidth} × ${image.naturalHeight}`;
  });
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "unreadable" }, "this image cannot be read")));
  const size = h("span", { class: "muted" });
  return h("figure", {}, h("div", { class: "boxed-figure" }, h("button", { type: "button", class: "picture", onclick: () => open(item.place), "aria-label": `enlarge ${item.caption}` }, image), boxesOver(item.crops, onPick)), h("figcaption", {}, h("code", {}, item.caption), size));
}

function resultNode(result, figures, open, onPick) {
  const parts = [];
  if (result.output) parts.push(clamped(h("pre", { class: `output ${result.ok ? "" : "mixed"}` }, result.output), result.output));
  if (result.traceback) parts.push(clamped(h("pre", { class: "output error" }, result.traceback), result.traceback));
  if (figures.length) parts.push(h("div", { class: "figures" }, figures.map((item) => figureNode(item, open, onPick))));
  if (!parts.length) parts.push(h("p", { class: "muted nothing" }, "The program printed and showed nothing."));
  return h("div", { class: `result ${result.ok ? "" : "failed"}` },
    h("div", { class: "label" }, h("span", {}, result.ok ? "output" : "output, with an error"), h("span", { class: "muted" }, [plural(result.num_tokens, "token"), result.num_visual_tokens ? `, ${number(result.num_visual_tokens)} of them visual` : ""])), parts);
}

// Where a view's image comes from, null for one that the run did not keep.
export function urlsOf(view, imageUrl) {
  const gone = new Set(view.not_kept);
  return (sha1) => (gone.has(sha1) ? null : imageUrl(sha1));
}

// A figure's place is its number among those of the trajectory that can be shown.
export function figuresOf({ turns, looks }, imageUrl) {
  let place = 0;
  return turns.map((turn) => (turn.result?.figures ?? []).map((sha1, index) => {
    const number = turn.result.first_figure + index;
    const url = imageUrl(sha1);
    return { url, caption: `image_clue_${number}`, place: url ? place++ : null, crops: looks.crops.filter((crop) => crop.image === number) };
  }));
}

export function openFigures(figures, place) {
  openLightbox(figures.flat().filter((item) => item.url), place);
}

export function turnNode(turn, place, figures, open, onPick) {
  const notes = [];
  if (turn.finish === "length") notes.push(pill("cut at the token limit", "warn"));
  if (turn.has_code && !turn.result) notes.push(pill("program not run, or its result not taken", "warn"));
  if (turn.result && !turn.result.ok) notes.push(pill("failed", "bad"));
  return h("li", { class: "turn", id: `turn-${place}` },
    h("div", { class: "bullet", style: { "--turn": turnColour(place) } }, String(place + 1)),
    h("div", { class: "said" }, h("div", { class: "label" }, h("span", { class: "notes" }, `turn ${place + 1}`, notes), h("span", {}, plural(turn.num_tokens, "token"))),
      turn.segments.length ? turn.segments.map(segmentNode) : h("p", { class: "muted nothing" }, "The policy wrote nothing."),
      turn.result && resultNode(turn.result, figures, open, onPick)));
}

export function turnStrip(turns, onPick) {
  if (turns.length < 5) return null;
  return h("nav", { class: "strip", "aria-label": "turns" }, turns.map((turn, place) => {
    const tone = turn.result ? (turn.result.ok ? "ok" : "failed") : turn.has_code ? "unrun" : "silent";
    return h("button", { type: "button", class: tone, title: `turn ${place + 1}`, onclick: () => onPick(place) }, turns.length <= 60 ? String(place + 1) : "");
  }));
}

function tokenNode(run, place) {
  const text = run.texts[place].replaceAll("\n", "⏎\n");
  const count = run.counts[place];
  if (!run.logprobs.length) return h("span", { class: "given", title: `id ${run.token_ids[place]}, not sampled: loss mask 0` }, text, count > 1 ? h("sup", {}, `×${count}`) : "");
  const logprob = run.logprobs[place];
  const known = logprob !== null;
  const probability = known ? Math.exp(logprob) : 1;
  return h("span", {
    class: "sampled", style: { "--doubt": `${Math.round((1 - probability) * 100)}%` },
    title: `id ${run.token_ids[place]}, ${known ? `log-prob ${logprob.toFixed(3)}, probability ${(probability * 100).toFixed(1)}%` : "log-prob unknown"}, loss mask 1`,
  }, text);
}

export function tokensNode(view, isInLoss, reason) {
  const sampled = view.runs.filter((run) => run.logprobs.length);
  const logprobs = sampled.flatMap((run) => run.logprobs);
  // Those that a server did not tell, or that were not finite, are null.
  const told = logprobs.filter((value) => value !== null);
  const mean = told.reduce((sum, value) => sum + value, 0) / told.length;
  const given = view.runs.flatMap((run) => (run.logprobs.length ? [] : run.counts)).reduce((sum, count) => sum + count, 0);
  return h("section", { class: "tokens" },
    h("h2", {}, "Tokens"),
    h("p", { class: "muted" }, `${plural(logprobs.length, "sampled token")} (loss mask 1), ${told.length ? `mean log-prob ${mean.toFixed(3)}` : "log-probs unknown"}; ${plural(given, "token")} given (loss mask 0). `,
      isInLoss ? "" : `This trajectory was not in the loss: ${reason}. `, view.known ? "" : "The run's tokenizer was not found: ids are shown."),
    h("div", { class: "legend" }, h("span", { class: "scale" }), h("span", {}, "certain to surprised"), h("span", {}, h("span", { class: "given" }, "not sampled"))),
    h("div", { class: "stream" }, view.runs.map((run) => h("span", { class: run.logprobs.length ? "run" : "run masked" }, run.texts.map((_, place) => tokenNode(run, place))))));
}
