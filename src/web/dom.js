// Small things about elements that all parts of the page share.

import { harmless, isolated, say } from "./words.js";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element with these properties and children. */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A text of another member as an element of its own direction; `title` shows it whole. */
export function foreign(tag, text, { title = false, ...properties } = {}) {
  const made = element(tag, { ...properties, dir: "auto", textContent: harmless(text) });
  if (title) made.title = isolated(text);
  return made;
}

/** Shows a notice of these words with these values, or hides it where there is no key. */
export function notice(place, key, values = {}) {
  place.hidden = key === undefined;
  place.replaceChildren();
  if (key === undefined) return;
  const text = element("span", {});
  say(text, key, values);
  place.append(text);
}

/** The same, and behind it what the server or the browser said, in its own language. */
export function complain(place, key, error) {
  notice(place, key);
  const err = error.err ? `${error.err} ` : "";
  const textContent = `${err}${harmless(error.message)}`;
  place.append(element("span", { className: "said", lang: "en", textContent }));
}

let fading;

/** A word at the edge of the page that goes by itself. */
export function toast(key, values = {}) {
  const place = byId("toast");
  say(place, key, values);
  place.classList.add("seen");
  clearTimeout(fading);
  fading = setTimeout(() => {
    place.classList.remove("seen");
    say(place, undefined);
  }, 4000);
}

/** Puts a text on the clipboard; whether that went well. */
export async function copy(text) {
  try {
    // Only pages of a secure origin have it.
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text);
    toast("copied");
    return true;
  } catch {
    toast("not.copied");
    return false;
  }
}

function copyBySelection(text) {
  const area = element("textarea", { value: text, className: "unseen" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  if (!copied) throw new Error("the browser does not let a page copy");
}
