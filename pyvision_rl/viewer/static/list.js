// Trajectories, searched and filtered; the filter is the page's address.
import { address, brief, fixed, h, isRight, notice, number, plural, reasonText, select, signed, trajectoryAddress, words } from "./dom.js";

const PAGE = 50;
const PARTS = [["", "all"], ["task", "question"], ["thought", "thoughts"], ["code", "programs"], ["output", "output"]];
const SORTS = [["new", "newest first"], ["old", "oldest first"], ["reward", "highest reward"], ["advantage", "highest advantage"], ["calls", "most calls"], ["tokens", "most tokens"], ["slow", "slowest"]];

function fate(row) {
  if (row.dropped) return h("span", { class: "muted", title: reasonText(row.dropped) }, words(row.dropped.replace("group/", "")));
  return row.rank === null ? h("span", { class: "muted" }, "–") : h("span", { title: `group ranked ${row.rank + 1}` }, `rank ${row.rank + 1}`);
}

// Where the turns hold the text that was searched for.
function excerptNode(excerpt) {
  const before = excerpt.before.split("\n").slice(-2).join(" ");
  const after = excerpt.after.split("\n").slice(0, 2).join(" ");
  return h("span", { class: "excerpt" }, h("span", { class: "muted" }, `turn ${excerpt.turn + 1} `), h(excerpt.part === "thought" ? "span" : "code", {}, before, h("mark", {}, excerpt.hit), after));
}

function line(run, row, excerpt, query, exported) {
  const href = trajectoryAddress(run, row, query);
  return h("tr", { tabindex: "-1", onclick: (event) => { if (!event.target.closest("a")) location.hash = href; } },
    h("td", { class: isRight(row) ? "mark good" : "mark bad", title: isRight(row) ? "right" : "wrong" }, row.stop === "sandbox_lost" ? "?" : isRight(row) ? "✓" : "✗"),
    h("td", { class: "num step" }, exported ? number(row.step) : h("a", { class: "quiet", href: address("groups", run, row.phase, row.step), title: row.phase }, number(row.step))),
    h("td", { class: "question" }, h("a", { href }, row.question), excerpt && excerptNode(excerpt), row.ability && h("span", { class: "muted" }, words(brief(row.ability)))),
    h("td", { class: "answer" }, h("span", {}, brief(row.answer ?? "no answer")), !isRight(row) && h("span", { class: "muted" }, `expected ${brief(row.gold)}`)),
    h("td", { class: "num strong reward-cell" }, fixed(row.reward)),
    h("td", { class: "num wide" }, signed(row.advantage)),
    h("td", { class: "num calls-cell" }, number(row.num_tool_calls), row.num_ok_tool_calls < row.num_tool_calls && h("span", { class: "failed", title: "failed calls" }, `${row.num_tool_calls - row.num_ok_tool_calls} failed`)),
    h("td", { class: "num wide" }, number(row.num_completion_tokens)),
    h("td", { class: "wide" }, words(row.stop)),
    h("td", { class: "wide" }, fate(row)));
}

function choice(label, name, query, values, change) {
  if (!values || values.length < 2) return query.get(name) ? choice(label, name, query, [query.get(name), ""], change) : null;
  const options = [["", "all"], ...values.filter(Boolean).map((value) => (Array.isArray(value) ? value : [value, words(value)]))];
  return select(label, query.get(name) ?? "", options, (value) => change({ [name]: value }));
}

function filters(query, facets, picker, change, onSearch) {
  let waiting = null;
  const later = (values) => { clearTimeout(waiting); waiting = setTimeout(() => change(values), 200); };
  const reasons = (facets.reasons ?? []).map((reason) => [reason, reasonText(reason)]);
  return h("form", { class: "filters", onsubmit: (event) => event.preventDefault() }, picker,
    h("label", { class: "field search" }, h("span", {}, "Search"), h("input", { type: "search", id: "search", placeholder: "question, answer, thought, code, output", value: query.get("text") ?? "", onfocus: onSearch, oninput: (event) => later({ text: event.target.value }) })),
    select("In", query.get("part") ?? "", PARTS, (value) => change({ part: value })),
    choice("Phase", "phase", query, facets.phases, change),
    h("label", { class: "field narrow" }, h("span", {}, "Step"), h("input", { type: "number", min: 0, placeholder: "all", value: query.get("step") ?? "", oninput: (event) => later({ step: event.target.value }) })),
    select("Answer", query.get("right") ?? "", [["", "all"], ["yes", "right"], ["no", "wrong"]], (value) => change({ right: value })),
    choice("Ended", "stop", query, facets.stops, change),
    select("Calls", query.get("calls") ?? "", [["", "all"], ...["0", "1", "2", "3", "4+", "8+"].map((value) => [value, value])], (value) => change({ calls: value })),
    choice("Kind", "kind", query, facets.kinds, change),
    choice("Source", "source", query, facets.sources, change),
    reasons.length ? choice("In the loss", "kept", query, [["yes", "yes"], ["no", "no"], ...reasons], change) : null);
}

