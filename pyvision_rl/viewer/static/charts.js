// Line charts as SVG: several runs overlaid, a value's kinds as thinner lines.
import { h, number, s } from "./dom.js";

const WIDTH = 380;
const HEIGHT = 190;
const LEFT = 40;
const RIGHT_EDGE = 10;
const TOP = 10;
const BOTTOM = 22;
const MAX_POINTS = 600;

function niceTicks(low, high, count) {
  const span = high - low || 1;
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
  const first = Math.ceil(low / step - 1e-6);
  const last = Math.floor(high / step + 1e-6);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => Number(((first + place) * step).toPrecision(12)));
}

const UNITS = [[1e9, "B"], [1e6, "M"], [1e4, "k"]];

// As many digits as tell one tick from the next.
function tickText(tick, step) {
  if (tick === 0 && step < 0.001) return "0";
  const size = Math.abs(tick);
  const power = Math.floor(Math.log10(step) + 1e-9);
  const fraction = Math.abs(step / 10 ** power - 2.5) < 1e-6 ? 1 : 0;
  const digits = (least) => Math.max(0, Math.min(12, least - power + fraction));
  if (size > 0 && size < 0.001) return tick.toExponential(digits(Math.floor(Math.log10(size) + 1e-9)));
  const [least, name] = UNITS.find(([from]) => size >= from) ?? [1, ""];
  const unit = name === "k" ? 1000 : least;
  return `${(tick / unit).toFixed(digits(Math.log10(unit)))}${name}`;
}

export function smooth(points, weight) {
  if (!weight) return points;
  let mean = 0;
  let mass = 0;
  return points.map(([x, y]) => {
    if (Number.isNaN(y)) return [x, y];
    mean = weight * mean + (1 - weight) * y;
    mass = weight * mass + (1 - weight);
    return [x, mean / mass];
  });
}

