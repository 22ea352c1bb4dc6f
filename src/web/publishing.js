// The panel of one's own stream: its picture, publish and unpublish; and the media server it would
// be pushed to.

import { Camera, CameraError } from "./camera.js";
import { byId, complain, copy, element, foreign, notice } from "./dom.js";
import { onLanguage, say, words } from "./words.js";

/** The order in which the document lists them. */
const PROTOCOLS = ["wss", "ws", "https", "http", "rtsp"];

/** A name for a stream that nobody in the room has: 128 bytes at most. */
function streamId(endpoint) {
  const chance = Math.random().toString(36).slice(2, 8).padEnd(6, "0");
  const fits = new TextEncoder().encode(endpoint).length <= 120;
  return fits ? `${endpoint}-${chance}` : `stream-${chance}`;
}

/** The panel. It speaks to the room through the client that it is given. */
export class Publishing {
  #client = null;
  #camera = new Camera(byId("preview"));
  #starting = false;
  #busy = false;

  constructor() {
    byId("look").addEventListener("click", () => this.#look());
    byId("publish").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#toggle();
    });
    for (const id of ["source", "video", "audio"]) {
      byId(id).addEventListener("change", () => {
        // What is seen is what was asked for.
        this.#camera.stop();
        notice(byId("stream-notice"));
        this.show();
      });
    }
    this.#camera.onended = () => this.#sourceEnded();
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    onLanguage(() => {
      this.show();
      this.showAddresses(this.addresses);
    });
    this.addresses = {};
  }

  /** In a room from now on; null: out of it. */
  use(client) {
    this.#client = client;
    this.#camera.stop();
    this.#busy = false;
    notice(byId("stream-notice"));
    notice(byId("media-notice"));
    this.show();
  }

  /** Shows what is; also to be called when the client's stream may have changed. */
  show() {
    const published = Boolean(this.#client?.stream);
    const source = byId("source").value;
    const on = this.#camera.on;
    const picture = on && this.#camera.has.video;
    byId("on-air").hidden = !published;
    byId("preview").hidden = !picture;
    byId("preview-note").hidden = picture;
    const note = this.#starting ? "stream.starting" : on ? "stream.sound" : source === "none" ? "stream.none.note" : "stream.off";
    say(byId("preview-note"), note);
    for (const id of ["source", "video", "audio"]) byId(id).disabled = published || this.#busy;
    const look = byId("look");
    look.hidden = source === "none";
    look.disabled = published;
    say(look, on ? "stream.dark" : "stream.look");
    const air = byId("air");
    // Not disabled while it works: a button that is loses the keyboard's focus.
    air.setAttribute("aria-disabled", String(this.#busy));
    air.classList.toggle("primary", !published);
    say(air, published ? "stream.unpublish" : "stream.publish");
  }

  /** The media server's addresses. */
  showAddresses(addresses) {
    this.addresses = addresses;
    const known = PROTOCOLS.filter((name) => addresses[name]);
    byId("media-empty").hidden = known.length > 0;
    byId("media").replaceChildren(...known.map((name) => {
      const button = element("button", { type: "button", className: "quiet" });
      say(button, "wire.copy");
      button.ariaLabel = words("media.copy", { name });
      button.addEventListener("click", () => copy(addresses[name]));
      return element("div", {}, element("dt", { textContent: name }),
        element("dd", {}, foreign("code", addresses[name]), button));
    }));
  }

  async #look() {
    notice(byId("stream-notice"));
    if (this.#camera.on) this.#camera.stop();
    else await this.#start().catch((error) => this.#complain("camera.failed", error));
    this.show();
  }

  /** The picture, unless the stream is to have none. */
  async #start() {
    const source = byId("source").value;
    if (source === "none" || this.#camera.on) return true;
    this.#starting = true;
    this.show();
    try {
      return await this.#camera.start(source, { video: byId("video").checked, audio: byId("audio").checked });
    } finally {
      this.#starting = false;
    }
  }

  async #toggle() {
    notice(byId("stream-notice"));
    const client = this.#client;
    if (this.#busy || client === null) return;
    const published = Boolean(client.stream);
    this.#busy = true;
    this.show();
    try {
      if (published) await this.#unpublish(client);
      else await this.#publish(client);
    } catch (error) {
      if (client === this.#client) this.#complain(published ? "stream.unfailed" : "stream.failed", error);
    }
    this.#busy = false;
    this.show();
  }

  async #publish(client) {
    if (!(await this.#start()) || client !== this.#client) return;
    const source = byId("source").value;
    const has = source === "none"
      ? { video: byId("video").checked, audio: byId("audio").checked }
      : this.#camera.has;
    const stream = {
      type: source === "desktop" ? "desktop" : "camera",
      stream_id: streamId(client.endpoint),
      has_video: has.video,
      has_audio: has.audio,
    };
    // What a browser would push by WebRTC.
    if (has.audio) stream.audio_codec = "opus";
    if (has.video) stream.video_codec = "vp8";
    await client.publish(stream);
  }

  async #unpublish(client) {
    await client.unpublish();
    this.#camera.stop();
  }

  async #sourceEnded() {
    this.show();
    const client = this.#client;
    if (!client?.stream) return;
    try {
      await client.unpublish();
      notice(byId("stream-notice"), "stream.ended");
    } catch (error) {
      this.#complain("stream.unfailed", error);
    }
    this.show();
  }

  async #ask() {
    const client = this.#client;
    if (client === null) return;
    notice(byId("media-notice"));
    try {
      const addresses = await client.mediaServer(byId("protocol").value);
      if (client === this.#client) this.showAddresses(addresses);
    } catch (error) {
      if (client === this.#client) complain(byId("media-notice"), "media.failed", error);
    }
  }

  #complain(key, error) {
    complain(byId("stream-notice"), error instanceof CameraError ? error.key : key, error);
  }
}
