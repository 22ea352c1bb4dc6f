/**
 * The client of a meeting-server: one WebSocket that keeps a member in its room.
 *
 * One module without dependencies, for browsers and Node. The types, with a word about each, are in
 * `client.d.ts`, how to use it is in `README.md`. From top to bottom: what goes wrong
 * ({@link MeetingError}), who is in the room ({@link Roster}), how long to wait ({@link Backoff}),
 * and the client itself, whose parts are, in this order: what an application calls, requests, the
 * connection ("link"), coming in and coming back, what the server says, the heartbeat, the end.
 *
 * Three words are used throughout. A *link* is one connection. A *stay* is the time in one room from
 * join() on, over as many links and sessions as it takes. A link is *attached* once the server has
 * answered its join: from then on requests can be sent.
 */

/** "The connection is given up, not the session": a page cannot drop a socket without a close frame. */
const GIVEN_UP = 4900;

/** Close codes of a server that does not want this client back, and why, where it did not say. */
const UNWANTED = new Map([
  [1002, "the server found a broken frame"],
  [1003, "the server refused a binary message"],
  [1007, "the server found invalid UTF-8"],
  [1008, "the server refused the client"],
  [1009, "a message was too big for the server"],
  [4001, "another client took this endpoint's place"],
  [4003, "an operator removed this client"],
]);

/** Error events that announce such a close. The close frame itself may be lost. */
const UNWANTED_EVENTS = new Map([["endpoint_replaced", 4001], ["removed", 4003]]);

/** The error numbers of events that end a connection. */
const EVENT_ERRORS = new Map([["message_too_big", 413], ["rate_limited", 429]]);

/** A server that goes down without saying when to come back: at most so long. */
const SHUTDOWN_SPREAD_MS = 5000;

/** Bounds of a wait that the server asks for. */
const ASKED_WAIT_MIN_MS = 1000;
const ASKED_WAIT_MAX_MS = 60000;

/** A longer delay makes `setTimeout` fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Limits of the events that wait for the list of members: their number, and their length. */
const HELD_EVENTS_MAX = 10000;
const HELD_LENGTH_MAX = 8 * 1024 * 1024;

/** How long close() waits for the server's part of the goodbye. */
const CLOSE_MS = 2000;

/** After the network has changed, the server has so long to show that it is still there. */
const NETWORK_PROBE_MS = 3000;

/** A connect that an event of the network or of the page has started is left alone for so long. */
const EAGER_CONNECT_MS = 1000;

/**
 * How long the library's own question for a media server may take. The heartbeat notices silence
 * sooner.
 */
const MEDIA_QUESTION_MS = 30000;

/** The longest wait until the server is asked again for a media server, where it had none. */
const MEDIA_RETRY_MAX_MS = 60000;

/** The names of the events that an application can listen to. */
const EVENT_NAMES = new Set([
  "state", "joined", "reconnecting", "ended", "members", "endpoint", "stream", "broadcast",
  "mediaServer", "error", "message",
]);

const NETWORK_EVENTS = ["online", "offline"];
const PAGE_EVENTS = ["pagehide", "pageshow", "visibilitychange"];

/**
 * An event does not tell all about a member, so the room is asked. In a big room everybody does so
 * at the same time: each waits up to so long for each member.
 */
const REFRESH_MS_A_MEMBER = 10;
const REFRESH_MS_AT_MOST = 5000;

/** How long to wait after the server was too busy for a request that the library sends again. */
const BUSY_MS = 1000;

/** Limits of the requests that wait to be sent: their number, and their bytes. */
const QUEUE_CALLS_MAX = 1000;
const QUEUE_BYTES_MAX = 1024 * 1024;

/** Why a promise was rejected, or a stay in a room ended. */
export class MeetingError extends Error {
  constructor(kind, message, { err = 0, method, closeCode, cause } = {}) {
    super(message);
    this.name = "MeetingError";
    this.kind = kind;
    this.err = err;
    this.err_msg = message;
    if (method !== undefined) this.method = method;
    if (closeCode !== undefined) this.closeCode = closeCode;
    if (cause !== undefined) this.cause = cause;
  }
}

/** The error of a call whose arguments could not be read: a getter has thrown, for example. */
function usageError(cause, method) {
  if (cause instanceof MeetingError) return cause;
  return new MeetingError("usage", wordsOf(cause), { method, cause });
}

/** A stream as lists have it: all of it, with "" for what is not known, or the id alone. */
function described({ stream_id, type, has_video, has_audio, audio_codec, video_codec }) {
  if (type === undefined) return Object.freeze({ stream_id });
  const codecs = { audio_codec: audio_codec ?? "", video_codec: video_codec ?? "" };
  return Object.freeze({ stream_id, type, has_video, has_audio, ...codecs });
}

/** Who is in the room, in the order of their joins. Nothing in a list is ever changed in place. */
class Roster {
  constructor() { this.list = Object.freeze([]); }

  /** Whether an event told of something of which only the room can tell the rest. */
  get incomplete() {
    return this.list.some((m) => m.role === null || (m.stream !== null && m.stream.type === undefined));
  }

  find(endpoint) { return this.list.find((member) => member.endpoint === endpoint); }

  /** Replaces the list by the rows of a channel.dump; returns whether anything is new. */
  replace(members) {
    const next = members.map(({ endpoint, device, role, stream }) => ({
      endpoint,
      device: device ?? "",
      role: role ?? "normal",
      stream: stream ? described(stream) : null,
    }));
    if (same(next, this.list)) return false;
    this._set(next);
    return true;
  }

  join(endpoint, device) { this._set([...this._without(endpoint), { endpoint, device, role: null, stream: null }]); }

  leave(endpoint) { this._set(this._without(endpoint)); }

  publish(endpoint, stream) { this._change(endpoint, () => described(stream)); }

  unpublish(endpoint, id) { this._change(endpoint, (stream) => (stream && stream.stream_id === id ? null : stream)); }

  _without(endpoint) { return this.list.filter((member) => member.endpoint !== endpoint); }

  _change(endpoint, stream) {
    this._set(this.list.map((m) => (m.endpoint === endpoint ? { ...m, stream: stream(m.stream) } : m)));
  }

  _set(members) { this.list = Object.freeze(members.map((member) => Object.freeze(member))); }
}

/**
 * How long to wait before each try. The wait is drawn between 0 and a bound that doubles, so that a
 * full house does not come back at once. Only a connection that has held starts it anew: a server
 * that lets everybody in and falls over would else be run over again and again.
 */
class Backoff {
  constructor({ baseMs = 1000, maxMs = 30000, stableMs = 30000, attempts = Infinity }, random) {
    Object.assign(this, { baseMs, maxMs, stableMs, attempts, random, tries: 0 });
  }

  get exhausted() { return this.tries >= this.attempts; }

  /** A connection has held for so long. */
  held(ms) { if (ms >= this.stableMs) this.tries = 0; }

  /** Counts a try, and says how long to wait for it; `asked` is what the server wants. */
  next(asked) {
    const bound = Math.min(this.maxMs, this.baseMs * 2 ** Math.min(this.tries, 30));
    this.tries += 1;
    return Math.round(asked === null ? this.random() * bound : asked);
  }
}

