// The page: joins a room and shows what is in it. The protocol is the client library's; what each
// panel shows is in the modules beside this one.

import { MeetingClient } from "./client.js";
import { Chat } from "./chat.js";
import { byId, complain, copy, foreign, notice } from "./dom.js";
import { clock, Inspector } from "./inspector.js";
import { named, showMembers } from "./members.js";
import { Publishing } from "./publishing.js";
import {
  currentLanguage, isolated, onLanguage, preferredLanguage, say, setLanguage, words,
} from "./words.js";

/** What is written while the connection is lost waits so long for it. */
const CHAT_TIMEOUT_MS = 60_000;

/** After so long without a connection somebody who waits is told. */
const SLOW_MS = 2000;

/** The protocol's bound of names, in bytes. */
const LONGEST_NAME = 128;

const inspector = new Inspector({
  list: byId("wire"), empty: byId("wire-empty"), count: byId("wire-count"), filter: byId("filter"),
  kinds: [...document.querySelectorAll('input[name="kind"]')],
  reveal: byId("reveal"), copy: byId("copy-wire"), clear: byId("clear"),
});
const chat = new Chat(byId("chat"));
const publishing = new Publishing();

// Beside the page, wherever a proxy has put it.
const address = new URL("ws", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
address.search = "";
address.hash = "";

let client = null;
let fields = null;
let retryAt = 0;
/** Said behind the state: a key of the words, and its values. */
let detail = [];

// ------------------------------------------------------------------------------- the connection

function showState() {
  const state = client?.state ?? "idle";
  const shown = { idle: "idle", closed: "idle", connected: "joining" }[state] ?? state;
  document.body.dataset.state = shown;
  say(byId("state-word"), `state.${shown}`);
  say(byId("state-detail"), shown === "idle" ? undefined : detail[0], detail[1]);
  countDown();
}

/** The seconds until the next try: for the eye only, a screen reader would not stop talking. */
function countDown() {
  const left = Math.ceil((retryAt - Date.now()) / 1000);
  const counts = client?.state === "reconnecting" && left > 0;
  byId("countdown").textContent = counts ? words("state.in", { n: left }) : "";
}
setInterval(countDown, 250);

/** A client whose every word is heard here as long as it is the page's. */
function newClient(channel) {
  const url = new URL(address);
  // A proxy before several servers goes by it.
  url.searchParams.set("channel", channel);
  const made = new MeetingClient(url);
  const on = (name, listener) => made.on(name, (value) => {
    if (made === client) listener(value);
  });
  on("message", (message) => inspector.message(message));
  on("state", ({ state, previous }) => {
    if (state === "connecting") inspector.connection("wire.connecting", { url: made.url });
    if (state === "connected" && previous === "connecting") inspector.connection("wire.connected");
    if (state === "reconnecting" && previous === "joined") chat.note("chat.lost", {}, "warn");
    if (state === "joined") retryAt = 0;
    showState();
  });
  on("reconnecting", ({ attempt, delayMs, reason }) => {
    retryAt = Date.now() + delayMs;
    detail = ["state.attempt", { n: attempt }];
    inspector.connection("wire.lost", { reason, n: attempt, seconds: (delayMs / 1000).toFixed(1) }, true);
    showState();
  });
  on("joined", ({ how, mediaServer }) => {
    if (how !== "joined") {
      detail = [`state.${how}.at`, { time: clock(Date.now(), 0) }];
      chat.note(`chat.${how}`, {}, how === "resumed" ? "good" : "warn");
      inspector.connection(`wire.${how}`);
    }
    publishing.showAddresses(mediaServer);
    publishing.show();
    showState();
  });
  on("members", () => showRoom());
  on("endpoint", ({ endpoint, stat }) => chat.note(`chat.${stat}`, { name: endpoint }));
  on("stream", ({ endpoint, stream, stat }) => chat.note(`chat.${stat}`, { name: endpoint, stream }));
  on("broadcast", ({ from, payload }) => chat.heard(from, payload));
  on("mediaServer", (addresses) => publishing.showAddresses(addresses));
  on("error", ({ type, message }) => {
    chat.note("error.event", { type, message: message ?? "" }, "warn");
    publishing.show();
  });
  on("ended", ({ error, closeCode }) => ended(error, closeCode));
  return made;
}

// --------------------------------------------------------------------------------------- joining

/** A name that is likely to be free, for those who only want to look. */
const suggestedName = () => `guest-${100 + Math.floor(Math.random() * 900)}`;

function prefill() {
  const asked = new URLSearchParams(location.search);
  // What was typed in this window before it was loaded anew; another window has its own.
  const before = history.state ?? {};
  byId("endpoint").value = before.endpoint ?? suggestedName();
  byId("role").value = before.role ?? "normal";
  for (const name of ["app", "channel", "endpoint"]) {
    if (asked.has(name)) byId(name).value = asked.get(name);
  }
  const role = asked.get("role");
  if ([...byId("role").options].some((option) => option.value === role)) byId("role").value = role;
}

/** Names are bounded in bytes, and a Chinese character has three. */
function checkLength(input) {
  const bytes = new TextEncoder().encode(input.value).length;
  input.setCustomValidity(bytes > LONGEST_NAME ? words("join.too.long", { n: bytes }) : "");
}

/** The link that brings others here: no name, no token. */
function roomLink() {
  const link = new URL(location.href);
  link.search = new URLSearchParams({ app: fields.app, channel: fields.channel }).toString();
  link.hash = "";
  return link.href;
}

/** Why a join failed: a key of the words. */
function refusal(error) {
  switch (error.kind) {
    case "refused":
      if (error.err === 401 && fields.token === "") return "refused.without";
      return [400, 401, 403, 503].includes(error.err) ? `refused.${error.err}` : "refused";
    case "unreachable": return "unreachable";
    case "timeout": return "timeout";
    default: return "failed";
  }
}

async function join(event) {
  event.preventDefault();
  if (client !== null) return;
  fields = Object.fromEntries(new FormData(byId("join")));
  notice(byId("join-notice"));
  byId("enter").disabled = true;
  say(byId("enter"), "join.entering");
  detail = [];
  inspector.forgetRequests();
  chat.clear();
  const joining = newClient(fields.channel);
  client = joining;
  const slow = setTimeout(() => {
    if (client === joining && joining.state === "connecting") notice(byId("join-notice"), "join.slow");
  }, SLOW_MS);
  try {
    const { token, ...rest } = fields;
    await joining.join(token === "" ? rest : { ...rest, token });
    if (client === joining) entered();
  } catch (error) {
    if (client === joining) {
      away();
      complain(byId("join-notice"), refusal(error), error);
      byId(error.err === 401 || error.err === 403 ? "token" : "enter").focus({ preventScroll: true });
    }
  } finally {
    clearTimeout(slow);
  }
}

function entered() {
  const link = roomLink();
  history.replaceState({ endpoint: fields.endpoint, role: fields.role }, "", link);
  document.title = `${isolated(fields.channel)} · meeting-server`;
  byId("link").value = link;
  byId("second").href = link;
  byId("room-name").replaceChildren(foreign("bdi", fields.channel));
  byId("outside").hidden = true;
  byId("inside").hidden = false;
  notice(byId("join-notice"));
  resetButton();
  publishing.use(client);
  publishing.showAddresses(client.mediaServerAddresses);
  chat.note("chat.entered", {}, "good");
  showRoom();
  showState();
  // Where there is a keyboard one may write at once; a phone's would cover the room.
  const target = matchMedia("(pointer: coarse)").matches ? "room-name" : "text";
  byId(target).focus({ preventScroll: true });
}

function resetButton() {
  byId("enter").disabled = false;
  say(byId("enter"), "join.enter");
}

/** Out of the room, with nothing left of the client. */
function away() {
  const left = client;
  client = null;
  left?.close().catch(() => {
    // Nobody waits for its end.
  });
  publishing.use(null);
  document.title = "meeting-server";
  byId("inside").hidden = true;
  byId("outside").hidden = false;
  resetButton();
  showState();
  // Why it is so is said at the top.
  scrollTo(0, 0);
}

async function leave() {
  const leaving = client;
  byId("leave").disabled = true;
  try {
    await leaving.leave();
  } catch {
    // However it ends, the client is out of the room.
  }
  byId("leave").disabled = false;
  if (client !== leaving) return;
  inspector.connection("wire.left");
  away();
  byId("enter").focus({ preventScroll: true });
}

/** The server has put this member out and does not want it back by itself. */
function ended(error, closeCode) {
  const wasInside = !byId("inside").hidden;
  inspector.connection("wire.ended", { code: closeCode, message: error.message }, true);
  // A join that fails says so itself.
  if (!wasInside) return;
  const name = client.endpoint || fields.endpoint;
  away();
  const place = byId("join-notice");
  if (closeCode === 4001) notice(place, "replaced", { name });
  else if (closeCode === 4003) notice(place, "removed");
  else complain(place, error.kind === "refused" ? refusal(error) : "ended", error);
  byId("enter").focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------ in the room

function showRoom() {
  if (client === null || byId("inside").hidden) return;
  const members = client.roster;
  showMembers(byId("members"), members, client.endpoint);
  byId("members-count").textContent = String(members.length);
  const alone = members.length <= 1;
  byId("members").classList.toggle("alone", alone);
  byId("members-empty").hidden = !alone;
  // A token may have decided on the role.
  const role = members.find((member) => member.endpoint === client.endpoint)?.role ?? fields.role;
  const values = { app: fields.app, name: client.endpoint, role: named("role", role) };
  say(byId("room-who"), "room.who", values);
}

async function speak(event) {
  event.preventDefault();
  const input = byId("text");
  const text = input.value.trim();
  if (text === "" || client === null) return;
  input.value = "";
  const message = { text };
  const line = chat.said(message);
  try {
    await client.broadcast(message, { timeoutMs: CHAT_TIMEOUT_MS });
    line.arrived();
  } catch (error) {
    line.failed(error.kind === "timeout" || error.kind === "lost" ? "chat.unknown" : "chat.unsent", error);
  }
}

// ---------------------------------------------------------------------------------- the beginning

byId("join").addEventListener("submit", join);
byId("leave").addEventListener("click", leave);
byId("say").addEventListener("submit", speak);
byId("enlarge").addEventListener("click", () => {
  const large = document.body.classList.toggle("large-wire");
  byId("enlarge").setAttribute("aria-pressed", String(large));
  say(byId("enlarge"), large ? "wire.reduce" : "wire.enlarge");
  if (large) document.querySelector(".inspector").scrollIntoView({ block: "end" });
});
byId("copy-link").addEventListener("click", () => copy(byId("link").value));
byId("link").addEventListener("focus", (event) => event.target.select());
for (const name of ["app", "channel", "endpoint"]) {
  byId(name).addEventListener("input", (event) => checkLength(event.target));
}
byId("language").addEventListener("click", () => setLanguage(currentLanguage() === "en" ? "zh" : "en", true));
onLanguage((language) => {
  const other = language === "en" ? { text: "中文", lang: "zh-Hans" } : { text: "English", lang: "en" };
  byId("language").textContent = other.text;
  byId("language").lang = other.lang;
  showRoom();
  countDown();
});
byId("address").textContent = address.href;
prefill();
setLanguage(preferredLanguage());
showState();
