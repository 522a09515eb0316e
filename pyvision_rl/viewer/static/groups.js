// Every group drawn in a step: its rewards, its rank, why it was kept or dropped.
import { address, brief, fixed, h, isRight, notice, number, pill, plural, reasonText, select, trajectoryAddress, words } from "./dom.js";

export function memberSquare(run, phase, step, member, current = false) {
  const tone = member.stop === "sandbox_lost" ? "lost" : isRight(member) ? "right" : "wrong";
  const calls = member.num_tool_calls;
  const title = [
    `#${member.index}: ${member.answer === null ? "no answer" : `answered ${member.answer.slice(0, 60)}`}`,
    `reward ${number(member.reward)}, ${plural(calls, "call")}, ${words(member.stop)}`,
    member.dropped ? `not in the loss: ${reasonText(member.dropped)}` : "",
  ].filter(Boolean).join("\n");
  return h("a", {
    class: `square ${tone} ${member.dropped ? "dropped" : ""} ${current ? "current" : ""}`, title,
    "aria-label": title, "aria-current": current ? "true" : null,
    href: trajectoryAddress(run, { phase, step, group: member.group, index: member.index }),
  }, h("b", {}, member.reward.toFixed(1)), h("span", { class: "calls", "aria-hidden": "true" }, calls > 5 ? "••••+" : "•".repeat(calls)));
}

function groupFate(group) {
  const reasons = new Set(group.members.map((member) => member.dropped).filter(Boolean));
  if (group.rank !== null) {
    const out = group.members.filter((member) => member.dropped).length;
    return [pill(`kept · rank ${group.rank + 1}`, "good"), out ? h("span", { class: "muted" }, `${out} of ${group.members.length} left out`) : null];
  }
  if (!reasons.size) return [];
  const reason = [...reasons].find((name) => name.startsWith("group/")) ?? [...reasons][0];
  return [pill("dropped", "plain"), h("span", { class: "muted" }, reasonText(reason))];
}

function groupCard(app, run, phase, step, group) {
  const first = { phase, step, group: group.group, index: 0 };
  return h("article", { class: `card group ${group.rank === null ? "" : "kept"}`, tabindex: "-1" },
    h("a", { class: "thumb", href: trajectoryAddress(run, first), tabindex: "-1", "aria-hidden": "true" },
      group.not_kept ? h("span", { class: "muted" }, "picture not kept") : group.thumbnail ? h("img", { src: app.source.image(run, first, group.thumbnail), loading: "lazy", alt: "" })
        : group.has_film ? h("img", { class: "film", src: app.source.film(run, first, 0), loading: "lazy", alt: "", onerror: (event) => event.target.replaceWith(h("span", { class: "muted" }, "video")) })
        : h("span", { class: "muted" }, group.has_video ? "video" : "no image")),
    h("div", { class: "what" },
      h("a", { class: "question", href: trajectoryAddress(run, first) }, group.question),
      h("div", { class: "tags" }, pill(`task ${brief(group.task_id)}`, "plain"), group.kind && pill(words(brief(group.kind)), "plain"), h("span", { class: "muted" }, `answer ${brief(group.gold)}`))),
    h("div", { class: "squares" }, group.members.map((member) => memberSquare(run, phase, step, member))),
    h("div", { class: "fate" },
      h("div", {}, groupFate(group)),
      h("div", { class: "muted" }, `reward ${fixed(group.reward_mean)} ± ${fixed(group.reward_std)}`),
      h("a", { href: address("compare", run, phase, step, group.group) }, "side by side")));
}

const ORDERS = {
  drawn: ["as drawn", (a, b) => a.group - b.group],
  rank: ["by rank", (a, b) => (a.rank ?? 1e9) - (b.rank ?? 1e9) || b.reward_std - a.reward_std],
  spread: ["by spread of rewards", (a, b) => b.reward_std - a.reward_std],
  mean: ["by mean reward", (a, b) => b.reward_mean - a.reward_mean],
};