const isStreamRequest = (request) => request.method === "stream.add" || request.method === "stream.delete";

/** The bytes of a text in UTF-8. */
const bytesOf = (text) => new TextEncoder().encode(text).length;

/** Whether two plain things with their keys in one order are alike. */
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// The checks of what the server sends. A part that the library uses has the protocol's type, or the
// message is invalid. Unknown parts are allowed, since a later server may send them. Null counts as
// missing.

const isText = (value) => typeof value === "string";

const isOptionalText = (value) => value === undefined || value === null || isText(value);

const isName = (value) => isText(value) && value !== "";

const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

/** The events that change something here, each with the check of its data. */
const EVENT_CHECKS = new Map([
  ["endpoint", ({ endpoint, device, stat }) =>
    isName(endpoint) && isOptionalText(device) && isText(stat)],
  ["stream", ({ endpoint, device, stream, stat }) =>
    isName(endpoint) && isOptionalText(device) && isName(stream) && isText(stat)],
  ["broadcast", ({ source_endpoint: from, payload }) =>
    isObject(from) && isText(from.endpoint) && isOptionalText(from.device) && isObject(payload)],
]);

const isJoined = ({ session, endpoint, last_event }) =>
  isName(session) && isName(endpoint) && isCount(last_event);

const isStream = (stream) => isObject(stream) && isName(stream.stream_id) && isName(stream.type)
  && typeof stream.has_video === "boolean" && typeof stream.has_audio === "boolean"
  && isOptionalText(stream.audio_codec) && isOptionalText(stream.video_codec);

const isMember = (row) => isObject(row) && isName(row.endpoint) && isOptionalText(row.device)
  && isOptionalText(row.role)
  && (row.stream === undefined || row.stream === null || isStream(row.stream));

const isDump = ({ endpoint_list: rows }) => Array.isArray(rows) && rows.every(isMember)
  && new Set(rows.map(({ endpoint }) => endpoint)).size === rows.length;

const isMediaServer = ({ media_server }) => isObject(media_server);

/** The addresses of a media server, without what is no address. */
function addressesOf(mediaServer) {
  const addresses = Object.entries(mediaServer || {}).filter(([, address]) => isText(address));
  return Object.freeze(Object.fromEntries(addresses));
}

/** A wait that the server asks for, within bounds; undefined where it asked for none. */
function askedWait(ms) {
  if (typeof ms !== "number") return undefined;
  return Math.min(Math.max(ms, ASKED_WAIT_MIN_MS), ASKED_WAIT_MAX_MS);
}

/** What an application has thrown, in words. Not everything can be made a string. */
function wordsOf(cause) {
  try {
    return String((cause && cause.message) || cause);
  } catch (_) {
    return "an error without words";
  }
}

/** A WebSocket's address: a page's own may be relative, and older browsers want ws(s). */
function socketUrl(url) {
  const { location } = globalThis;
  let parsed;
  try {
    parsed = new URL(url, location ? location.href : undefined);
  } catch (cause) {
    throw usageError(cause);
  }
  if (parsed.protocol === "http:") parsed.protocol = "ws:";
  if (parsed.protocol === "https:") parsed.protocol = "wss:";
  return parsed.href;
}

/** What tells of `online` and `offline`: a page's window or a worker's scope. Node has neither. */
function ownNetwork() {
  const { navigator, addEventListener } = globalThis;
  const told = typeof addEventListener === "function" && navigator && typeof navigator.onLine === "boolean";
  return told ? globalThis : null;
}

/** Where the events of a page's life arrive: its window. Workers and Node have none. */
function ownPage() {
  const { document, addEventListener } = globalThis;
  return typeof addEventListener === "function" && document ? globalThis : null;
}

/** A client of a meeting-server. One client is in one room at a time. */
export class MeetingClient {
  constructor(url, {
    WebSocket = globalThis.WebSocket,
    timeoutMs = 10000,
    heartbeatMs = 15000,
    heartbeatTimeoutMs = 8000,
    maxMessageBytes = 65536,
    reconnect = {},
    setTimeout = (callback, ms) => globalThis.setTimeout(callback, ms),
    clearTimeout = (timer) => globalThis.clearTimeout(timer),
    now,
    // The wall clock can be set, so it measures no time. A test that replaces it replaces both.
    monotonic = now || (() => globalThis.performance.now()),
    random = () => Math.random(),
    network = ownNetwork(),
    page = ownPage(),
  } = {}) {
    if (typeof WebSocket !== "function") {
      throw new MeetingError("usage", "there is no WebSocket here; pass a constructor, like that of `ws`");
    }
    this.url = socketUrl(url);
    this._options = { WebSocket, timeoutMs, heartbeatMs, heartbeatTimeoutMs, maxMessageBytes, reconnect };
    const date = now || (() => Date.now());
    this._world = { setTimeout, clearTimeout, date, monotonic, random, network, page };
    this._backoff = new Backoff(reconnect || {}, random);
    this._onNetwork = (event) => this._turn(() => this._networkChanged(event.type));
    this._onPage = (event) => this._turn(() => this._pageChanged(event));
    /** The page is in the browser's back/forward cache, or on its way there: nothing connects. */
    this._suspended = false;

    this._state = "idle";
    /** The promise of close(), once it was called. */
    this._closed = null;
    /** The connection, and what is known of it; null while there is none. */
    this._link = null;
    /** The stay in a room; null outside. */
    this._stay = null;
    /** Calls of connect() that wait. */
    this._connects = new Set();
    /** What was asked and not answered yet, in order; also what could not be sent yet. */
    this._requests = new Set();
    /** Whether the next queued request may have to be sent. */
    this._queueChanged = false;
    /** Rises over all connections, so that `last_cseq` can be understood. */
    this._cseq = 0;
    this._roster = new Roster();
    this._stream = null;
    this._mediaServer = {};
    this._timers = { retry: null, refresh: null, heartbeat: null, queue: null, media: null };
    /** Whether it is the server that wants the retry to wait. */
    this._retryIsAsked = false;
    this._lastFailure = "no answer in time";

    this._listeners = new Map();
    /** What the listeners are to be told at the end of the turn. */
    this._news = [];
    this._depth = 0;
    this._telling = false;
  }

  get state() { return this._state; }

  get endpoint() { return this._stay ? this._stay.endpoint : ""; }

  get session() { return this._stay ? this._stay.session : ""; }

  get roster() { return this._roster.list; }

  get stream() { return this._stream; }

  get mediaServerAddresses() { return this._mediaServer; }

  // ------------------------------------------------------------------ what an application calls

  connect(options) {
    return this._call(() => this._timeout(options), (resolve, reject, timeoutMs) => {
      if (this._link && this._link.opened) return resolve();
      const call = { resolve, reject };
      call.timer = this._after(timeoutMs, () => {
        this._connects.delete(call);
        if (!this._stay && this._connects.size === 0) this._dispose(1000);
        reject(this._unreachable());
      });
      this._connects.add(call);
      return this._start();
    });
  }

