// Every message between the page and the server, and what became of the connection: a list that
// can be read, filtered and copied. What is a proof of who one is stands masked in it.

import { harmless, say, onLanguage } from "./words.js";
import { compact, pretty } from "./wire-text.js";
import { copy, element, toast } from "./dom.js";
import { Tail } from "./tail.js";

/** Older lines go. */
const KEPT = 1000;

/** The longest text that is shown in a line of its own. */
const GIST = 240;

const encoder = new TextEncoder();

/** Milliseconds since 1970 as the local time of day. */
export function clock(time, digits = 3) {
  const date = new Date(time);
  const two = (n) => String(n).padStart(2, "0");
  const day = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return digits ? `${day}.${String(date.getMilliseconds()).padStart(3, "0")}` : day;
}

/** A text or a number of a message as a text. Nothing else has a text that is safe to ask for. */
const plain = (value) => (["string", "number"].includes(typeof value) ? String(value) : "?");

/** What a message is, from its own words. What is no JSON object is an event without a name. */
function classify(direction, text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    message = null;
  }
  const { method, event, err, err_msg, cseq, data } = message ?? {};
  if (direction === "out") return { kind: "request", name: plain(method), cseq };
  if (err !== undefined) return { kind: "answer", name: "", cseq, err, err_msg };
  return { kind: "event", name: plain(event), cseq, failed: event === "error", type: data?.type };
}

/** The `data` of a message as it was sent: what the other keys say has columns of its own. */
function gist(text, reveal) {
  const line = compact(text, reveal);
  const at = line.indexOf('"data":');
  const data = at < 0 ? line : line.slice(at + 7, line.endsWith("}") ? -1 : undefined);
  return data.length > GIST ? `${data.slice(0, GIST)}…` : data;
}

/** The list in the page. */
export class Inspector {
  #entries = [];
  #asked = new Map();
  #words = [];
  #kinds = new Set();
  #reveal = false;
  #seen = 0;
  #parts;
  #tail;