function counted(found, name) {
  const { done = 0, total = 0, unreadable = 0 } = found.searched ?? {};
  const filtered = found.total !== found.all;
  return [
    h("b", {}, plural(found.total, "trajectory").replace("trajectorys", "trajectories")), filtered ? h("span", { class: "muted" }, `of ${found.all.toLocaleString("en")}`) : null,
    done < total ? h("span", { class: "muted searching", role: "status" }, `searched ${Math.floor((100 * done) / total)}% so far`) : null,
    unreadable ? h("span", { class: "muted" }, `the turns of ${plural(unreadable, "step")} cannot be read`) : null,
    filtered ? h("button", { type: "button", class: "link", onclick: () => { location.hash = address("list", name); } }, "clear filters") : null,
  ];
}

export async function listPage(route, app) {
  const exported = app.source.exported;
  const run = exported ? { name: route.parts[0] } : app.run(route.parts[0]);
  const query = new URLSearchParams(route.query);
  const body = h("tbody", {});
  const count = h("div", { class: "count" });
  const pager = h("div", { class: "pager" });
  let offset = Number(query.get("from") ?? 0);
  query.delete("from");
  let asked = 0;

  async function load() {
    const turn = ++asked;
    const found = await app.source.trajectories(run.name, query.toString(), offset, PAGE);
    if (turn !== asked) return found;
    const text = query.toString();
    body.replaceChildren(...found.rows.map((row, place) => line(run.name, row, found.excerpts?.[place], text, exported)));
    const unfinished = found.searched?.done < found.searched?.total;
    count.replaceChildren(...counted(found, run.name).filter(Boolean), exported ? "" : h("div", { class: "ways" },
      select("Order", query.get("sort") ?? "new", SORTS, (value) => change({ sort: value === "new" ? "" : value })),
      found.total ? h("a", { class: "button", href: `/export?${new URLSearchParams({ ...Object.fromEntries(query), run: run.name })}`, title: "these, at most 200, as one file", download: "trajectories.html" }, "Export") : ""));
    if (unfinished) setTimeout(() => { if (turn === asked && body.isConnected) load(); });
    const last = Math.min(offset + PAGE, found.total);
    pager.replaceChildren(...(found.total > PAGE ? [
      h("button", { type: "button", disabled: offset === 0, onclick: () => turnPage(-PAGE) }, "‹ newer"),
      h("span", { class: "muted" }, `${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")}`),
      h("button", { type: "button", disabled: last >= found.total, onclick: () => turnPage(PAGE) }, "older ›")] : []));
    if (!found.total && !unfinished) body.replaceChildren(h("tr", {}, h("td", { colspan: 10 }, notice("Nothing fits these filters."))));
    return found;
  }

  // While a search is typed the server reads the turns that it will look through.
  async function readAhead() {
    const turn = asked;
    for (let found = { done: 0, total: 1 }; found.done < found.total && turn === asked && body.isConnected;) found = await app.source.readAhead(run.name);
  }

  function turnPage(by) {
    offset = Math.max(0, offset + by);
    app.remember({ from: offset || "" });
    load().then(() => scrollTo(0, 0));
  }

  async function change(values) {
    for (const [name, value] of Object.entries(values)) if (value === "") query.delete(name); else query.set(name, value);
    offset = 0;
    app.remember({ ...values, from: "" });
    await load().catch((error) => body.replaceChildren(h("tr", {}, h("td", { colspan: 10 }, notice(error.message, "bad")))));
  }

  const move = (by) => {
    const rows = [...body.children];
    const next = rows[Math.max(0, Math.min(rows.length - 1, rows.indexOf(document.activeElement?.closest("tr")) + by))];
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  };
  const found = await load();
  const titles = [["", ""], ["step", "num"], ["question", ""], ["answer", ""], ["reward", "num"], ["advantage", "num wide"], ["calls", "num"], ["tokens", "num wide"], ["ended", "wide"], ["in the loss", "wide"]];
  const node = h("div", { class: "page" },
    exported ? h("h1", {}, `Trajectories of ${run.name}`) : filters(query, found.facets, app.runPicker(run, "list"), change, readAhead), count,
    h("div", { class: "card scroll" }, h("table", { class: "list" },
      h("thead", {}, h("tr", {}, titles.map(([title, style]) => h("th", { class: style }, title)))), body)), pager);
  return {
    title: `${run.name} trajectories`, node,
    refresh: async () => { if (offset === 0 && !body.contains(document.activeElement)) await load(); },
    keys: { j: () => move(1), k: () => move(-1), Enter: () => document.activeElement?.querySelector("td.question a")?.click(), "/": () => document.getElementById("search")?.focus() },
  };
}
