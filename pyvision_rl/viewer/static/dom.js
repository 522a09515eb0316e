// Building pages from plain values. Text only ever enters as text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, entry] of Object.entries(value)) node.style.setProperty(key, entry);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 10) return value.toFixed(1);
  if (size < 0.001 && size > 0) return value.toExponential(1);
  return value.toFixed(size < 0.1 ? digits + 1 : digits);
}

export function fixed(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

export function signed(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

export function words(name) {
  return name.replaceAll("_", " ");
}

// The beginning of a text, which a policy or a data set may have made as long as it likes.
export function brief(text, most = 160) {
  return text.length > most ? `${text.slice(0, most).trimEnd()}…` : text;
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function ago(unixSeconds) {
  const seconds = Math.max(0, Date.now() / 1000 - unixSeconds);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unixSeconds * 1000).toISOString().slice(0, 10);
}

export function address(...parts) {
  return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}`;
}

export function trajectoryAddress(run, ref, query = "") {
  return address("t", run, ref.phase, ref.step, ref.group, ref.index) + (query ? `?${query}` : "");
}

export function isRight(row) {
  return row.accuracy >= 0.5;
}

const REASONS = {
  right_negative: "a right answer with negative advantage",
  "group/constant": "all rewards of the group were equal",
  "group/ranked_below": "the group ranked below the cut",
  "group/no_trajectory": "no trajectory of the group was usable",
  sandbox_lost: "the sandbox was lost",
  max_tokens: "ran out of tokens",
  max_images: "ran out of images",
  no_action: "neither program nor answer",
  without_look: "never looked at an image of its own",
};

export function reasonText(reason) {
  return REASONS[reason] ?? words(reason);
}

export function pill(text, tone = "", title = "") {
  return h("span", { class: `pill ${tone}`, title: title || null }, text);
}

export function reveal(node, block = "start") {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  node?.scrollIntoView({ behavior: calm ? "instant" : "smooth", block });
}

export function verdict(row) {
  if (row.stop === "sandbox_lost") return pill("lost", "warn", "the sandbox failed: counts for nothing");
  return isRight(row) ? pill("✓ right", "good") : pill("✗ wrong", "bad");
}

export function notice(text, tone = "") {
  return h("p", { class: `notice ${tone}`, role: "status" }, text);
}

export function select(label, value, options, onChange) {
  const control = h("select", { "aria-label": label, onchange: (event) => onChange(event.target.value) },
    options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)));
  return h("label", { class: "field" }, h("span", {}, label), control);
}