function summary(groups) {
  const kept = groups.filter((group) => group.rank !== null).length;
  const reasons = new Map();
  for (const member of groups.flatMap((group) => group.members)) {
    if (member.dropped) reasons.set(member.dropped, (reasons.get(member.dropped) ?? 0) + 1);
  }
  const chips = [...reasons].sort((a, b) => b[1] - a[1]).map(([reason, count]) => pill(`${count} × ${reasonText(reason)}`, "plain"));
  return h("div", { class: "summary" }, h("b", {}, `${plural(groups.length, "group")} drawn`),
    kept ? [h("span", {}, `${kept} kept`), chips.length ? h("span", { class: "muted" }, "trajectories left out:") : null, chips] : null);
}

function legend() {
  const sample = (style, reward, calls) => h("i", { class: `square ${style}` }, h("b", {}, reward), h("span", { class: "calls" }, calls));
  return h("div", { class: "legend keyline" }, h("span", {}, "One square a trajectory, its reward, a dot for each call:"),
    h("span", {}, sample("right", "1.2", "••"), "right"), h("span", {}, sample("wrong", "0.0", "•"), "wrong"), h("span", {}, sample("right dropped", "1.0", ""), "not in the loss"));
}

export async function groupsPage(route, app) {
  const run = app.run(route.parts[0]);
  const phase = route.parts[1] ?? (run.phases.includes("train") ? "train" : run.phases[0]);
  if (!phase) return { title: run.name, node: h("div", { class: "page" }, app.runPicker(run, "groups"), notice("No trajectories are recorded yet.")) };
  const last = await app.lastStep(run.name, phase);
  const follows = route.parts[2] === undefined;
  const step = follows ? last : Number(route.parts[2]);
  const { steps, groups } = await app.source.groups(run.name, phase, step);
  const place = steps.indexOf(step);
  const go = (index) => { if (steps[index] !== undefined) location.hash = address("groups", run.name, phase, steps[index]); };
  const order = route.query.get("order") ?? "rank";
  const list = h("div", { class: "groups" });
  const fill = (name) => list.replaceChildren(...[...groups].sort(ORDERS[name][1]).map((group) => groupCard(app, run.name, phase, step, group)));
  fill(order in ORDERS ? order : "rank");
  const move = (by) => {
    const cards = [...list.children];
    const next = cards[Math.max(0, Math.min(cards.length - 1, cards.indexOf(document.activeElement?.closest(".group")) + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  const node = h("div", { class: "page" },
    h("div", { class: "toolbar" }, app.runPicker(run, "groups"),
      run.phases.length > 1 && select("Phase", phase, run.phases.map((name) => [name, name]), (value) => { location.hash = address("groups", run.name, value); }),
      h("div", { class: "stepper" },
        h("button", { type: "button", disabled: place <= 0, onclick: () => go(place - 1), "aria-label": "earlier step" }, "‹"),
        select("Step", step, steps.map((value) => [value, String(value)]), (value) => { location.hash = address("groups", run.name, phase, value); }),
        h("button", { type: "button", disabled: place >= steps.length - 1, onclick: () => go(place + 1), "aria-label": "later step" }, "›")),
      select("Order", order, Object.entries(ORDERS).map(([key, [text]]) => [key, text]), (value) => { app.remember({ order: value === "rank" ? "" : value }); fill(value); })),
    summary(groups), legend(), list);
  return {
    title: `${run.name} step ${step}`, node,
    refresh: async () => { if (follows && (await app.lastStep(run.name, phase)) !== step) await app.show(); },
    keys: {
      j: () => move(1), k: () => move(-1), ArrowLeft: () => go(place - 1), ArrowRight: () => go(place + 1),
      Enter: () => document.activeElement?.closest(".group")?.querySelector(".question")?.click(),
      c: () => document.activeElement?.closest(".group")?.querySelector(".fate a")?.click(),
    },
  };
}