  join(params, options) {
    const read = () => {
      const copy = isObject(params) ? { ...params } : {};
      return { copy, timeoutMs: this._timeout(options) };
    };
    return this._call(read, (resolve, reject, { copy, timeoutMs }) => {
      const wrong = (why) => new MeetingError("usage", why);
      if (this._stay) throw wrong("this client is in a room, or on its way; leave() it first");
      const { app, channel, token } = copy;
      if (!isText(app) || !isText(channel)) throw wrong("a join needs an app and a channel");
      for (const name of ["endpoint", "role", "device"]) {
        if (!isOptionalText(copy[name])) throw wrong(`a join's ${name} is a string`);
      }
      if (!isOptionalText(token) && typeof token !== "function") {
        throw wrong("a join's token is a string or a function");
      }
      this._stay = {
        params: copy,
        endpoint: copy.endpoint || "",
        session: "",
        /** The number of the last event that has arrived, from which a resume goes on. */
        lastEvent: 0,
        joins: 0,
        /** join() has resolved. */
        entered: false,
        /** How this member came in, while the application has not been told yet. */
        announce: null,
        /** Events that wait for that. */
        held: [],
        heldLength: 0,
        /** There was a media server and is none now; how often it was asked for since. */
        mediaLost: false,
        mediaTries: 0,
        /** Delivers these events; null before the application is in the room and after it ran. */
        tell: null,
        /** The promise of leave(), once it was called. */
        leaving: null,
        resolve,
        reject,
        timer: this._after(timeoutMs, () => this._joinTimedOut()),
      };
      this._backoff.tries = 0;
      this._watch("addEventListener");
      const link = this._link;
      if (link && link.goodbye !== null) this._giveUp("the server shuts down");
      else if (!link) this._start();
      else {
        link.timer = link.timer || this._attemptTimer();
        this._fetchToken(link);
      }
    });
  }

  leave(options) {
    let timeoutMs;
    try {
      timeoutMs = this._timeout(options);
    } catch (cause) {
      return Promise.reject(usageError(cause, "channel.leave"));
    }
    const stay = this._stay;
    if (stay && stay.leaving) return stay.leaving;
    const leave = () => this._call(() => {}, (resolve, reject) => {
      if (!stay) return resolve();
      // A close frame leaves the room as well as the request does.
      const hangUp = (error) => {
        this._dispose(1000);
        this._endStay(error);
        resolve();
      };
      if (!stay.entered) return hangUp(new MeetingError("closed", "leave() was called before the join was answered"));
      return this._ask("channel.leave", {}, {
        timeoutMs,
        resolve,
        reject,
        answered: () => this._endStay(new MeetingError("closed", "the client left the room")),
        refused: hangUp,
        timedOut: hangUp,
      });
    });
    return this._turn(() => {
      const leaving = leave();
      if (stay) stay.leaving = leaving;
      return leaving;
    });
  }

  publish(stream, options) {
    return this._request("stream.add", options, () => {
      // What JSON makes of it is what is sent, and what will be published again.
      const copy = isObject(stream) ? JSON.parse(JSON.stringify(stream)) : null;
      if (!isObject(copy)) throw new TypeError("a stream is an object");
      return { data: { stream: Object.freeze(copy) }, ...this._publishing(copy) };
    });
  }

  unpublish(streamId, options) {
    return this._request("stream.delete", options, () => {
      const stream_id = streamId === undefined ? this._lastStreamId() : streamId;
      if (!isText(stream_id)) throw new TypeError("there is no such stream");
      return {
        data: { stream_id },
        answered: () => this._streamIs(stream_id, null),
        // "There is no such stream": then there is nothing to publish again.
        refused: ({ err }) => { if (err === 404) this._streamIs(stream_id, null); },
        inEffect: (me) => !me || !me.stream || me.stream.stream_id !== stream_id,
      };
    });
  }

  members(options) {
    return this._request("channel.dump", options, () => ({
      data: {},
      valid: isDump,
      answered: (data) => { this._takeDump(data); return this.roster; },
    }));
  }

  mediaServer(protocol = "webrtc", options = undefined) {
    return this._request("media_server.dump", options, () => {
      if (!isText(protocol)) throw new TypeError("a protocol is a string");
      return { data: { protocol }, ...this._askingForMedia(protocol) };
    });
  }

  broadcast(payload, options) {
    return this._request("broadcast", options, () => ({ data: payload }));
  }

  close() {
    if (this._closed) return this._closed;
    this._turn(() => {
      const link = this._link;
      this._closed = new Promise((resolve) => {
        if (!link) return resolve();
        const timer = this._after(CLOSE_MS, resolve);
        link.gone = () => { this._cancel(timer); resolve(); };
        return undefined;
      });
      this._dispose(1000);
      for (const { reject, timer } of this._connects) { this._cancel(timer); reject(this._closedError()); }
      this._connects.clear();
      this._endStay(this._closedError());
    });
    return this._closed;
  }

  on(event, listener) { return this._listen(event, listener, false); }

  once(event, listener) { return this._listen(event, listener, true); }

  /** As in Node: of equal listeners it stops the one that was added last. */
  off(event, listener) {
    this._checkListener(event, listener);
    const entries = [...(this._listeners.get(event) || [])].reverse();
    const entry = entries.find((one) => one.listener === listener);
    if (entry) this._forget(event, entry);
  }

  /** As in Node: an equal listener that is added twice is called twice. */
  _listen(event, listener, once) {
    this._checkListener(event, listener);
    const entry = { listener, once, stopped: false };
    this._listeners.set(event, [...(this._listeners.get(event) || []), entry]);
    return () => this._forget(event, entry);
  }

  _forget(event, entry) {
    entry.stopped = true;
    const entries = this._listeners.get(event) || [];
    this._listeners.set(event, entries.filter((other) => other !== entry));
  }

  /** Unlike Node and browsers, which would wait in vain for an event that does not exist. */
  _checkListener(event, listener) {
    if (!EVENT_NAMES.has(event)) {
      const names = [...EVENT_NAMES].join(", ");
      throw new MeetingError("usage", `there is no event "${wordsOf(event)}"; there are ${names}`);
    }
    if (typeof listener !== "function") throw new MeetingError("usage", "a listener is a function");
  }

  // ------------------------------------------------------------------ requests

  /** An application's request: a promise of its answer. `prepare` returns its data and effects. */
  _request(method, options, prepare) {
    const read = () => {
      const { data, ...effects } = prepare();
      const body = this._json(method, data);
      return { ...effects, data, body, timeoutMs: this._timeout(options) };
    };
    return this._call(read, (resolve, reject, { data, ...rest }) => {
      if (!this._stay || this._stay.leaving) {
        throw new MeetingError("usage", "there is no room to ask; join() one first", { method });
      }
      this._ask(method, data, { ...rest, resolve, reject });
    }, method);
  }

  /** How long a call may take. */
  _timeout(options) {
    const { timeoutMs = this._options.timeoutMs } = options ?? {};
    if (typeof timeoutMs === "number" && timeoutMs >= 0) return timeoutMs;
    throw new MeetingError("usage", "timeoutMs is a number of milliseconds");
  }

