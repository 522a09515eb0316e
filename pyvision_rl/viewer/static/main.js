// The frame around the pages: addresses, navigation, keys, light and dark, keeping up with a run.
import { askPage } from "./ask.js";
import { address, h, notice, select } from "./dom.js";
import { groupsPage } from "./groups.js";
import { lightboxIsOpen } from "./lightbox.js";
import { listPage } from "./list.js";
import { overviewPage } from "./overview.js";
import { EmbeddedSource, ServerSource } from "./source.js";
import { comparePage, trajectoryPage } from "./trajectory.js";

const POLL_MS = 2000;
const PAGES = { "": overviewPage, groups: groupsPage, list: listPage, t: trajectoryPage, compare: comparePage, ask: askPage };
const KEYS = [
  ["j  k", "next and previous trajectory, row or group"], ["← →", "sibling, step or column"], ["Enter", "open"], ["t", "tokens and log-probs"], ["c", "group side by side"],
  ["o", "image as the policy saw it"], ["u", "up, to the list or the step"], ["/", "search"], ["1 2 3", "curves, groups, trajectories"], ["d", "light or dark"], ["?", "this help"],
];

const embedded = document.getElementById("embedded");
const main = h("main", {});
const tabs = h("nav", { class: "tabs", "aria-label": "pages" });
const live = h("span", { class: "live-state", role: "status" });
const app = {
  source: embedded ? new EmbeddedSource(JSON.parse(embedded.textContent)) : new ServerSource(),
  hello: null, runs: [], show,

  run(name) {
    const known = this.runs.find((run) => run.name === name);
    if (known) return known;
    if (name !== undefined) throw new Error(`There is no run ${name} here.`);
    const first = this.runs.find((run) => run.phases.includes("train")) ?? this.runs.find((run) => run.num_trajectories) ?? this.runs[0];
    if (!first) throw new Error("There is no run here any more.");
    return first;
  },
  runPicker(run, page) {
    const names = this.runs.filter((other) => other.num_trajectories || other === run).map((other) => [other.name, other.name]);
    return names.length > 1 ? select("Run", run.name, names, (name) => { location.hash = address(page, name); }) : h("b", { class: "only-run" }, run.name);
  },
  async lastStep(name, phase) {
    const { rows } = await this.source.trajectories(name, new URLSearchParams({ phase }).toString(), 0, 1);
    return rows[0]?.step;
  },
  // Keeps a setting in the address without building the page anew.
  remember(values) {
    const route = readRoute();
    for (const [name, value] of Object.entries(values)) if (value === "") route.query.delete(name); else route.query.set(name, value);
    const text = route.query.toString();
    history.replaceState(null, "", `${location.hash.split("?")[0] || "#/"}${text ? `?${text}` : ""}`);
  },
};
let page = null;
let turn = 0;
let stale = false;

function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decodeURIComponent);
  return { name, parts, query: new URLSearchParams(query ?? "") };
}

async function show() {
  const mine = ++turn;
  let route = { name: null, parts: [], query: new URLSearchParams() };
  main.setAttribute("aria-busy", "true");
  let next;
  try {
    route = readRoute();
    if (!route.name && app.hello.mode === "play") route = { name: "ask", parts: [], query: route.query };
    if (!route.name && app.hello.mode === "export") route = { name: "list", parts: [app.hello.run], query: route.query };
    const build = PAGES[route.name];
    if (!build) throw new Error(`There is no page ${route.name}.`);
    next = await build(route, app);
  } catch (error) {
    next = { title: "Not here", node: h("div", { class: "page" }, notice(error.message, "bad"), h("a", { href: "#/" }, "to the start")) };
  }
  if (mine !== turn) return;
  page = next;
  main.replaceChildren(next.node);
  main.removeAttribute("aria-busy");
  document.title = `${next.title} · PyVision-RL`;
  drawTabs(route);
  next.shown?.();
}

function drawTabs(route) {
  if (app.hello.mode !== "runs") { tabs.replaceChildren(); return; }
  const run = ["groups", "list", "t", "compare"].includes(route.name) && route.parts[0] ? [route.parts[0]] : [];
  const entries = [["", "Curves", "#/"], ["groups", "Groups", address("groups", ...run)], ["list", "Trajectories", address("list", ...run)]];
  tabs.replaceChildren(...entries.map(([name, title, href]) => h("a", { href, "aria-current": name === route.name ? "page" : null }, title)));
}

async function keepUp() {
  if (!stale) return;
  stale = false;
  await page?.refresh?.();
}

async function poll() {
  try {
    const runs = await app.source.runs();
    const changed = JSON.stringify(runs) !== JSON.stringify(app.runs);
    app.runs = runs;
    const running = runs.filter((run) => run.running).length;
    live.textContent = running ? "live" : "";
    live.title = running ? "a run is going on: this page keeps up with it" : "";
    stale ||= changed;
    if (document.visibilityState === "visible") await keepUp();
  } catch {
    live.textContent = "viewer stopped";
  }
  setTimeout(poll, POLL_MS);
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
}

function storedTheme() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}

function swapTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const theme = dark === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", theme); } catch { /* an exported file may have no storage */ }
  setTheme(theme);
}

function showKeys() {
  const dialog = h("dialog", { class: "help" }, h("h2", {}, "Keys"), h("dl", { class: "facts" }, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])), h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close"));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || lightboxIsOpen() || document.querySelector("dialog[open]")) return;
  if (event.target.closest?.("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const general = { d: swapTheme, "?": showKeys };
  if (app.hello.mode === "runs") [1, 2, 3].forEach((place) => { general[place] = () => tabs.children[place - 1].click(); });
  const action = page?.keys?.[event.key] ?? general[event.key];
  if (!action) return;
  if (event.key === "Enter" && event.target.closest?.("a, button")) return;
  event.preventDefault();
  action();
}

async function start() {
  setTheme(storedTheme());
  app.hello = await app.source.hello();
  document.body.prepend(h("header", { class: "top" }, h("a", { class: "brand", href: "#/" }, "PyVision", h("span", {}, "-RL")), tabs, live,
    h("button", { type: "button", class: "icon", onclick: swapTheme, title: "light or dark (d)", "aria-label": "light or dark" }, "◐"), h("button", { type: "button", class: "icon", onclick: showKeys, title: "keys (?)", "aria-label": "keys" }, "?")), main);
  if (app.hello.mode === "runs") await poll();
  addEventListener("hashchange", () => { show().then(() => scrollTo(0, 0)); });
  addEventListener("keydown", onKey);
  await show();
}

start().catch((error) => { document.body.append(notice(`The viewer cannot start: ${error.message}`, "bad")); });
