// A world that a test rules over: a clock that moves when it is told to, sockets whose other end is
// the test, and no chance.

import assert from "node:assert/strict";
import { MeetingClient } from "../client.js";

/** Lets everything run that waits for nothing but its turn. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class Clock {
  now = 1_000_000;
  #timers = new Map();
  #last = 0;

  setTimeout = (callback, ms) => {
    this.#timers.set(++this.#last, { at: this.now + ms, callback });
    return this.#last;
  };

  clearTimeout = (timer) => { this.#timers.delete(timer); };

  get waiting() { return this.#timers.size; }

  /** Lets time pass, timer by timer. */
  async advance(ms) {
    const end = this.now + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0];
      if (!due) break;
      const [id, { at, callback }] = due;
      this.#timers.delete(id);
      this.now = Math.max(this.now, at);
      callback();
      await settle();
    }
    this.now = end;
  }
}

/** The other end of it is the test. */
export class Socket {
  readyState = 0;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  /** What the client has sent, parsed; the code with which it closed. */
  sent = [];
  closedWith = undefined;
  #answered = new Set();

  constructor(url) { this.url = url; }

  // ----- what the client sees

  send(text) {
    assert.equal(this.readyState, 1, "sent over an open socket");
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    if (this.closedWith === undefined) this.closedWith = code;
    this.readyState = 2;
  }

  // ----- what the server does

  open() {
    this.readyState = 1;
    this.onopen({});
  }

  receive(message) { this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) }); }

  /** The requests of a method that have no answer yet, in order. */
  asked(method) {
    return this.sent.filter((request) => request.method === method && !this.#answered.has(request));
  }

  get methods() { return this.sent.map((request) => request.method); }

  /** Answers the first unanswered request of this method. */
  answer(method, data = {}, err = 0, err_msg = "ok") {
    const [request] = this.asked(method);
    assert.ok(request, `${method} was not asked: ${JSON.stringify(this.sent)}`);
    this.#answered.add(request);
    this.receive({ version: 0, cseq: request.cseq, err, err_msg, data });
    return request;
  }

  event(event, data, number = 0) { this.receive({ version: 0, cseq: number, event, session: "s", data }); }

  /** The connection ends. */
  drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

export const ADDRESSES = { http: "http://media.example.org" };

/** A member as a dump has it. */
export const member = (endpoint, stream, role = "normal", device = "") =>
  ({ endpoint, device, role, ...(stream ? { stream } : {}) });

export const camera = (stream_id = "anna-1") =>
  ({ type: "camera", stream_id, has_video: true, has_audio: true, audio_codec: "opus", video_codec: "vp8" });

/** The line that makes a promise's fate something to look at. */
export function watch(promise) {
  const fate = { settled: false, value: undefined, error: undefined };
  promise.then(
    (value) => Object.assign(fate, { settled: true, value }),
    (error) => Object.assign(fate, { settled: true, error }),
  );
  return fate;
}

const EVENTS = ["state", "joined", "reconnecting", "ended", "members", "endpoint", "stream", "broadcast", "mediaServer", "error"];

/** A client in such a world. */
export class World {
  clock = new Clock();
  sockets = [];
  network = new EventTarget();
  /** As much of a window as tells of a page's life. */
  page = Object.assign(new EventTarget(), { document: { visibilityState: "visible" } });
  /** What random() says. */
  chance = 0.5;
  /** Every event but `message`: [name, value]. */
  events = [];

  constructor(options = {}) {
    const world = this;
    this.client = new MeetingClient("ws://server.example.org/ws", {
      WebSocket: class extends Socket {
        constructor(url) {
          super(url);
          world.sockets.push(this);
        }
      },
      setTimeout: this.clock.setTimeout,
      clearTimeout: this.clock.clearTimeout,
      now: () => this.clock.now,
      random: () => this.chance,
      network: this.network,
      page: this.page,
      heartbeatMs: 0,
      ...options,
    });
    for (const event of EVENTS) this.client.on(event, (value) => this.events.push([event, value]));
  }

  get socket() { return this.sockets.at(-1); }

  /** The values of the events of one name. */
  of(event) { return this.events.filter(([name]) => name === event).map(([, value]) => value); }

  get names() { return this.events.map(([name]) => name); }

  get states() { return this.of("state").map(({ state }) => state); }

  get roster() { return this.client.roster.map(({ endpoint }) => endpoint); }

  /** The join's answer. */
  admit(more = {}) {
    return this.socket.answer("channel.join", {
      session: "11111111-1111-4111-8111-111111111111",
      media_server: ADDRESSES,
      endpoint: "anna",
      last_event: 1,
      resumed: false,
      ...more,
    });
  }

  dump(...members) { return this.socket.answer("channel.dump", { endpoint_list: members }); }

  /** In the room "lobby" as anna, with these others. */
  async enter({ params = {}, others = [], last_event = 1 } = {}) {
    const joining = this.client.join({ app: "demo", channel: "lobby", endpoint: "anna", ...params });
    await settle();
    if (this.socket.readyState === 0) this.socket.open();
    await settle();
    this.admit({ last_event });
    this.dump(...others, member("anna"));
    const joined = await joining;
    await this.clock.advance(0);
    this.events.length = 0;
    return joined;
  }

  /** The page is hidden, shown, or turned to. */
  pageEvent(type, persisted = false) {
    this.page.dispatchEvent(Object.assign(new Event(type), { persisted }));
  }

  /** The next try to connect, which succeeds. */
  async reconnect() {
    const before = this.sockets.length;
    for (let i = 0; i < 100 && this.sockets.length === before; i += 1) await this.clock.advance(500);
    assert.equal(this.sockets.length, before + 1, "it tries again");
    this.socket.open();
    await settle();
  }

  /** The connection is lost, and the session goes on. */
  async resume(last_cseq, code = 1006) {
    this.socket.drop(code);
    await this.reconnect();
    this.admit({ resumed: true, last_cseq, last_event: 99 });
    await settle();
  }
}
