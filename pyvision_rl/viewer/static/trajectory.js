// One trajectory, and all of a group side by side.
import { imageWithBoxes, timeline } from "./boxes.js";
import { address, fixed, h, isRight, notice, number, pill, plural, reasonText, reveal, signed, trajectoryAddress, verdict, words } from "./dom.js";
import { memberSquare } from "./groups.js";
import { markHits } from "./hits.js";
import { openLightbox } from "./lightbox.js";
import { figuresOf, notKept, openFigures, tokensNode, turnNode, turnStrip, urlsOf } from "./turns.js";

function readRef(parts) {
  return { phase: parts[1], step: Number(parts[2]), group: Number(parts[3]), index: Number(parts[4]) };
}

export function toTurn(place) {
  const node = document.getElementById(`turn-${place}`);
  reveal(node);
  node?.classList.remove("flash");
  requestAnimationFrame(() => node?.classList.add("flash"));
}

// Where the task's own files come from; those of the server, by the place of a trajectory.
function filesOf(source, run, ref) {
  return { original: (k) => source.original(run, ref, k), seen: (sha1) => source.image(run, ref, sha1), film: (k) => source.film(run, ref, k), frame: (k, frame) => source.frame(run, ref, k, frame) };
}

function startingFrames(frames, seenUrl) {
  if (!frames.length) return null;
  const items = frames.map((frame, place) => ({ url: seenUrl(frame.seen), caption: frame.name || `frame ${place + 1} of the prompt` }));
  const shown = items.filter((item) => item.url);
  return h("details", { class: "starting" }, h("summary", {}, `${plural(frames.length, "frame")} in the prompt`), h("div", { class: "figures" }, items.map((item) =>
    h("figure", {}, item.url ? h("button", { type: "button", class: "picture", onclick: () => openLightbox(shown, shown.indexOf(item)), "aria-label": `enlarge ${item.caption}` }, h("img", { src: item.url, alt: item.caption, loading: "lazy" })) : notKept(), h("figcaption", {}, h("code", {}, item.caption))))));
}

// Each of the files may be null where there is none.
export function givenMedia(view, files, onPick) {
  const seenUrl = urlsOf(view, files.seen);
  const images = view.images.map((image, k) => {
    const crops = view.looks.crops.filter((crop) => crop.image === k);
    const original = image.has_file ? files.original(k) : null;
    const seen = image.seen ? seenUrl(image.seen) : null;
    const holder = h("div", {});
    const name = `image_clue_${k}`;
    const draw = (url) => holder.replaceChildren(imageWithBoxes({
      url, alt: name, crops, onPick,
      onOpen: () => openLightbox([{ url, caption: name }], 0),
    }));
    const away = image.seen && !seen ? ", and the run did not keep what the policy saw of it" : "";
    if (!original && !seen) return h("div", { class: "given-image" }, notice(`${name} is not here any more: ${image.path}${away}`, "warn"));
    draw(original ?? seen);
    const toggle = original && seen ? h("button", { type: "button", class: "link", id: k ? null : "swap", onclick: () => {
      const now = holder.querySelector("img").getAttribute("src") === original ? seen : original;
      draw(now);
      toggle.textContent = now === original ? "as the policy saw it" : "the original";
    } }, "as the policy saw it") : null;
    const hidden = image.seen ? null : h("span", { class: "muted" }, "only in the runtime");
    const missed = !image.size && view.turns.some((turn) => turn.has_code) ? h("span", { class: "muted" }, "size unknown, no crops drawn") : null;
    return h("div", { class: "given-image" }, holder,
      h("div", { class: "caption" }, h("code", {}, name), image.size && h("span", { class: "muted" }, `${image.size[0]} × ${image.size[1]}`), hidden, missed, toggle));
  });
  const videos = view.videos.map((video, k) => timeline({
    video, name: `video_clue_${k}`, fetches: view.looks.fetches.filter((fetch) => fetch.video === k), onPick,
    filmUrl: video.num_frames ? files.film(k) : null, frameUrl: (frame) => files.frame(k, frame),
  }));
  return [...images, ...videos, startingFrames(view.frames, seenUrl)].filter(Boolean);
}

function rewardNode(row) {
  const part = (value, name) => h("span", { class: "part" }, h("b", {}, typeof value === "string" ? value : fixed(value)), h("span", { class: "muted" }, name));
  return h("div", { class: "reward" }, part(row.accuracy, "accuracy"), h("i", {}, "+"), part(row.tool, "tool"), h("i", {}, "="), part(row.reward, "reward"),
    row.advantage === null ? null : [h("i", {}), part(signed(row.advantage), "advantage")]);
}

