// One image at a time over the whole page, at full size.
import { h } from "./dom.js";

let shown = null;

export function lightboxIsOpen() {
  return shown !== null;
}

// items: [{ url, caption }]
export function openLightbox(items, start) {
  let place = start;
  const image = h("img", { alt: "" });
  const caption = h("figcaption", {});
  const frame = h("div", { class: "frame" }, image);
  const size = h("button", { type: "button", onclick: () => { frame.classList.toggle("actual"); fit(); } }, "actual size");
  const close = () => dialog.close();

  function fit() {
    const actual = frame.classList.contains("actual");
    size.textContent = actual ? "fit" : "actual size";
    const across = frame.clientWidth / image.naturalWidth;
    const down = frame.clientHeight / image.naturalHeight;
    const scale = actual ? 1 : Math.min(across, down, image.naturalWidth < 400 ? 8 : 1.5);
    image.style.setProperty("width", `${Math.round(image.naturalWidth * scale)}px`);
    image.classList.toggle("pixels", scale > 1.5);
  }
  function go(by) {
    place = (place + by + items.length) % items.length;
    image.src = items[place].url;
    image.alt = items[place].caption;
    caption.textContent = `${items[place].caption}${items.length > 1 ? `  ·  ${place + 1} of ${items.length}` : ""}`;
  }
  image.addEventListener("load", () => {
    fit();
    caption.textContent = `${items[place].caption} · ${image.naturalWidth} × ${image.naturalHeight}${items.length > 1 ? `  ·  ${place + 1} of ${items.length}` : ""}`;
  });
  const dialog = h("dialog", { class: "lightbox", onclick: (event) => { if (event.target === frame || event.target === dialog) close(); } },
    h("figure", {}, h("header", {}, caption, items.length > 1 ? [h("button", { type: "button", onclick: () => go(-1), "aria-label": "previous image" }, "‹"), h("button", { type: "button", onclick: () => go(1), "aria-label": "next image" }, "›")] : null, size, h("button", { type: "button", onclick: close, "aria-label": "close" }, "✕")), frame));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight" || event.key === "j") go(1);
    else if (event.key === "ArrowLeft" || event.key === "k") go(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  dialog.addEventListener("close", () => { dialog.remove(); shown = null; });
  document.body.append(dialog);
  shown = dialog;
  dialog.showModal();
  go(0);
}
