// The conversation: what members say by broadcast, and between it what happens in the room.

import { element, foreign } from "./dom.js";
import { clock } from "./inspector.js";
import { Tail } from "./tail.js";
import { isolated, say } from "./words.js";
import { visible } from "./wire-text.js";

/** Older lines go. */
const KEPT = 500;

/** A colour for a name, the same in every window. */
export function hue(name) {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  return String((hash * 47) % 360);
}

/** What a payload says: its text, where it has one as this page sends it, else all of it. */
function body(payload) {
  return typeof payload.text === "string"
    ? element("p", { className: "text", dir: "auto", textContent: payload.text })
    : element("pre", { className: "text", textContent: visible(JSON.stringify(payload, null, 1)) });
}

export class Chat {
  #tail;
  #last = null;

  constructor(list) {
    this.#tail = new Tail(list, KEPT);
  }

  /** Something that happened: a key of the words, with values. */
  note(key, values, className = "") {
    const text = element("span", {});
    say(text, key, values);
    this.#append(element("div", { className: `note ${className}` }, text));
    this.#last = null;
  }

  /** What another member said. */
  heard(from, payload) {
    const { endpoint } = from;
    this.#message(foreign("b", endpoint), `other ${endpoint}`, hue(endpoint), payload);
  }

  /** What this member says; what comes back tells how it went. */
  said(payload) {
    const name = element("b", {});
    say(name, "chat.you");
    const item = this.#message(name, "mine", null, payload);
    const status = element("span", { className: "status" });
    item.append(status);
    item.classList.add("pending");
    say(status, "chat.sending");
    return {
      arrived: () => {
        item.classList.remove("pending");
        status.remove();
      },
      failed: (key, error) => {
        item.classList.remove("pending");
        item.classList.add("failed");
        say(status, key);
        status.title = isolated(error.message);
      },
    };
  }

  clear() {
    this.#tail.clear();
    this.#last = null;
  }

  #message(name, who, colour, payload) {
    // Who goes on talking is not named again.
    const goesOn = this.#last === who;
    this.#last = who;
    const time = element("time", { textContent: clock(Date.now(), 0) });
    const head = element("div", { className: goesOn ? "head unseen" : "head" }, name, time);
    const item = element("div", { className: who === "mine" ? "said mine" : "said" }, head, body(payload));
    if (colour !== null) item.style.setProperty("--hue", colour);
    this.#append(item);
    return item;
  }

  #append(item) {
    this.#tail.append(item);
    // Who reads what was said before is not torn away, but by his own words.
    if (item.classList.contains("mine")) this.#tail.toEnd();
  }
}