  /**
   * A request. What it comes to:
   * `answered(data)` takes the effect of a good answer and returns what the promise resolves to;
   * `refused(error)` that of an error; `timedOut(error)` that of none; `inEffect(me)` says from the
   * list of members whether a stream request has been carried out. `valid(data)` checks a good
   * answer before it has an effect.
   * `passing`: the library's own question, which nobody needs answered after a loss.
   * `first`: the library's own request, which is sent before all others.
   */
  _ask(method, data, { timeoutMs = null, first = false, ...effects }) {
    const body = effects.body || this._json(method, data);
    const own = first || Boolean(effects.passing);
    const queued = !own && (!this._attached || this._queue().length > 0);
    const request = { method, data, ...effects, body, own, queued };
    if (queued && method !== "channel.leave") this._checkQueue(request);
    // `verify`: it was taken in, and what came of it will be seen in the list of members.
    Object.assign(request, { cseq: null, sentAt: 0, settled: false, verify: false, timer: null });
    if (timeoutMs !== null) request.timer = this._after(timeoutMs, () => this._requestTimedOut(request));
    if (first) this._requests = new Set([request, ...this._requests]);
    else this._requests.add(request);
    if (this._attached && !queued) this._send(request);
    this._queueChanged = true;
  }

  // ----- the queue: what could not be sent at once, and is not answered yet

  /** The queued requests, in order. A request whose promise is settled holds up nothing. */
  _queue() { return [...this._requests].filter(({ queued, settled }) => queued && !settled); }

  _checkQueue(request) {
    const waiting = [request, ...this._requests].filter(({ own }) => !own);
    for (const one of waiting) one.bytes = one.bytes ?? bytesOf(one.body);
    const bytes = waiting.reduce((sum, one) => sum + one.bytes, 0);
    if (waiting.length > QUEUE_CALLS_MAX || bytes > QUEUE_BYTES_MAX) {
      const limits = `${QUEUE_CALLS_MAX} requests or ${QUEUE_BYTES_MAX} bytes`;
      const why = `at most ${limits} may wait for the connection`;
      throw new MeetingError("queue_full", why, { method: request.method });
    }
  }

  /**
   * Sends the first queued request, unless it is on its way. One at a time: all at once would
   * exceed the server's rate limit, which refuses some of them and then closes the connection. Runs
   * at the end of a turn, when all that it depends on is in order.
   */
  _sendQueued() {
    if (!this._queueChanged || !this._attached || this._timers.queue !== null) return;
    this._queueChanged = false;
    const [next] = this._queue();
    if (next && next.cseq === null && !next.verify) this._send(next);
  }

  /** The text of a request's data, as it is now, if it can be sent. */
  _json(method, data) {
    const wrong = (cause) => new MeetingError("usage", `${method} needs a JSON object`, { method, cause });
    let body;
    try {
      body = JSON.stringify(data);
    } catch (cause) {
      throw wrong(cause);
    }
    // Also of what a toJSON of the application's has made of it.
    if (!isObject(data) || !body || body[0] !== "{") throw wrong();
    // With the longest cseq and session that it may be sent with; a character is three bytes at most.
    const { length } = this._envelope(method, Number.MAX_SAFE_INTEGER, "-".repeat(36), body);
    const { maxMessageBytes } = this._options;
    if (length * 3 > maxMessageBytes && new TextEncoder().encode(body).length + length - body.length > maxMessageBytes) {
      throw new MeetingError("refused", `a message may be ${maxMessageBytes} bytes long`, { err: 413, method });
    }
    return body;
  }

  _envelope(method, cseq, session, body) {
    return `{"version":0,"cseq":${cseq},"method":"${method}","session":${JSON.stringify(session)},"data":${body}}`;
  }

  /** The number is given when a request is sent, so that the numbers of a session rise in its order. */
  _send(request) {
    const link = this._link;
    request.cseq = this._cseq += 1;
    request.sentAt = this._now();
    link.sent.set(request.cseq, request);
    this._write(link, this._envelope(request.method, request.cseq, this._stay.session, request.body));
  }

  _write(link, text) {
    this._emit("message", { direction: "out", text, time: this._world.date() });
    link.socket.send(text);
  }

  /** A stream request is kept until its answer is known: its effect may still show itself. */
  _requestTimedOut(request) {
    const { method, cseq, sentAt, timedOut } = request;
    const error = new MeetingError("timeout", `no answer to ${method} in time`, { method });
    const link = this._link;
    const silent = cseq !== null && link && link.heard <= sentAt
      && this._now() - sentAt >= this._options.heartbeatTimeoutMs;
    if (isStreamRequest(request) && (cseq !== null || request.verify)) this._settle(request, error);
    else this._finish(request, error);
    if (timedOut && !(request.passing && silent)) timedOut(error);
    else if (silent) this._giveUp(`no answer to ${method}`);
  }

  /** Keeps the promise; the request may go on. */
  _settle(request, error, value) {
    if (request.settled) return;
    request.settled = true;
    this._queueChanged = true;
    this._cancel(request.timer);
    if (error && request.reject) request.reject(error);
    if (!error && request.resolve) request.resolve(value);
  }

  /** Nothing more will come of a request. */
  _finish(request, error = null, value = undefined) {
    this._requests.delete(request);
    // Otherwise a server that never answers would make this map grow.
    if (this._link && request.cseq !== null) this._link.sent.delete(request.cseq);
    this._settle(request, error, value);
  }

  _answer(link, { cseq, err, err_msg, data }) {
    const request = link.sent.get(cseq);
    if (!request) return;
    link.sent.delete(cseq);
    const { method, valid } = request;
    if (err === 429 && request.queued && !request.settled) {
      request.cseq = null;
      this._setTimer("queue", BUSY_MS, () => { this._queueChanged = true; });
      return;
    }
    if (err === 0 && isObject(data) && (!valid || valid(data))) {
      this._finish(request, null, request.answered ? request.answered(data) : undefined);
      return;
    }
    const error = Number.isInteger(err) && err !== 0
      ? new MeetingError("refused", isText(err_msg) ? err_msg : "", { err, method })
      : this._invalid(`an answer to ${method}`, method);
    if (request.refused) request.refused(error);
    this._finish(request, error);
  }

  /** Reports a message that is not as the protocol has it, and returns the error for it. */
  _invalid(what, method) {
    const message = `the server sent ${what} that is not as the protocol has it`;
    this._emit("error", { type: "invalid_message", message });
    return new MeetingError("protocol", message, { method });
  }

  // ----- the effects of each

  _publishing(stream) {
    return {
      answered: () => this._streamIs(stream.stream_id, stream),
      inEffect: (me) => same(me && me.stream, described(stream)),
    };
  }

  /**
   * This member publishes a stream now, or no longer. The server sends no event about a member's own
   * requests. It sends an `unpublish` where a resume with a newer token has ended the stream.
   */
  _streamIs(id, stream) {
    if (!this._stay) return;
    if (stream) {
      this._stream = stream;
      this._roster.publish(this.endpoint, stream);
    } else {
      if (this._stream && this._stream.stream_id === id) this._stream = null;
      this._roster.unpublish(this.endpoint, id);
    }
    this._membersChanged();
  }

