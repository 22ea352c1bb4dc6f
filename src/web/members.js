// Who is in the room, and what each publishes.

import { element, foreign } from "./dom.js";
import { hue } from "./chat.js";
import { harmless, hasWords, isolated, say, words } from "./words.js";

/** More are only counted: a list of thousands is read by nobody. */
const SHOWN = 200;

/** What a stream carries, in a few words of the protocol's own. */
function description(stream) {
  const codecs = [stream.video_codec, stream.audio_codec].filter(Boolean).join(" ");
  const carries = [];
  if (stream.has_video) carries.push(words("stream.video"));
  if (stream.has_audio) carries.push(words("stream.audio"));
  const type = stream.type === undefined ? "" : named("stream", stream.type);
  const parts = [type, carries.join(" + "), codecs].filter((part) => part !== "");
  return parts.map(isolated).join(" · ");
}

/** The words for a value of the protocol, or the value where a later server has another. */
export const named = (kind, value) =>
  (hasWords(`${kind}.${value}`) ? words(`${kind}.${value}`) : value);

function row(member, own) {
  const { endpoint, device, role, stream } = member;
  const initial = [...harmless(endpoint).trim()][0] ?? "?";
  const face = element("span", { className: "face", textContent: initial.toUpperCase(), ariaHidden: "true" });
  face.style.setProperty("--hue", hue(endpoint));
  const name = element("p", { className: "name" }, foreign("b", endpoint, { title: true }));
  if (own) {
    const you = element("span", { className: "tag" });
    say(you, "members.you");
    name.append(you);
  }
  if (role !== null) {
    const known = hasWords(`role.${role}`);
    const tag = foreign("span", role, { className: known ? `tag role ${role}` : "tag role" });
    if (known) say(tag, `role.${role}`);
    name.append(tag);
  }
  const what = element("p", { className: "what" });
  if (stream) {
    what.append(element("span", { className: "on", ariaHidden: "true" }),
      foreign("code", stream.stream_id, { title: true }),
      element("span", { className: "about", textContent: description(stream) }));
  } else {
    const nothing = element("span", { className: "muted" });
    say(nothing, "members.nothing");
    what.append(nothing);
  }
  const text = element("div", { className: "text" }, name, what);
  if (device) text.append(foreign("p", device, { className: "device muted" }));
  const item = element("li", { className: stream ? "publishes" : "" }, face, text);
  item.dataset.endpoint = endpoint;
  return item;
}

/** Shows these members in this list. */
export function showMembers(list, members, ownName) {
  const rows = members.slice(0, SHOWN).map((member) => row(member, member.endpoint === ownName));
  if (members.length > SHOWN) {
    const more = element("li", { className: "more muted" });
    say(more, "members.more", { n: members.length - SHOWN });
    rows.push(more);
  }
  list.replaceChildren(...rows);
}