// Of each stretch of points the lowest and the highest stay: spikes survive.
function thin(points) {
  if (points.length <= MAX_POINTS) return points;
  const size = Math.ceil(points.length / (MAX_POINTS / 2));
  const kept = [];
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(start, start + size);
    const sorted = [...part].sort((a, b) => a[1] - b[1]);
    kept.push(...[sorted[0], sorted.at(-1)].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}

// The stretches of points between those whose value is not finite.
function stretches(points) {
  const parts = [[]];
  for (const point of points) if (Number.isNaN(point[1])) parts.push([]); else parts.at(-1).push(point);
  return parts.filter((part) => part.length);
}

function path(points, x, y) {
  const at = ([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
  return stretches(points).map((part) => `M${thin(part).map(at).join("L")}${part.length > 1 ? "" : `L${at(part[0])}`}`).join("");
}

function bounds(lines, share) {
  const xs = lines.flatMap((line) => [line.points[0][0], line.points.at(-1)[0]]);
  const ys = lines.flatMap((line) => line.points.map((point) => point[1]).filter(Number.isFinite));
  let [left, right] = [Math.min(...xs), Math.max(...xs)];
  if (left === right) [left, right] = [left - 1, right + 1];
  if (share) return { left, right, low: 0, high: 1 };
  let low = ys.reduce((a, b) => Math.min(a, b), Infinity);
  let high = ys.reduce((a, b) => Math.max(a, b), -Infinity);
  if (low >= 0 && low < 0.6 * high) low = 0;
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5];
  const room = (high - low) * 0.06;
  return { left, right, low: low === 0 ? 0 : low - room, high: high + room };
}

// A flag at the step of a warning; its sentence comes up on hover, focus or a tap.
function markNode(mark, x, show, hide) {
  return s("g", { class: "mark", tabindex: "0", role: "img", "aria-label": `warning at step ${mark.step}: ${mark.text}`, "data-mark": mark.id, onpointerenter: () => show(mark), onpointerleave: hide, onfocus: () => show(mark), onblur: hide },
    s("rect", { class: "reach", x: x - 9, y: 0, width: 18, height: HEIGHT - BOTTOM }),
    s("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
    s("path", { d: `M${x} ${TOP + 3}l-6 -11h12z` }));
}

function bandNode([first, last], x) {
  const from = Math.max(LEFT, x(first - 0.5));
  const to = Math.min(WIDTH - RIGHT_EDGE, x(last + 0.5));
  return s("rect", { class: "band", x: from, y: HEIGHT - BOTTOM - 4, width: Math.max(2, to - from), height: 4 });
}

// lines: [{ label, colour, points: [[step, value]], thin }], NaN where a value is not finite, which is
// not so for all; share: the axis runs from 0 to 1.
// marks: [{ id, step, text, title }], warnings drawn at their step; bands: [[first, last]], steps in trouble.
export function chart({ title, lines, share = false, weight = 0, onStep = null, marks = [], bands = [] }) {
  const drawn = lines.filter((line) => line.points.length);
  const { left, right, low, high } = bounds(drawn, share);
  const x = (value) => LEFT + ((value - left) / (right - left)) * (WIDTH - LEFT - RIGHT_EDGE);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const ticks = niceTicks(low, high, 4);
  const grid = ticks.map((tick) => [
    s("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT_EDGE, y1: y(tick), y2: y(tick) }),
    s("text", { class: "tick", x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" }, share ? `${Math.round(tick * 100)}%` : tickText(tick, ticks[1] - ticks[0])),
  ]);
  const steps = niceTicks(left, right, 5).filter((tick) => Number.isInteger(tick) && tick >= 0).map((tick) =>
    s("text", { class: "tick", x: x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, number(tick)));
  const curves = drawn.map((line) => {
    const smoothed = smooth(line.points, weight);
    return s("g", { style: { color: line.colour } },
      weight > 0 && s("path", { class: "curve faint", d: path(line.points, x, y) }),
      s("path", { class: `curve ${line.thin ? "thin" : ""}`, d: path(smoothed, x, y) }),
      line.points.length <= 30 && stretches(smoothed).flat().map(([px, py]) => s("circle", { class: "dot", cx: x(px), cy: y(py), r: line.thin ? 1.6 : 2.4 })));
  });
  const cursor = s("g", { class: "cursor" });
  const tip = h("div", { class: "tip", hidden: true });
  const image = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title, class: onStep ? "clickable" : "" }, grid, steps, curves, cursor);
  const read = (event) => {
    const box = image.getBoundingClientRect();
    const wanted = left + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT_EDGE) * (right - left);
    const all = drawn.flatMap((line) => line.points.map((point) => point[0]));
    return all.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), all[0]);
  };
  const point = (event) => {
    const step = read(event);
    const rows = drawn.map((line) => ({ line, value: line.points.find((candidate) => candidate[0] === step)?.[1] }))
      .filter((row) => row.value !== undefined).sort((a, b) => b.value - a.value);
    cursor.replaceChildren(s("line", { x1: x(step), x2: x(step), y1: TOP, y2: HEIGHT - BOTTOM }),
      ...rows.filter((row) => !Number.isNaN(row.value)).map((row) => s("circle", { cx: x(step), cy: y(row.value), r: 3.2, style: { color: row.line.colour } })));
    tip.replaceChildren(h("b", {}, `step ${step}`), ...rows.map((row) =>
      h("div", {}, h("i", { class: "swatch", style: { background: row.line.colour } }), h("span", {}, row.line.label), h("b", {}, Number.isNaN(row.value) ? "NaN" : number(row.value, 3)))));
    tip.hidden = false;
    tip.classList.remove("below");
    tip.classList.toggle("left", x(step) > WIDTH / 2);
  };
  const hide = () => { tip.hidden = true; cursor.replaceChildren(); };
  const warn = (mark) => {
    cursor.replaceChildren();
    tip.replaceChildren(h("b", { class: "warned" }, mark.title), h("p", {}, mark.text));
    tip.hidden = false;
    tip.classList.add("below");
  };
  const inside = marks.filter((mark) => mark.step >= left && mark.step <= right);
  image.append(...bands.map((band) => bandNode(band, x)), ...inside.map((mark) => markNode(mark, x(mark.step), warn, hide)));
  image.addEventListener("pointermove", (event) => { if (!event.target.closest(".mark")) point(event); });
  image.addEventListener("pointerleave", hide);
  if (onStep) image.addEventListener("click", (event) => { if (!event.target.closest(".mark")) onStep(read(event)); });
  return h("div", { class: "plot" }, image, tip);
}