  /** The stream that will be published when all that was asked is done. */
  _lastStreamId() {
    const asked = [...this._requests].filter((request) => request.method === "stream.add").pop();
    const stream = asked ? asked.data.stream : this._stream;
    return stream ? stream.stream_id : undefined;
  }

  _askingForMedia(protocol) {
    const valid = isMediaServer;
    if (protocol !== "webrtc") {
      return { valid, answered: ({ media_server }) => addressesOf(media_server) };
    }
    return {
      valid,
      answered: ({ media_server }) => {
        this._mediaServerIs(media_server);
        return this._mediaServer;
      },
      refused: ({ err }) => { if (err === 503) this._mediaServerIs({}); },
    };
  }

  /**
   * The library's own question, which also shows whether the server is there. One at a time:
   * answers come in the order of events, so the answer to an earlier question is as good.
   */
  _askForMedia() {
    const isSame = ({ method, passing }) => passing && method === "media_server.dump";
    if ([...this._requests].some(isSame)) return;
    const { refused, ...effects } = this._askingForMedia("webrtc");
    this._ask("media_server.dump", { protocol: "webrtc" }, this._passing({
      ...effects,
      refused: (error) => { refused(error); this._askAgainForMedia(); },
    }, MEDIA_QUESTION_MS));
  }

  /** No event reports that there is a media server again, so the server is asked. */
  _askAgainForMedia() {
    const stay = this._stay;
    if (!this._attached || !stay.mediaLost || this._timers.media !== null) return;
    const bound = Math.min(MEDIA_RETRY_MAX_MS, BUSY_MS * 2 ** Math.min(stay.mediaTries + 1, 30));
    stay.mediaTries += 1;
    const wait = Math.max(BUSY_MS, this._world.random() * bound);
    this._setTimer("media", wait, () => this._askForMedia());
  }

  /** Makes a request the library's own. It has a time limit, as its answer may not come. */
  _passing(effects, timeoutMs = this._options.timeoutMs) {
    return { ...effects, passing: true, timeoutMs, timedOut: effects.refused };
  }

  _mediaServerIs(mediaServer) {
    const stay = this._stay;
    const addresses = addressesOf(mediaServer);
    const changed = !same(addresses, this._mediaServer);
    const none = same(addresses, {});
    if (stay && none && changed) stay.mediaLost = true;
    if (stay && !none) {
      Object.assign(stay, { mediaLost: false, mediaTries: 0 });
      this._stopTimer("media");
    }
    this._mediaServer = addresses;
    if (stay && stay.entered && changed) this._emit("mediaServer", addresses, stay);
    if (stay && none) this._askAgainForMedia();
  }

  // ------------------------------------------------------------------ the connection

  get _attached() { return this._link !== null && this._link.attached; }

  /** Connects, unless that is under way. */
  _start() {
    if (!this._link && this._timers.retry === null) this._open();
  }

  /** `eager`: an event has started it, and not a timer or a call. */
  _open(eager = false) {
    this._stopTimer("retry");
    if (this._suspended) return;
    let socket;
    try {
      socket = new this._options.WebSocket(this.url);
    } catch (cause) {
      this._failed(0, `no connection can be made: ${wordsOf(cause)}`);
      return;
    }
    const link = {
      socket,
      eager,
      startedAt: this._now(),
      opened: false,
      attached: false,
      attachedAt: 0,
      /** When the server was last heard, and whether since it was asked for a sign of life. */
      heard: this._now(),
      alive: true,
      /** Requests by number. */
      sent: new Map(),
      token: undefined,
      hasToken: false,
      joinCseq: null,
      /** The last error event: it says why what follows is a close. */
      warning: null,
      /** The server has said goodbye: when to come back. */
      goodbye: null,
      timer: this._attemptTimer(),
      /** Whoever waits for the end of it. */
      gone: null,
    };
    this._link = link;
    socket.onopen = () => this._turn(() => this._opened(link));
    socket.onmessage = (event) => this._received(link, event.data);
    socket.onclose = ({ code, reason }) => this._turn(() => {
      if (link.gone) link.gone();
      this._dropped(link, code, reason);
    });
    // A close follows at once, but in Node 22 not where there never was a connection.
    socket.onerror = () => {
      if (!link.opened) this._after(0, () => this._dropped(link, 1006, ""));
    };
    if (this._stay) this._fetchToken(link);
  }

  _attemptTimer() {
    return this._after(this._options.timeoutMs, () => this._giveUp("no answer in time"));
  }

  _opened(link) {
    if (this._link !== link) return;
    link.opened = true;
    link.heard = this._now();
    for (const { resolve, timer } of this._connects) { this._cancel(timer); resolve(); }
    this._connects.clear();
    if (this._stay) this._sendJoin(link);
    else this._endAttempt(link);
  }

  _endAttempt(link) {
    this._cancel(link.timer);
    link.timer = null;
  }

  /** Takes the connection, which is no longer the client's; null if there is none. */
  _detach() {
    const link = this._link;
    this._link = null;
    this._stopTimer("heartbeat");
    this._stopTimer("queue");
    this._stopTimer("media");
    if (link) this._endAttempt(link);
    return link;
  }

  /** Ends the connection, and the tries to get one. */
  _dispose(code) {
    this._stopTimer("retry");
    const link = this._detach();
    if (link) link.socket.close(code);
  }

  /** The connection is no good, and whatever it may still bring is not waited for. */
  _giveUp(reason) {
    const link = this._link;
    if (!link) return;
    link.socket.close(GIVEN_UP);
    this._dropped(link, GIVEN_UP, reason);
  }

  _dropped(link, code, reason) {
    if (this._link !== link) return;
    this._detach();
    if (link.attached) this._backoff.held(this._now() - link.attachedAt);
    const { type = "", message = "" } = link.warning || {};
    const wanted = UNWANTED_EVENTS.get(type) || code;
    // Before its join a connection is closed with 1008 for being too late: the token took long.
    const late = wanted === 1008 && link.joinCseq === null;
    if (this._stay && UNWANTED.has(wanted) && !late) {
      const err = EVENT_ERRORS.get(type) || 0;
      const why = message || reason || UNWANTED.get(wanted);
      this._endStay(new MeetingError("ended", why, { err, closeCode: wanted }));
      return;
    }
    const spread = code === 1001 ? this._world.random() * SHUTDOWN_SPREAD_MS : null;
    const why = type || reason || (link.opened ? "connection lost" : "no connection");
    this._failed(code, why, link.goodbye === null ? spread : link.goodbye);
  }