function fatePills(row) {
  if (row.dropped) return pill(`not in the loss: ${reasonText(row.dropped)}`, "plain");
  return row.rank === null ? null : pill(`in the loss · group rank ${row.rank + 1}`, "accent");
}

function facts(row) {
  const calls = row.num_tool_calls;
  const entries = [
    ["ended", words(row.stop)], ["calls", `${calls}${row.num_ok_tool_calls < calls ? `, ${calls - row.num_ok_tool_calls} failed` : ""}`], ["turns", number(row.num_turns)],
    ["tokens written", number(row.num_completion_tokens)], ["visual tokens", `${number(row.visual_tokens_given)} given, ${number(row.visual_tokens_shown)} shown`],
    ["seconds", row.seconds === null ? null : number(row.seconds, 1)], ["task", row.task_id], ["kind", row.ability ? words(row.ability) : null], ["source", row.source || null], ["seed", row.seed],
  ];
  return h("dl", { class: "facts" }, entries.filter(([, value]) => value !== null).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function answerNode(row) {
  return h("div", { class: "verdict" }, verdict(row),
    h("span", { class: "given-answer" }, row.answer === null ? h("i", { class: "muted" }, "no answer") : h("b", {}, row.answer)),
    isRight(row) ? null : h("span", { class: "muted" }, "expected ", h("b", {}, row.gold)));
}

function trail(run, ref, exported) {
  const step = `${ref.phase} step ${ref.step}`;
  return h("nav", { class: "trail", "aria-label": "where this is" },
    h("a", { href: address("list", run) }, run), h("span", {}, "/"), exported ? h("span", {}, step) : h("a", { href: address("groups", run, ref.phase, ref.step) }, step), h("span", {}, "/"),
    h("a", { href: address("compare", run, ref.phase, ref.step, ref.group) }, `group ${ref.group}`), h("span", {}, "/"), h("b", {}, `#${ref.index}`));
}

export async function trajectoryPage(route, app) {
  const run = route.parts[0];
  const ref = readRef(route.parts);
  const query = route.query.toString();
  const { view, siblings, ...found } = await app.source.trajectory(run, ref, query);
  let neighbours = found.neighbours;
  const { row } = view;
  const figures = figuresOf(view, urlsOf(view, (sha1) => app.source.image(run, ref, sha1)));
  const open = (place) => openFigures(figures, place);
  const go = (target) => { if (target) location.hash = trajectoryAddress(run, target, query); };
  const beside = (by) => {
    const place = siblings.findIndex((other) => other.index === ref.index) + by;
    if (siblings[place]) go({ ...ref, index: siblings[place].index });
  };
  const tokens = h("div", {});
  async function toggleTokens() {
    if (tokens.firstChild) { tokens.replaceChildren(); return; }
    tokens.replaceChildren(notice("reading tokens"));
    try {
      tokens.replaceChildren(tokensNode(await app.source.tokens(run, ref), !row.dropped, row.dropped ? reasonText(row.dropped) : ""));
    } catch (error) {
      tokens.replaceChildren(notice(error.message, "bad"));
    }
    reveal(tokens);
  }
  const stepper = h("div", { class: "stepper" });
  const drawStepper = () => stepper.replaceChildren(
    h("button", { type: "button", disabled: !neighbours.previous, onclick: () => go(neighbours.previous), "aria-label": "previous trajectory" }, "‹"),
    h("span", { class: "muted" }, neighbours.position === null ? "" : `${(neighbours.position + 1).toLocaleString("en")} of ${neighbours.total.toLocaleString("en")}${query ? " filtered" : ""}`),
    h("button", { type: "button", disabled: !neighbours.next, onclick: () => go(neighbours.next), "aria-label": "next trajectory" }, "›"));
  drawStepper();
  // A search in the turns that has not been through all of them goes on while the page is open.
  async function finishSearch() {
    while (stepper.isConnected && neighbours.searched?.done < neighbours.searched?.total) {
      neighbours = await app.source.neighbours(run, ref, query);
      drawStepper();
    }
  }
  const aside = h("aside", {},
    h("h1", { class: "question" }, row.question), answerNode(row), rewardNode(row), h("div", { class: "pills" }, fatePills(row)),
    givenMedia(view, filesOf(app.source, run, ref), toTurn),
    siblings.length > 1 && h("div", { class: "siblings" }, h("div", { class: "label" }, h("span", {}, "the same task, played again"), h("a", { href: address("compare", run, ref.phase, ref.step, ref.group) }, "side by side")),
      h("div", { class: "squares" }, siblings.map((member) => memberSquare(run, ref.phase, ref.step, member, member.index === ref.index)))),
    facts(row));
  const main = h("div", { class: "conversation" }, turnStrip(view.turns, toTurn),
    h("details", { class: "prompt" }, h("summary", {}, `Prompt, ${plural(view.num_prompt_tokens, "token")}`), h("pre", {}, view.prompt)),
    h("ol", { class: "turns" }, view.turns.map((turn, place) => turnNode(turn, place, figures[place], open, toTurn))),
    h("p", { class: "ending muted" }, `Ended: ${words(row.stop)}.`),
    h("button", { type: "button", class: "button", id: "show-tokens", onclick: toggleTokens }, "Tokens and log-probs"), tokens);
  return {
    title: `#${ref.index} step ${ref.step}`,
    shown: () => { markHits(main, route.query.get("text")); finishSearch().catch(() => {}); },
    node: h("div", { class: "page trajectory" },
      h("div", { class: "toolbar" }, trail(run, ref, app.source.exported),
        stepper),
      h("div", { class: "columns" }, aside, main)),
    keys: {
      j: () => go(neighbours.next), k: () => go(neighbours.previous), ArrowLeft: () => beside(-1), ArrowRight: () => beside(1),
      t: toggleTokens, c: () => { location.hash = address("compare", run, ref.phase, ref.step, ref.group); },
      o: () => document.getElementById("swap")?.click(), u: () => { location.hash = query ? `${address("list", run)}?${query}` : address("groups", run, ref.phase, ref.step); },
    },
  };
}

function column(app, run, view) {
  const figures = figuresOf(view, urlsOf(view, (sha1) => app.source.image(run, view.ref, sha1)));
  const open = (place) => openFigures(figures, place);
  return h("section", { class: "card column" },
    h("header", {}, h("a", { href: trajectoryAddress(run, view.ref) }, `#${view.ref.index}`), answerNode(view.row), rewardNode(view.row),
      h("div", { class: "muted" }, [plural(view.row.num_tool_calls, "call"), ` · ${words(view.row.stop)}`, view.row.dropped ? ` · not in the loss: ${reasonText(view.row.dropped)}` : ""])),
    h("ol", { class: "turns" }, view.turns.map((turn, place) => {
      const node = turnNode(turn, place, figures[place], open, () => {});
      node.removeAttribute("id");
      return node;
    })));
}

export async function comparePage(route, app) {
  const [run, phase, step, group] = route.parts;
  const views = await app.source.group(run, phase, step, group);
  const first = views[0];
  const right = views.filter((view) => isRight(view.row)).length;
  const columns = h("div", { class: "side-by-side", tabindex: "0" }, views.map((view) => column(app, run, view)));
  const move = (by) => columns.scrollBy({ left: by * 340, behavior: "smooth" });
  const allLooks = { ...first, looks: { crops: views.flatMap((view) => view.looks.crops), fetches: views.flatMap((view) => view.looks.fetches) } };
  return {
    title: `group ${group} step ${step}`,
    node: h("div", { class: "page wide-page" },
      h("div", { class: "toolbar" }, h("nav", { class: "trail" }, h("a", { href: address("list", run) }, run), h("span", {}, "/"),
        app.source.exported ? h("span", {}, `${phase} step ${step}`) : h("a", { href: address("groups", run, phase, step) }, `${phase} step ${step}`), h("span", {}, "/"), h("b", {}, `group ${group}`))),
      h("div", { class: "compare-head" }, h("div", { class: "small-media" }, givenMedia(allLooks, filesOf(app.source, run, first.ref), () => {})),
        h("div", {}, h("h1", { class: "question" }, first.row.question), h("p", {}, `Expected ${first.row.gold}. ${right} of ${views.length} right.`), h("p", { class: "muted" }, first.images.length ? "Boxes are the crops of all of them, numbered by turn." : "Marks are the frames that any of them fetched."))),
      columns),
    keys: { ArrowLeft: () => move(-1), ArrowRight: () => move(1), u: () => { location.hash = address("groups", run, phase, step); } },
  };
}