  /** @param parts the elements: list, empty, count, filter, kinds, reveal, copy, clear */
  constructor(parts) {
    this.#parts = parts;
    this.#tail = new Tail(parts.list, KEPT);
    parts.filter.addEventListener("input", () => this.#filter());
    for (const kind of parts.kinds) kind.addEventListener("change", () => this.#filter());
    parts.reveal.addEventListener("click", () => this.#turn(!this.#reveal));
    parts.clear.addEventListener("click", () => this.clear());
    parts.copy.addEventListener("click", () => this.#copy());
    onLanguage(() => this.#filter());
    this.#filter();
  }

  /** One message as it went over the wire. */
  message({ direction, text, time }) {
    const what = classify(direction, text);
    const entry = { ...what, direction, text, time, bytes: encoder.encode(text).length };
    if (what.kind === "request") {
      this.#asked.set(what.cseq, { name: what.name, time });
      // A server that does not answer would make this map grow.
      if (this.#asked.size > KEPT) this.#asked.delete(this.#asked.keys().next().value);
    } else if (what.kind === "answer") {
      const asked = this.#asked.get(what.cseq);
      this.#asked.delete(what.cseq);
      entry.name = asked?.name ?? "?";
      entry.took = asked && time - asked.time;
      entry.failed = what.err !== 0;
    }
    this.#add(entry);
  }

  /** What became of the connection: a key of the words, and the values in it. */
  connection(key, values = {}, failed = false) {
    this.#add({ kind: "connection", direction: "", name: "", key, values, failed, time: Date.now() });
  }

  /** A new client numbers its requests anew. */
  forgetRequests() {
    this.#asked.clear();
  }

  clear() {
    this.#entries = [];
    this.#seen = 0;
    this.#tail.clear();
    this.#count();
  }

  #add(entry) {
    entry.row = this.#row(entry);
    entry.row.hidden = !this.#fits(entry);
    this.#entries.push(entry);
    if (!entry.row.hidden) this.#seen += 1;
    const gone = this.#tail.append(entry.row);
    if (gone) {
      this.#entries.shift();
      if (!gone.hidden) this.#seen -= 1;
    }
    this.#count();
  }

  #row(entry) {
    const time = element("time", { className: "time", textContent: clock(entry.time) });
    if (entry.kind === "connection") {
      const text = element("span", { className: "gist" });
      say(text, entry.key, entry.values);
      const line = element("div", { className: "line" }, time, element("span", { className: "way", textContent: "·" }), text);
      return element("li", { className: `connection${entry.failed ? " failed" : ""}` }, line);
    }
    const way = element("span", { className: "way" });
    way.append(element("span", { textContent: entry.direction === "out" ? "↑" : "↓", ariaHidden: "true" }));
    const wayWord = element("span", { className: "unseen" });
    say(wayWord, entry.direction === "out" ? "wire.out" : "wire.in");
    way.append(wayWord);
    const kind = element("span", { className: "kind" });
    say(kind, `wire.${entry.kind}`);
    const name = element("span", { className: "name", textContent: harmless(entry.name) });
    if (entry.kind === "answer") name.append(element("b", { textContent: plain(entry.err) }));
    const number = element("span", { className: "number", textContent: entry.cseq ? `#${plain(entry.cseq)}` : "" });
    const text = element("span", { className: "gist" });
    const took = element("span", { className: "took", textContent: entry.took === undefined ? "" : `${entry.took} ms` });
    const summary = element("summary", { className: "line" }, time, way, kind, name, number, text, took);
    const details = element("details", {}, summary);
    details.addEventListener("toggle", () => this.#open(entry, details));
    const row = element("li", { className: `${entry.kind}${entry.failed ? " failed" : ""}` }, details);
    entry.summarize = () => {
      const refused = entry.kind === "answer" && entry.failed;
      text.textContent = refused ? harmless(plain(entry.err_msg)) : gist(entry.text, this.#reveal);
    };
    entry.summarize();
    return row;
  }

  /** The whole message, made when somebody wants to see it. */
  #open(entry, details) {
    details.querySelector(".whole")?.remove();
    if (!details.open) return;
    const text = element("pre", {});
    text.append(pretty(entry.text, this.#reveal));
    const button = element("button", { type: "button" });
    say(button, "wire.copy.one");
    button.addEventListener("click", () => copy(compact(entry.text, this.#reveal)));
    const bytes = element("span", { className: "muted" });
    say(bytes, "wire.bytes", { n: entry.bytes });
    const foot = element("div", { className: "foot" }, button, bytes);
    details.append(element("div", { className: "whole" }, text, foot));
  }

  #turn(reveal) {
    this.#reveal = reveal;
    const { reveal: button } = this.#parts;
    button.setAttribute("aria-pressed", String(reveal));
    say(button, reveal ? "wire.mask" : "wire.reveal");
    for (const entry of this.#entries) {
      entry.summarize?.();
      const details = entry.row.querySelector("details[open]");
      if (details) this.#open(entry, details);
    }
  }

  /** What a filter looks into. */
  #haystack(entry) {
    const text = entry.text === undefined ? entry.row.textContent : compact(entry.text, this.#reveal);
    return `${entry.kind} ${entry.name} ${text}`.toLowerCase();
  }

  #fits(entry) {
    if (!this.#kinds.has(entry.kind)) return false;
    if (this.#words.length === 0) return true;
    const text = this.#haystack(entry);
    return this.#words.every(({ word, without }) => text.includes(word) !== without);
  }

  #filter() {
    this.#words = this.#parts.filter.value.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-")
      .map((word) => ({ word: word.replace(/^-/, ""), without: word.startsWith("-") }));
    this.#kinds = new Set(this.#parts.kinds.filter((kind) => kind.checked).map((kind) => kind.value));
    for (const entry of this.#entries) entry.row.hidden = !this.#fits(entry);
    this.#seen = this.#entries.filter((entry) => !entry.row.hidden).length;
    this.#tail.follow();
    this.#count();
  }

  #count() {
    const { count, empty } = this.#parts;
    const seen = this.#seen;
    const all = this.#entries.length;
    count.textContent = seen === all ? String(all) : `${seen} / ${all}`;
    empty.hidden = seen > 0;
    if (seen === 0) say(empty, all === 0 ? "wire.empty" : "wire.none");
  }

  async #copy() {
    const lines = this.#entries.filter((entry) => !entry.row.hidden).map((entry) => {
      const text = entry.text === undefined ? entry.row.querySelector(".gist").textContent : compact(entry.text, this.#reveal);
      const way = { out: "->", in: "<-" }[entry.direction] ?? "--";
      return `${new Date(entry.time).toISOString()} ${way} ${text}`;
    });
    if (lines.length > 0 && (await copy(lines.join("\n")))) toast("wire.copied", { n: lines.length });
  }
}