  /** There is no connection: tries again, if anybody wants one. `askedMs`: when the server wants it. */
  _failed(code, reason, askedMs = null) {
    const stay = this._stay;
    this._lastFailure = reason;
    if (!stay && this._connects.size === 0) return;
    if (stay && stay.entered && !this._options.reconnect) {
      this._endStay(new MeetingError("ended", `the connection was lost: ${reason}`, { closeCode: code }));
    } else if (stay && stay.entered && this._backoff.exhausted) {
      this._endStay(this._unreachable());
    } else {
      const delayMs = this._backoff.next(askedMs);
      this._retryIsAsked = askedMs !== null;
      this._setTimer("retry", delayMs, () => this._open());
      const attempt = this._backoff.tries;
      if (stay && stay.entered) this._emit("reconnecting", { attempt, delayMs, reason, closeCode: code }, stay);
    }
  }

  _networkChanged(type) {
    if (this._attached) this._probeSoon();
    else if (type === "online") this._connectNow();
  }

  /**
   * A page that goes into the back/forward cache would keep its socket open there for minutes, and
   * the browser would answer the server's pings. A page that is closed or loaded anew needs no more
   * than the browser does: it closes the socket, and that is a leave.
   */
  _pageChanged({ type, persisted }) {
    if (type === "pagehide") {
      if (persisted) this._suspend();
      return;
    }
    const visible = this._world.page.document.visibilityState === "visible";
    if (type === "pageshow" ? persisted : visible) {
      this._suspended = false;
      // Timers may have stood still, and nothing was seen of the network.
      if (this._attached) this._probeSoon();
      else this._connectNow();
    }
  }

  _suspend() {
    const link = this._link;
    if (!this._options.reconnect) {
      this._dispose(1000);
      this._endStay(new MeetingError("ended", "the page went into the browser's cache"));
      return;
    }
    this._suspended = true;
    if (link && link.attached) this._backoff.held(this._now() - link.attachedAt);
    if (link) this._detach().socket.close(GIVEN_UP);
    if (!this._retryIsAsked) this._stopTimer("retry");
  }

  _probeSoon() { this._probe(Math.min(NETWORK_PROBE_MS, this._options.heartbeatTimeoutMs)); }

  /** Ends the wait for the next try, and replaces a try that was begun over another network. */
  _connectNow() {
    const link = this._link;
    const waits = this._timers.retry !== null;
    // The server asks every client for a wait of its own, so that they do not all return at once.
    if (!link && !(waits && this._retryIsAsked)) this._open(true);
    if (!link || link.attached) return;
    if (link.eager && this._now() - link.startedAt < EAGER_CONNECT_MS) return;
    // A first join that was sent may have been carried out, and a second one would not resume it.
    if (link.opened && !this._stay.entered) return;
    this._dispose(GIVEN_UP);
    this._open(true);
  }

  _watch(change) {
    const { network, page } = this._world;
    if (network) for (const event of NETWORK_EVENTS) network[change](event, this._onNetwork);
    if (page) for (const event of PAGE_EVENTS) page[change](event, this._onPage);
  }

  // ------------------------------------------------------------------ coming in, and coming back

  /** Gets the token while the connection is being made. */
  _fetchToken(link) {
    const stay = this._stay;
    const { app, channel, token } = stay.params;
    stay.joins += 1;
    const arrived = (value) => {
      if (!isOptionalText(value)) return this._tokenFailed(new TypeError("a token is a string"));
      link.token = value;
      link.hasToken = true;
      return this._sendJoin(link);
    };
    if (typeof token !== "function") return arrived(token);
    const request = { app, channel, endpoint: stay.endpoint, attempt: stay.joins };
    const ifStill = (act) => (value) => this._turn(() => {
      if (this._link === link && this._stay === stay) act(value);
    });
    return Promise.resolve(request).then(token).then(ifStill(arrived), ifStill((cause) => this._tokenFailed(cause)));
  }

  /** Whoever makes tokens may be out of reach as well as the server is. */
  _tokenFailed(cause) {
    const message = `no token: ${wordsOf(cause)}`;
    if (this._stay.entered) return this._giveUp(message);
    this._dispose(1000);
    return this._endStay(new MeetingError("token", message, { cause }));
  }

  /** Once the connection and the token are both there. */
  _sendJoin(link) {
    const stay = this._stay;
    if (!link.opened || !link.hasToken || link.joinCseq !== null) return;
    const { app, channel, role, device } = stay.params;
    // Whoever comes back only to leave takes nobody's place: an empty endpoint resumes, or is new.
    const endpoint = stay.leaving ? "" : stay.endpoint;
    const data = { app, channel, endpoint, role, device, token: link.token, last_event: stay.lastEvent };
    link.joinCseq = this._cseq += 1;
    this._write(link, this._envelope("channel.join", link.joinCseq, stay.session, JSON.stringify(data)));
  }

  _joinAnswered(link, { err, err_msg, data }) {
    const stay = this._stay;
    if (Number.isInteger(err) && err !== 0) {
      const why = isText(err_msg) ? err_msg : "";
      this._joinRefused(link, new MeetingError("refused", why, { err, method: "channel.join" }));
      return;
    }
    const resumed = isObject(data) && data.resumed === true;
    const resumes = resumed && stay.session !== "" && isCount(data.last_cseq);
    if (err !== 0 || !isObject(data) || !(resumed ? resumes : isJoined(data))) {
      this._giveUp(this._invalid("an answer to channel.join").message);
      return;
    }
    link.attached = true;
    link.attachedAt = this._now();
    this._endAttempt(link);
    if (resumed) {
      stay.announce = stay.announce || "resumed";
      this._sortAfterResume(data.last_cseq);
    } else {
      stay.announce = stay.entered ? "rejoined" : "joined";
      stay.held = stay.held || [];
      stay.endpoint = data.endpoint;
      stay.session = data.session;
      // At a resume the replay is still to come, so there the mark stays where it is.
      stay.lastEvent = data.last_event;
      if (!stay.entered) this._roster.join(data.endpoint, stay.params.device || "");
      this._sortAfterRejoin();
    }
    // Whoever came back only to leave wants to know nothing.
    if (stay.leaving) stay.announce = null;
    this._mediaServerIs(data.media_server);
    this._startHeartbeat();
    const verifying = [...this._requests].some((request) => request.verify);
    if (verifying || this._awaitsList) this._refresh();
    else this._refreshSoon();
    for (const request of this._requests) {
      if (request.own && request.cseq === null && !request.verify) this._send(request);
    }
    this._queueChanged = true;
    if (stay.announce === "resumed") this._announce();
  }

  /** A first join is the application's matter, but where the server had said that it goes down. */
  _joinRefused(link, error) {
    const { entered } = this._stay;
    const { err } = error;
    if ((err === 503 || err === 429) && (entered || link.goodbye !== null)) {
      link.socket.close(GIVEN_UP);
      this._detach();
      this._failed(0, error.message, link.goodbye);
      return;
    }
    // After 401 and 403 the server closes the connection.
    if (entered || err === 401 || err === 403) this._dispose(1000);
    else this._endAttempt(link);
    this._endStay(error);
  }

  /** Takes back the requests that were sent over a connection that is lost. */
  _takeBack() {
    const sent = [...this._requests].filter((request) => request.cseq !== null || request.verify);
    for (const request of sent) {
      const { cseq, verify } = request;
      request.wasTaken = (lastCseq) => verify || cseq <= lastCseq;
      request.cseq = null;
      request.verify = false;
      request.queued = !request.own;
    }
    return sent;
  }

