// The text that was searched for, marked in the turns without a change to them.
import { reveal } from "./dom.js";

const MAX_HITS = 2000;

function rangesIn(node, needle) {
  const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const nodes = [];
  let whole = "";
  while (texts.nextNode()) {
    nodes.push([whole.length, texts.currentNode]);
    whole += texts.currentNode.data;
  }
  const folded = whole.toLowerCase();
  if (folded.length !== whole.length) return [];
  const at = (place) => {
    const [start, text] = nodes.findLast(([first]) => first <= place);
    return [text, place - start];
  };
  const ranges = [];
  for (let place = folded.indexOf(needle); place >= 0 && ranges.length < MAX_HITS; place = folded.indexOf(needle, place + needle.length)) {
    const range = new Range();
    range.setStart(...at(place));
    const [last, end] = at(place + needle.length - 1);
    range.setEnd(last, end + 1);
    ranges.push(range);
  }
  return ranges;
}

// Long texts that hold a hit are opened, and the first hit comes into view.
export function markHits(node, text) {
  CSS.highlights?.delete("hit");
  if (!text || !CSS.highlights) return;
  const parts = [...node.querySelectorAll(".thought, .code, .output, .answered b")];
  const found = parts.map((part) => [part, rangesIn(part, text.toLowerCase())]).filter(([, ranges]) => ranges.length);
  if (!found.length) return;
  for (const [part] of found) if (part.classList.contains("clamped")) part.nextElementSibling.click();
  CSS.highlights.set("hit", new Highlight(...found.flatMap(([, ranges]) => ranges)));
  const first = found[0][0].getBoundingClientRect();
  if (first.top > innerHeight * 0.8) reveal(found[0][0], "center");
}
