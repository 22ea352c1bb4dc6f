// The text of a message made readable, without parsing it into values: a number, a string or the
// order of the keys stands there as it was sent. Knows nothing of the page but how to make elements.

const TOKEN = /"(?:\\.|[^"\\])*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** Keys whose strings are proofs of who one is. */
const SECRET = new Set(["session", "token"]);

/**
 * The parts of a JSON text, white space left out.
 * `what` is "key", "string", "word" (numbers, true, false, null) or "mark"; `secret` says that the
 * string is a proof of who one is.
 */
function parts(text) {
  const tokens = text.match(TOKEN) ?? [];
  let key = "";
  return tokens.map((token, at) => {
    const before = tokens[at - 1];
    if (token.length === 1 && "{}[],:".includes(token)) return { what: "mark", text: token };
    if (token[0] !== '"') return { what: "word", text: token };
    if (tokens[at + 1] === ":" && before !== ":") {
      key = token.slice(1, -1);
      return { what: "key", text: token };
    }
    const secret = before === ":" && SECRET.has(key) && token.length > 2;
    return { what: "string", text: token, secret };
  });
}

/** A session by its first eight characters, as the server's log names it; of a token nothing. */
function masked(token) {
  const isSession = /^"[0-9a-f]{8}-[0-9a-f-]{27}"$/.test(token);
  return isSession ? `"${token.slice(1, 9)}-••••"` : '"••••"';
}

/** Characters that change the direction of the text after them, or end a line of it. */
const DIRECTION_CONTROLS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]/g;

const escaped = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** The JSON text with such characters as escapes: it means the same, and nothing is reordered. */
export const visible = (json) => json.replace(DIRECTION_CONTROLS, escaped);

const shown = (part, reveal) => (part.secret && !reveal ? masked(part.text) : visible(part.text));

/** The text on one line, secrets masked unless they are to be revealed. */
export function compact(text, reveal) {
  return parts(text).map((part) => shown(part, reveal)).join("");
}

/** The same on many lines, as spans with the classes key, string, word, mark and secret. */
export function pretty(text, reveal) {
  const root = document.createDocumentFragment();
  const all = parts(text);
  let depth = 0;
  const line = () => root.append("\n" + "  ".repeat(Math.min(depth, 40)));
  all.forEach((part, at) => {
    const before = all[at - 1]?.text;
    const closes = part.text === "}" || part.text === "]";
    if (part.what === "mark" && closes) depth = Math.max(0, depth - 1);
    const opened = all[at - 1]?.what === "mark" && (before === "{" || before === "[");
    const follows = all[at - 1]?.what === "mark" && before === ",";
    if ((opened && !(part.what === "mark" && closes)) || follows) line();
    if (part.what === "mark" && closes && !opened) line();
    const span = document.createElement("span");
    span.className = part.secret ? "string hidden-part" : part.what;
    span.textContent = shown(part, reveal);
    root.append(span);
    if (part.what === "mark" && part.text === ":") root.append(" ");
    if (part.what === "mark" && (part.text === "{" || part.text === "[")) depth += 1;
  });
  return root;
}