  /**
   * The session goes on. What the server took in (`last_cseq`) has had its effect and only the
   * answer is lost; the rest is sent again. A broadcast that was taken in has reached the room, unless
   * it was refused, which nobody can tell any more; whether a stream request was granted is seen in the list of members.
   */
  _sortAfterResume(lastCseq) {
    for (const request of this._takeBack()) {
      request.verify = request.wasTaken(lastCseq) && isStreamRequest(request);
      if (request.verify) continue;
      if (request.passing || request.settled) this._finish(request);
      else if (request.wasTaken(lastCseq) && request.method === "broadcast") this._finish(request);
    }
  }

  /**
   * A new session. It publishes nothing yet, so that is made good before anything else is asked.
   * Whether an unanswered broadcast reached the room before, nobody knows.
   */
  _sortAfterRejoin() {
    for (const request of this._takeBack()) {
      const { method } = request;
      const lost = new MeetingError("lost", "the session ended before the answer came", { method });
      if (request.passing || request.settled || method === "broadcast") this._finish(request, lost);
    }
    const stream = this._stream;
    if (!stream || this._stay.leaving) return;
    const next = [...this._requests].find(isStreamRequest);
    if (next && next.method === "stream.delete" && next.data.stream_id === stream.stream_id) {
      this._streamIs(stream.stream_id, null);
      this._finish(next);
    } else if (!next || next.method !== "stream.add" || next.data.stream.stream_id !== stream.stream_id) {
      this._republish(stream);
    }
  }

  _republish(stream) {
    const stay = this._stay;
    this._ask("stream.add", { stream }, {
      ...this._publishing(stream),
      first: true,
      refused: ({ err, message }) => {
        if (err === 429 || err === 503) {
          this._after(BUSY_MS * (1 + this._world.random()), () => {
            if (this._stay === stay && this._stream === stream) this._republish(stream);
          });
          return;
        }
        this._streamIs(stream.stream_id, null);
        this._emit("error", { type: "republish_failed", message });
      },
    });
  }

  /** The application is to be told that it is in the room, and that waits for the list of members. */
  get _awaitsList() {
    const { announce } = this._stay;
    return announce === "joined" || announce === "rejoined";
  }

  /** Tells the application that it is in the room, with the list of members as it is now. */
  _announce() {
    const stay = this._stay;
    const { announce: how, session, endpoint, held } = stay;
    const joined = { session, endpoint, mediaServer: this._mediaServer, members: this.roster };
    const tell = () => {
      if (stay.tell !== tell) return;
      stay.tell = null;
      stay.held = null;
      stay.heldLength = 0;
      this._emit("joined", { how, ...joined }, stay);
      if (held) this._emit("members", this.roster, stay);
      for (const [event, value] of held || []) this._emit(event, value, stay);
    };
    stay.announce = null;
    stay.tell = tell;
    if (stay.entered) return tell();
    stay.entered = true;
    this._cancel(stay.timer);
    stay.resolve(joined);
    // Not before whoever awaits the join has gone on, through however many promises.
    return this._after(0, tell);
  }

  // ------------------------------------------------------------------ what the server says

  _received(link, text) {
    if (isText(text)) {
      const time = this._world.date();
      this._turn(() => this._emit("message", { direction: "in", text, time }));
    }
    this._turn(() => { if (this._link === link) this._message(link, text); });
  }

  _message(link, text) {
    link.heard = this._now();
    link.alive = true;
    let message = null;
    try {
      message = isText(text) ? JSON.parse(text) : null;
    } catch (_) {
      // Seen below.
    }
    if (!isObject(message)) this._giveUp("the server sent something that is no message");
    else if (message.event === "error") this._serverError(link, message.data);
    else if (message.event !== undefined) this._event(link, message, text.length);
    else if (!isCount(message.cseq)) this._invalid("an answer without a number");
    else if (message.cseq !== link.joinCseq) this._answer(link, message);
    // A join is answered once.
    else if (!link.attached) this._joinAnswered(link, message);
  }

  _event(link, { event, cseq, data }, length) {
    if (!link.attached) return;
    const check = EVENT_CHECKS.get(event);
    if (!isCount(cseq) || (check && !(isObject(data) && check(data)))) {
      this._invalid("an event");
      // Something may have happened in the room that the list does not show.
      this._refreshSoon(BUSY_MS);
      return;
    }
    this._stay.lastEvent = Math.max(this._stay.lastEvent, cseq);
    if (!check) return;
    if (event === "broadcast") {
      const { source_endpoint, payload } = data;
      const from = { ...source_endpoint, device: source_endpoint.device ?? "" };
      this._deliver(event, { from, payload, number: cseq }, length);
      return;
    }
    const { endpoint, stat, stream } = data;
    const device = data.device ?? "";
    if (stat === "join" && event === "endpoint") this._roster.join(endpoint, device);
    else if (stat === "leave" && event === "endpoint") this._roster.leave(endpoint);
    else if (stat === "publish" && event === "stream") {
      this._roster.publish(endpoint, { stream_id: stream });
    } else if (stat === "unpublish" && event === "stream") {
      const own = this._stream && this._stream.stream_id;
      if (endpoint === this.endpoint && stream === own) this._stream = null;
      this._roster.unpublish(endpoint, stream);
    }
    // A later server may report more than this library knows.
    else return;
    this._membersChanged();
    this._deliver(event, { ...data, device, number: cseq }, length);
  }

  _serverError(link, data) {
    if (!isObject(data) || !isText(data.type)) {
      this._invalid("an error event");
      return;
    }
    const { type } = data;
    const complaint = { type, message: isText(data.message) ? data.message : "" };
    link.warning = complaint;
    if (type === "media_server_down" && link.attached) {
      Object.assign(this._stay, { mediaLost: true, mediaTries: 0 });
      this._stopTimer("media");
      this._askForMedia();
    }
    if (type === "server_shutdown") {
      link.goodbye = askedWait(data.retry_after_ms) ?? this._world.random() * SHUTDOWN_SPREAD_MS;
      this._emit("error", { ...complaint, retryAfterMs: link.goodbye });
    } else {
      this._emit("error", complaint);
    }
  }

  /**
   * To the application, but not before its join() has resolved. Where too much waits for that, the
   * list of members is not waited for.
   */
  _deliver(event, value, length) {
    const stay = this._stay;
    if (!stay.held) {
      this._emit(event, value, stay);
      return;
    }
    stay.held.push([event, value]);
    stay.heldLength += length;
    if (stay.held.length < HELD_EVENTS_MAX && stay.heldLength < HELD_LENGTH_MAX) return;
    if (stay.tell) stay.tell();
    else if (stay.announce !== null) this._announce();
  }

  // ----- the list of members

  _membersChanged() {
    // While events are held the whole list will be told in front of them.
    if (!this._stay.held) this._emit("members", this.roster, this._stay);
    this._refreshSoon();
  }

