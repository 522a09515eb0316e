// All runs at a glance, and their curves.
import { chart } from "./charts.js";
import { address, ago, fixed, h, notice, number, pill, plural, reveal, words } from "./dom.js";

// key: a metric, its kinds are key/<kind>; parts: all metrics below that prefix, a line each.
const SECTIONS = [
  ["Answers", [
    { title: "Accuracy on unseen tasks", key: "eval/accuracy", share: true },
    { title: "Accuracy of rollouts", key: "reward/accuracy", share: true },
    { title: "Reward of rollouts", key: "reward/mean" },
    { title: "Reward for tool calls", key: "reward/tool" },
  ]],
  ["Interaction", [
    { title: "Tool calls per trajectory", key: "rollout/tool_calls" },
    { title: "Trajectories without a call", key: "rollout/zero_call_share", share: true },
    { title: "Failed calls per trajectory", key: "rollout/failed_calls" },
    { title: "Turns per trajectory", key: "rollout/turns" },
    { title: "Visual tokens per trajectory", key: "rollout/visual_tokens" },
    { title: "Visual tokens shown by programs", key: "rollout/visual_tokens_shown" },
    { title: "Tokens written per trajectory", key: "rollout/completion_tokens" },
    { title: "How episodes ended", parts: "stop", share: true },
    { title: "Calls on unseen tasks", key: "eval/tool_calls_mean" },
  ]],
  ["Selection", [
    { title: "Dropped, by reason", parts: "select/dropped" },
    { title: "Groups of constant reward", key: "select/constant_share", share: true },
    { title: "Spread of rewards in a group", key: "select/reward_std" },
    { title: "Right answers with negative advantage", key: "select/right_negative_share", share: true },
  ]],
  ["Learning", [
    { title: "Entropy per token (nats)", key: "loss/entropy" },
    { title: "SFT loss per token", key: "loss/sft" },
    { title: "Policy loss", key: "loss/policy" },
    { title: "Clipped share", key: "loss/clip_frac" },
    { title: "Sampler to learner KL", key: "loss/sampler_kl" },
    { title: "Gradient norm", key: "learner/grad_norm" },
  ]],
];

// The metric that a warning of the run is about, by its cause; others are only listed.
const ABOUT = { tool_calls: "rollout/tool_calls", constant_groups: "select/constant_share", entropy: "loss/entropy", response_length: "rollout/completion_tokens", gate: "reward/accuracy" };
const PART_COLOURS = 8;

function runColour(place) {
  return `var(--line-${place % PART_COLOURS})`;
}

// [[step, value]], NaN where it was logged and is not finite. A part that did not occur in a step is
// not logged there: it is 0 where others of its prefix were.
function points(metrics, key, prefix = null) {
  const values = metrics.values[key];
  if (!values) return [];
  const spoilt = new Set(metrics.spoilt[key]);
  const others = prefix ? keysBelow([{ metrics }], prefix).map((other) => metrics.values[other]) : [];
  const absent = (place) => (spoilt.has(place) ? NaN : others.some((other) => other[place] !== null) ? 0 : null);
  return metrics.steps.map((step, place) => [step, values[place] ?? absent(place)]).filter(([, value]) => value !== null);
}

function keysBelow(shown, prefix) {
  const keys = new Set(shown.flatMap(({ metrics }) => Object.keys(metrics.values)));
  return [...keys].filter((key) => key.startsWith(`${prefix}/`)).sort();
}

function panelLines(panel, shown, kinds) {
  const many = shown.length > 1;
  const below = panel.parts || kinds ? keysBelow(shown, panel.parts ?? panel.key) : [];
  return shown.flatMap(({ name, colour, metrics }) => [
    ...below.map((key, place) => ({
      label: `${many ? `${name} · ` : ""}${words(key.slice((panel.parts ?? panel.key).length + 1))}`,
      colour: many ? colour : runColour(place + (panel.parts ? 0 : 1)),
      points: points(metrics, key, panel.parts),
      thin: true,
    })),
    ...(panel.key ? [{ label: many ? name : "all", colour: many ? colour : "var(--ink)", points: points(metrics, panel.key), thin: false }] : []),
  ]).filter((line) => line.points.length);
}

function hasPanel({ metrics }, panel) {
  return Object.keys(metrics.values).some((key) => key === panel.key || (panel.parts && key.startsWith(`${panel.parts}/`)));
}

