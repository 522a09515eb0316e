// A given image with the places drawn on it that programs cropped; a video with its fetched frames.
import { h, number, s } from "./dom.js";

export function turnColour(turn) {
  return `var(--line-${turn % 8})`;
}

function boxShape(crop, width, height, onPick) {
  const [left, top, right, bottom] = crop.box;
  const unit = Math.max(width, height);
  const size = unit * 0.045;
  const above = top > size * 1.2;
  const label = String(crop.turn + 1);
  const wide = size * (0.5 + 0.55 * label.length);
  const labelTop = above ? top - size : top;
  return s("g", { class: "box", style: { color: turnColour(crop.turn) }, "data-turn": crop.turn, onclick: (event) => { event.stopPropagation(); onPick(crop.turn); } },
    s("title", {}, `turn ${label}: ${crop.box.map((side) => Math.round(side)).join(", ")}`),
    s("rect", { class: "edge", x: left, y: top, width: right - left, height: bottom - top, "vector-effect": "non-scaling-stroke" }),
    s("rect", { class: "flag", x: left, y: labelTop, width: wide, height: size }),
    s("text", { x: left + wide / 2, y: labelTop + size * 0.78, "font-size": size * 0.82, "text-anchor": "middle" }, label));
}

// An image with what programs cut out of it, drawn in the pixels that it has in the runtime.
export function imageWithBoxes({ url, alt, crops, onPick, onOpen }) {
  const byKey = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); onOpen(); } };
  const image = h("img", { src: url, alt, role: "button", tabindex: "0", onclick: onOpen, onkeydown: byKey });
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 240));
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "unreadable" }, `${alt} cannot be read`)));
  return h("div", { class: "boxed" }, image, boxesOver(crops, onPick));
}

export function boxesOver(crops, onPick) {
  if (!crops.length) return null;
  const [width, height] = crops[0].size;
  return s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, crops.map((crop) => boxShape(crop, width, height, onPick)));
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// filmUrl and frameUrl(frame) may be null where the video cannot be shown.
export function timeline({ video, name, fetches, onPick, filmUrl, frameUrl }) {
  const asked = fetches.flatMap((fetch) => fetch.frames.map((frame) => ({ frame, turn: fetch.turn })));
  const count = video.num_frames || Math.max(1, ...asked.map(({ frame }) => frame + 1));
  const at = (frame) => `${(frame / Math.max(1, count - 1)) * 100}%`;
  const when = (frame) => (video.fps ? `${clock(frame / video.fps)}, frame ${number(frame)}` : `frame ${number(frame)}`);
  const length = video.num_frames ? `${number(video.num_frames)} frames${video.fps ? `, ${clock(video.num_frames / video.fps)}` : ""}` : "length unknown";
  const peek = h("div", { class: "peek", hidden: true });
  const show = (frame, text) => {
    const url = video.num_frames ? frameUrl(frame) : null;
    peek.replaceChildren(url ? h("img", { src: url, alt: text }) : "", h("span", { class: "muted" }, text));
    peek.hidden = false;
  };
  const mark = ({ frame, turn }) => {
    const text = `turn ${turn + 1}: ${when(frame)}`;
    return h("button", { type: "button", class: "frame", style: { left: at(frame), color: turnColour(turn) }, title: text, "aria-label": text, onclick: () => onPick(turn), onpointerenter: () => show(frame, text), onfocus: () => show(frame, text) });
  };
  const first = video.first_seen.map((frame) => h("i", { class: "first", style: { left: at(frame) }, title: `${when(frame)}, in the prompt` }));
  const ends = video.fps ? [clock(0), clock(count / video.fps)] : ["frame 0", `frame ${number(count - 1)}`];
  return h("div", { class: "timeline", onpointerleave: () => { peek.hidden = true; } },
    h("div", { class: "caption" }, h("code", {}, name), h("span", { class: "muted" }, `${length} · ${asked.length} fetched${first.length ? `, ${first.length} in the prompt` : ""}`)),
    h("div", { class: `track ${filmUrl ? "filmed" : ""}` }, filmUrl && h("img", { class: "film", src: filmUrl, alt: `frames of ${name}` }), h("div", { class: "marks" }, first, asked.map(mark))),
    h("div", { class: "ends" }, ends.map((end) => h("span", {}, end))), peek);
}