  /** Answers and events come in one order, so a list is true when it arrives, and stays so by events. */
  _takeDump({ endpoint_list }) {
    if (this._roster.replace(endpoint_list)) this._membersChanged();
    this._verify();
    if (this._awaitsList) this._announce();
  }

  /** Stream requests that were taken in: of several, each has undone what was before it. */
  _verify() {
    const taken = [...this._requests].filter((request) => request.verify);
    const last = taken.pop();
    if (!last) return;
    for (const request of taken) this._finish(request);
    // Where it was refused, it is sent again, and the server says once more why.
    last.verify = false;
    this._queueChanged = true;
    if (last.inEffect(this._roster.find(this.endpoint))) this._finish(last, null, last.answered());
    else if (last.settled) this._finish(last);
  }

  _refresh() {
    this._stopTimer("refresh");
    this._ask("channel.dump", {}, this._passing({
      valid: isDump,
      answered: (data) => this._takeDump(data),
      refused: () => {
        // After a loss the next answer to a join asks again.
        if (!this._attached) return;
        // Its promise waits, so it is sent again without the list.
        for (const request of this._requests) request.verify = request.verify && request.settled;
        this._queueChanged = true;
        if (this._awaitsList) this._announce();
        this._refreshSoon(BUSY_MS);
      },
    }));
  }

  /** Asks for what the events did not tell, unless that is under way; with `atLeastMs`, in any case. */
  _refreshSoon(atLeastMs = 0) {
    if (this._timers.refresh !== null || !(this._roster.incomplete || atLeastMs)) return;
    const spread = Math.min(this.roster.length * REFRESH_MS_A_MEMBER, REFRESH_MS_AT_MOST);
    this._setTimer("refresh", atLeastMs + this._world.random() * spread, () => {
      const asked = [...this._requests].some((request) => request.method === "channel.dump");
      if (this._attached && !asked) this._refresh();
    });
  }

  // ------------------------------------------------------------------ the heartbeat

  /** A page cannot see the server's pings, so after a silence it asks something harmless. */
  _startHeartbeat() {
    const { heartbeatMs, heartbeatTimeoutMs } = this._options;
    if (!heartbeatMs) return;
    const due = this._link.heard + heartbeatMs - this._now();
    this._setTimer("heartbeat", Math.max(due, 1), () => {
      if (this._now() - this._link.heard < heartbeatMs) this._startHeartbeat();
      else this._probe(heartbeatTimeoutMs);
    });
  }

  /** The server has so long to show that it is there, by whatever it says. */
  _probe(patienceMs) {
    this._link.alive = false;
    this._askForMedia();
    this._setTimer("heartbeat", patienceMs, () => {
      if (this._link.alive) this._startHeartbeat();
      else this._giveUp("the server is silent");
    });
  }

  // ------------------------------------------------------------------ the end

  _joinTimedOut() {
    const late = new MeetingError("timeout", "the join was not answered in time", { method: "channel.join" });
    const error = this._link && this._link.opened ? late : this._unreachable();
    this._dispose(1000);
    this._endStay(error);
  }

  /** The stay is over; whether the connection is, is for the caller. */
  _endStay(error) {
    const stay = this._stay;
    if (!stay) return;
    this._stay = null;
    this._stream = null;
    this._mediaServer = {};
    this._roster = new Roster();
    this._cancel(stay.timer);
    this._stopTimer("refresh");
    this._stopTimer("heartbeat");
    this._stopTimer("queue");
    this._stopTimer("media");
    this._watch("removeEventListener");
    if (this._link) {
      Object.assign(this._link, { attached: false, joinCseq: null, hasToken: false });
      this._link.sent.clear();
    }
    const { kind, message, err, closeCode } = error;
    for (const request of this._requests) {
      const { method } = request;
      // Whoever wanted to leave is out.
      this._finish(request, method === "channel.leave" ? null : new MeetingError(kind, message, { err, closeCode, method }));
    }
    if (!stay.entered) stay.reject(error);
    else {
      this._emit("members", this.roster);
      if (!stay.leaving && !this._closed) this._emit("ended", { error, closeCode: closeCode || 0 });
    }
    if (this._connects.size > 0) this._start();
  }

  // ------------------------------------------------------------------ turns, and small things

  /**
   * Whatever moves the client: a call, a socket's word, a timer. Its listeners are told when all is
   * in order again, so they may call what they like.
   */
  _turn(act) {
    this._depth += 1;
    try {
      return act();
    } finally {
      this._depth -= 1;
      if (this._depth === 0) {
        this._sendQueued();
        this._tell();
      }
    }
  }

  /**
   * A call of the application: what is thrown in it rejects the promise. `read` reads its arguments
   * before anything is changed, since their getters and toJSON functions may call this client.
   */
  _call(read, act, method = undefined) {
    return new Promise((resolve, reject) => {
      try {
        const args = read();
        this._turn(() => {
          if (this._closed) throw this._closedError();
          act(resolve, reject, args);
        });
      } catch (cause) {
        reject(this._closed ? this._closedError() : usageError(cause, method));
      }
    });
  }

  /** Of a `stay`: not told any more when that is over. */
  _emit(event, value, stay = null) { this._news.push({ event, value, stay }); }

  _tell() {
    const previous = this._state;
    this._state = this._standing();
    if (previous !== this._state) {
      this._news.unshift({ event: "state", value: { state: this._state, previous }, stay: null });
    }
    if (this._telling) return;
    this._telling = true;
    for (let news = this._news.shift(); news; news = this._news.shift()) {
      const { event, value, stay } = news;
      for (const entry of this._listeners.get(event) || []) {
        if (stay !== null && stay !== this._stay) break;
        if (entry.stopped) continue;
        if (entry.once) this._forget(event, entry);
        const { listener } = entry;
        try {
          listener(value);
        } catch (error) {
          // The application's: it is reported as uncaught, and harms nothing here.
          queueMicrotask(() => { throw error; });
        }
      }
    }
    this._telling = false;
  }

  /** Where the client stands follows from what it has. */
  _standing() {
    const { _link: link, _stay: stay } = this;
    if (this._closed) return "closed";
    if (stay && stay.entered) return this._attached && stay.announce === null ? "joined" : "reconnecting";
    if (stay) return link && link.opened ? "joining" : "connecting";
    if (link && link.opened) return "connected";
    return link || this._connects.size > 0 ? "connecting" : "idle";
  }

  /** Milliseconds since some moment: for differences, since no clock change affects them. */
  _now() { return this._world.monotonic(); }

  _after(ms, callback) {
    return this._world.setTimeout(() => this._turn(callback), Math.min(ms, TIMER_MAX_MS));
  }

  _cancel(timer) { this._world.clearTimeout(timer); }

  _setTimer(name, ms, callback) {
    this._stopTimer(name);
    this._timers[name] = this._after(ms, () => { this._timers[name] = null; callback(); });
  }

  _stopTimer(name) {
    this._cancel(this._timers[name]);
    this._timers[name] = null;
  }

  _closedError() { return new MeetingError("closed", "this client was closed"); }

  _unreachable() { return new MeetingError("unreachable", `no way to the server: ${this._lastFailure}`); }
}