function sentence(warning) {
  const text = warning.text.replace(/^step \d+: /, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function marksOf(panel, shown) {
  return shown.flatMap(({ name, warnings }) => warnings.filter((warning) => panel.key && ABOUT[warning.cause] === panel.key).map((warning) => ({
    id: `${name} ${warning.cause}`, step: warning.step, text: sentence(warning), title: `${shown.length > 1 ? `${name}, ` : ""}step ${warning.step}`,
  })));
}

// First and last of each stretch of steps at which the monitor found the trouble.
function bandsOf(panel, metrics) {
  const cause = Object.keys(ABOUT).find((name) => ABOUT[name] === panel.key);
  const stretches = [];
  let open = null;
  for (const [step, value] of points(metrics, `monitor/${cause}`)) {
    if (!value) open = null;
    else if (open) open[1] = step;
    else stretches.push(open = [step, step]);
  }
  return stretches;
}

function card(panel, all, settings) {
  const shown = all.filter((run) => hasPanel(run, panel));
  const lines = panelLines(panel, shown, settings.kinds ?? (shown.length === 1));
  if (!lines.length) return null;
  const single = shown.length === 1 && panel.key ? lines.find((line) => !line.thin) : null;
  const latest = single && single.points.at(-1)[1];
  const caption = h("figcaption", {}, h("span", {}, panel.title), single && h("b", {}, panel.share ? share(latest) : Number.isNaN(latest) ? "NaN" : number(latest, 3)));
  const finite = lines.filter((line) => line.points.some(([, value]) => !Number.isNaN(value)));
  if (!finite.length) return h("figure", { class: "card chart" }, caption, h("p", { class: "muted" }, "It was never a finite number."));
  const legend = lines.length > 1 && shown.length === 1 && h("div", { class: "legend" },
    lines.map((line) => h("span", {}, h("i", { class: "swatch", style: { background: line.colour } }), line.label)));
  const onStep = shown.length === 1 && shown[0].phase ? (step) => { location.hash = address("groups", shown[0].name, shown[0].phase, step); } : null;
  return h("figure", { class: "card chart" },
    caption,
    chart({ title: panel.title, lines: finite, share: panel.share, weight: settings.weight, onStep, marks: marksOf(panel, shown), bands: shown.length === 1 ? bandsOf(panel, shown[0].metrics) : [] }), legend);
}

function otherPanels(shown) {
  const named = SECTIONS.flatMap(([, panels]) => panels);
  const known = (key) => key.startsWith("monitor/") || named.some((panel) => key === panel.key || key.startsWith(`${panel.key ?? panel.parts}/`));
  const keys = new Set(shown.flatMap(({ metrics }) => Object.keys(metrics.values)));
  return [...keys].filter((key) => !known(key)).sort().map((key) => ({ title: key, key }));
}

function sections(shown, settings) {
  const parts = [...SECTIONS, ["Everything else", otherPanels(shown)]];
  return parts.map(([title, panels]) => {
    const cards = panels.map((panel) => card(panel, shown, settings)).filter(Boolean);
    return cards.length ? h("section", {}, h("h2", {}, title), h("div", { class: "cards" }, cards)) : null;
  });
}

// What the runs themselves warned of, with a way to the curve and to the trajectories of the step.
function monitorCard(shown) {
  const said = shown.flatMap((run) => run.warnings.map((warning) => ({ run, warning }))).sort((a, b) => a.warning.step - b.warning.step);
  if (!said.length) return null;
  const toMark = (id) => {
    const mark = [...document.querySelectorAll(".mark")].find((node) => node.dataset.mark === id);
    reveal(mark, "center");
    mark?.focus({ preventScroll: true });
  };
  return h("section", { class: "card monitor", "aria-label": "warnings" }, h("h2", {}, plural(said.length, "warning")), h("ol", {}, said.map(({ run, warning }) => h("li", {},
    h("div", { class: "where" }, shown.length > 1 && [h("i", { class: "swatch", style: { background: run.colour } }), h("b", {}, run.name)], pill(`step ${warning.step}`, "warn"), h("span", { class: "muted" }, words(warning.cause))),
    h("p", {}, sentence(warning)),
    h("div", { class: "ways" }, ABOUT[warning.cause] && h("button", { type: "button", class: "link", onclick: () => toMark(`${run.name} ${warning.cause}`) }, "in its curve"),
      run.phase && h("a", { href: address("groups", run.name, run.phase, warning.step) }, "groups of the step"))))));
}

function firstOf(latest, ...keys) {
  const key = keys.find((candidate) => latest[candidate] !== undefined && latest[candidate] !== null);
  return key ? latest[key] : null;
}

function runRow(run, colour, chosen, onToggle) {
  const { latest } = run;
  const open = run.num_trajectories ? address("list", run.name) : null;
  return h("tr", { class: run.problems.length ? "troubled" : "" },
    h("td", { class: "pick" }, h("input", { type: "checkbox", checked: chosen, "aria-label": `draw ${run.name}`, disabled: !run.num_steps, onchange: onToggle })),
    h("td", { class: "name" }, h("i", { class: "swatch", style: { background: colour } }), open ? h("a", { href: open, title: run.path }, run.name) : h("span", { title: run.path }, run.name),
      run.running && h("span", { class: "pill live" }, "running"), run.warnings.length > 0 && pill(plural(run.warnings.length, "warning"), "warn", run.warnings.map(sentence).join("\n"))),
    h("td", { class: "num strong" }, fixed(firstOf(latest, "eval/accuracy", "reward/accuracy"))),
    h("td", { class: "num" }, fixed(firstOf(latest, "reward/mean"))),
    h("td", { class: "num" }, fixed(firstOf(latest, "eval/tool_calls_mean", "rollout/tool_calls"))),
    h("td", { class: "num" }, share(firstOf(latest, "eval/zero_call_share", "rollout/zero_call_share"))),
    h("td", { class: "num" }, number(run.num_steps)),
    h("td", { class: "num" }, number(run.num_trajectories)),
    h("td", { class: "num" }, number(run.num_checkpoints)),
    h("td", { class: "muted" }, run.unix_s ? ago(run.unix_s) : "–"));
}

function share(value) {
  return value === null ? "–" : Number.isNaN(value) ? "NaN" : `${Math.round(value * 100)}%`;
}

export async function overviewPage(route, app) {
  const settings = { weight: Number(route.query.get("smooth") ?? 0), kinds: { yes: true, no: false }[route.query.get("kinds")] };
  const curved = app.runs.filter((run) => run.num_steps > 1);
  const asked = route.query.get("runs");
  const chosen = new Set(asked !== null ? asked.split(",").filter(Boolean).map(decodeURIComponent) : (curved.length ? curved : app.runs).slice(0, 6).map((run) => run.name));
  const known = new Map();
  const heading = h("h1", {});
  const table = h("div", { class: "card scroll" });
  const curves = h("div", { class: "curves" });

  const colourOf = (name) => {
    const place = app.runs.filter((run) => chosen.has(run.name)).findIndex((run) => run.name === name);
    return place < 0 ? "var(--hair)" : runColour(place);
  };

  async function shownRuns() {
    const picked = app.runs.filter((run) => chosen.has(run.name) && run.num_steps);
    return Promise.all(picked.map(async (run) => {
      const stamp = `${run.num_steps} ${run.unix_s}`;
      if (known.get(run.name)?.stamp !== stamp) known.set(run.name, { stamp, metrics: await app.source.metrics(run.name) });
      return { name: run.name, colour: colourOf(run.name), metrics: known.get(run.name).metrics, warnings: run.warnings, phase: run.phases.includes("train") ? "train" : null };
    }));
  }

  async function draw() {
    const rows = app.runs.map((run) => runRow(run, colourOf(run.name), chosen.has(run.name), (event) => {
      if (event.target.checked) chosen.add(run.name); else chosen.delete(run.name);
      app.remember({ runs: [...chosen].map(encodeURIComponent).join(",") });
      draw();
    }));
    heading.textContent = plural(app.runs.length, "run");
    const titles = ["", "run", "accuracy", "reward", "calls", "no call", "steps", "trajectories", "checkpoints", "last step"];
    const focused = table.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    table.replaceChildren(h("table", { class: "runs" },
      h("thead", {}, h("tr", {}, titles.map((title, place) => h("th", { class: place > 1 && place < 9 ? "num" : "" }, title)))),
      h("tbody", {}, rows)));
    if (focused) [...table.querySelectorAll("input")].find((box) => box.getAttribute("aria-label") === focused)?.focus();
    const problems = app.runs.flatMap((run) => run.problems);
    const shown = await shownRuns();
    kindsBox.checked = settings.kinds ?? shown.length === 1;
    curves.replaceChildren(...problems.map((problem) => notice(problem, "bad")), monitorCard(shown) ?? "",
      ...(shown.length ? sections(shown, settings).filter(Boolean) : [notice("No metrics yet. Curves appear with the first step.")]));
  }

  const kindsBox = h("input", { type: "checkbox", onchange: () => {
    settings.kinds = kindsBox.checked;
    app.remember({ kinds: kindsBox.checked ? "yes" : "no" });
    draw();
  } });
  const tools = h("div", { class: "toolbar" },
    h("label", { class: "field slider" }, h("span", {}, "Smoothing"),
      h("input", { type: "range", min: 0, max: 0.95, step: 0.05, value: settings.weight, oninput: (event) => {
        settings.weight = Number(event.target.value);
        app.remember({ smooth: settings.weight || "" });
        draw();
      } })),
    h("label", { class: "check" }, kindsBox, "per kind"),
    h("span", { class: "muted grow hint" }, "A click into a curve of one run opens the groups of that step."));
  await draw();
  return { title: "Curves", node: h("div", { class: "page" }, heading, table, tools, curves), refresh: draw };
}
