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

/** How long close() waits for the server's part of the goodbye. */
const CLOSE_MS = 2000;

/** After the network has changed, the server has so long to show that it is still there. */
const NETWORK_PROBE_MS = 3000;

/**
 * An event does not tell all about a member, so the room is asked. In a big room everybody does so
 * at the same time: each waits up to so long for each member.
 */
const REFRESH_MS_A_MEMBER = 10;
const REFRESH_MS_AT_MOST = 5000;

/** When the server was too busy to answer the library's own requests. */
const BUSY_MS = 1000;

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

/** Who is in the room, in the order of their joins. Nothing in a list is ever changed in place. */
class Roster {
  constructor() {
    this.list = Object.freeze([]);
  }

  /** Whether an event told of something of which only the room can tell the rest. */
  get incomplete() {
    return this.list.some((m) => m.role === null || (m.stream !== null && m.stream.type === undefined));
  }

  find(endpoint) {
    return this.list.find((member) => member.endpoint === endpoint);
  }

  /** Takes a channel.dump's word; whether anything is new. */
  replace(members) {
    const next = members.map(({ endpoint, device = "", role = null, stream = null }) =>
      ({ endpoint, device, role, stream: stream && Object.freeze({ ...stream }) }));
    if (JSON.stringify(next) === JSON.stringify(this.list)) return false;
    this._set(next);
    return true;
  }

  join(endpoint, device) {
    this._set([...this.list.filter((m) => m.endpoint !== endpoint), { endpoint, device, role: null, stream: null }]);
  }

  leave(endpoint) {
    this._set(this.list.filter((member) => member.endpoint !== endpoint));
  }

  publish(endpoint, stream) {
    this._change(endpoint, () => stream);
  }

  unpublish(endpoint, streamId) {
    this._change(endpoint, (present) => (present && present.stream_id === streamId ? null : present));
  }

  clear() {
    this._set([]);
  }

  _change(endpoint, stream) {
    this._set(this.list.map((m) => (m.endpoint === endpoint ? { ...m, stream: stream(m.stream) } : m)));
  }

  _set(members) {
    this.list = Object.freeze(members.map((member) => Object.freeze(member)));
  }
}

/**
 * How long to wait before each try. The wait is drawn between 0 and a bound that doubles, so that a
 * full house does not come back at once. Only a connection that has held starts it anew: a server
 * that lets everybody in and falls over would else be run over again and again.
 */
class Backoff {
  constructor({ baseMs = 1000, maxMs = 30000, stableMs = 30000, attempts = Infinity }, random) {
    Object.assign(this, { baseMs, maxMs, stableMs, attempts, random });
    this.tries = 0;
  }

  /** A connection has held for so long. */
  held(ms) {
    if (ms >= this.stableMs) this.tries = 0;
  }

  get exhausted() {
    return this.tries >= this.attempts;
  }

  /** Counts a try, and says how long to wait for it; `asked` is what the server wants. */
  next(asked) {
    const bound = Math.min(this.maxMs, this.baseMs * 2 ** Math.min(this.tries, 30));
    this.tries += 1;
    return Math.round(asked === undefined ? this.random() * bound : asked);
  }
}

const isStreamRequest = (request) => request.method === "stream.add" || request.method === "stream.delete";

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether a member publishes just this. Codecs that are not known are "" on the wire. */
function publishes(member, stream) {
  const present = member && member.stream;
  if (!present || present.stream_id !== stream.stream_id) return false;
  return ["type", "has_video", "has_audio"].every((key) => present[key] === stream[key])
    && ["audio_codec", "video_codec"].every((key) => (present[key] || "") === (stream[key] || ""));
}

/** A WebSocket's address: a page's own may be relative, and older browsers want ws(s). */
function socketUrl(url) {
  const { location } = globalThis;
  const parsed = new URL(url, location ? location.href : undefined);
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

/** A client of a meeting-server. One client is in one room at a time. */
export class MeetingClient {
  constructor(url, options = {}) {
    const socket = options.WebSocket || globalThis.WebSocket;
    if (typeof socket !== "function") {
      throw new MeetingError("usage", "there is no WebSocket here; pass a constructor, like that of `ws`");
    }
    /** Where the server is. */
    this.url = socketUrl(url);
    this._WebSocket = socket;
    this._timeoutMs = options.timeoutMs === undefined ? 10000 : options.timeoutMs;
    this._heartbeatMs = options.heartbeatMs === undefined ? 15000 : options.heartbeatMs;
    this._heartbeatTimeoutMs = options.heartbeatTimeoutMs === undefined ? 8000 : options.heartbeatTimeoutMs;
    this._maxMessageBytes = options.maxMessageBytes === undefined ? 65536 : options.maxMessageBytes;
    this._reconnects = options.reconnect !== false;
    this._setTimeout = options.setTimeout || ((callback, ms) => setTimeout(callback, ms));
    this._clearTimeout = options.clearTimeout || ((timer) => clearTimeout(timer));
    this._now = options.now || (() => Date.now());
    this._random = options.random || Math.random;
    this._network = options.network === undefined ? ownNetwork() : options.network;
    this._onNetwork = (event) => this._networkChanged(event.type);
    this._backoff = new Backoff(options.reconnect || {}, this._random);
    this._listeners = new Map();

    this._state = "idle";
    this._closed = null;
    /** The connection, and what is known of it; null while there is none. */
    this._link = null;
    /** The stay in a room; null outside. */
    this._stay = null;
    /** Calls of connect() that wait. */
    this._connects = new Set();
    /** What was asked and not answered yet, in order; also what could not be sent yet. */
    this._requests = new Set();
    /** Rises over all connections, so that `last_cseq` can be understood. */
    this._cseq = 0;
    this._roster = new Roster();
    this._stream = null;
    this._mediaServer = {};
    this._retryTimer = null;
    this._refreshTimer = null;
    this._heartbeatTimer = null;
  }

  get state() { return this._state; }

  get endpoint() { return this._stay ? this._stay.endpoint : ""; }

  get session() { return this._stay ? this._stay.session : ""; }

  get roster() { return this._roster.list; }

  get stream() { return this._stream; }

  get mediaServerAddresses() { return this._mediaServer; }

  // ------------------------------------------------------------------ what an application calls

  connect({ timeoutMs = this._timeoutMs } = {}) {
    if (this._closed) return Promise.reject(this._closedError());
    if (this._link && this._link.opened) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const call = { resolve, reject };
      call.timer = this._after(timeoutMs, () => {
        this._connects.delete(call);
        if (!this._stay && this._connects.size === 0) this._dispose(1000);
        this._updateState();
        reject(this._unreachable());
      });
      this._connects.add(call);
      this._start();
    });
  }

  join(params, { timeoutMs = this._timeoutMs } = {}) {
    if (this._closed) return Promise.reject(this._closedError());
    if (this._stay) return this._misuse("this client is in a room, or on its way; leave() it first");
    if (!isObject(params) || typeof params.app !== "string" || typeof params.channel !== "string") {
      return this._misuse("a join needs an app and a channel");
    }
    return new Promise((resolve, reject) => {
      const stay = {
        params: { ...params },
        endpoint: params.endpoint || "",
        session: "",
        /** The number of the last event that has arrived, from which a resume goes on. */
        lastEvent: 0,
        joins: 0,
        entered: false,
        /** How this member came in, while the application has not been told yet. */
        announce: null,
        /** Events that wait for that. */
        held: [],
        leaving: false,
        resolve,
        reject,
      };
      stay.timer = this._after(timeoutMs, () => this._joinTimedOut());
      this._stay = stay;
      this._backoff.tries = 0;
      this._watchNetwork(true);
      const link = this._link;
      if (!link) this._start();
      else if (link.goodbye) this._dropped(link, 1001, "the server shuts down");
      else {
        link.timer = link.timer || this._attemptTimer();
        this._fetchToken(link);
        this._updateState();
      }
    });
  }

  leave({ timeoutMs = this._timeoutMs } = {}) {
    if (this._closed) return Promise.reject(this._closedError());
    const stay = this._stay;
    if (!stay) return Promise.resolve();
    if (!stay.entered) {
      this._dispose(1000);
      this._endStay(new MeetingError("closed", "leave() was called before the join was answered"));
      return Promise.resolve();
    }
    if (!stay.leaving) {
      stay.leaving = new Promise((resolve, reject) => {
        const ended = (error) => {
          // A close frame leaves the room as well as the request does.
          this._dispose(1000);
          this._endStay(error);
        };
        this._ask("channel.leave", {}, {
          timeoutMs,
          resolve,
          reject,
          answered: () => this._endStay(new MeetingError("closed", "the client left the room")),
          refused: (error) => { ended(error); resolve(); },
          timedOut: ended,
        });
      });
    }
    return stay.leaving;
  }

  publish(stream, options) {
    if (!isObject(stream)) return this._misuse("a stream is an object");
    const described = Object.freeze({ ...stream });
    return this._request("stream.add", { stream: described }, options, this._publishing(described));
  }

  unpublish(streamId, options) {
    const stream_id = streamId === undefined ? this._lastStreamId() : streamId;
    if (stream_id === undefined) return this._misuse("this client publishes no stream");
    return this._request("stream.delete", { stream_id }, options, {
      answered: () => this._streamIs(stream_id, null),
      inEffect: (me) => !me || !me.stream || me.stream.stream_id !== stream_id,
    });
  }

  members(options) {
    return this._request("channel.dump", {}, options, {
      answered: (data) => { this._takeDump(data); return this.roster; },
    });
  }

  mediaServer(protocol = "webrtc", options) {
    return this._request("media_server.dump", { protocol }, options, this._askingForMedia(protocol));
  }

  broadcast(payload, options) {
    if (!isObject(payload)) return this._misuse("a broadcast is a JSON object");
    return this._request("broadcast", payload, options);
  }

  close() {
    if (this._closed) return this._closed;
    const link = this._link;
    this._closed = new Promise((resolve) => {
      if (!link) return void resolve();
      const timer = this._after(CLOSE_MS, resolve);
      link.gone = () => { this._clearTimeout(timer); resolve(); };
    });
    this._dispose(1000);
    const error = this._closedError();
    for (const { reject, timer } of this._connects) { this._clearTimeout(timer); reject(error); }
    this._connects.clear();
    this._endStay(error);
    return this._closed;
  }

  on(event, listener) {
    if (!this._listeners.has(event)) this._listeners.set(event, []);
    this._listeners.get(event).push(listener);
    return () => this.off(event, listener);
  }

  once(event, listener) {
    const stop = this.on(event, (value) => { stop(); listener(value); });
    return stop;
  }

  off(event, listener) {
    const listeners = this._listeners.get(event) || [];
    this._listeners.set(event, listeners.filter((other) => other !== listener));
  }

  // ------------------------------------------------------------------ requests

  /** An application's request: a promise of its answer. */
  _request(method, data, { timeoutMs = this._timeoutMs } = {}, effects = {}) {
    if (this._closed) return Promise.reject(this._closedError());
    if (!this._stay || this._stay.leaving) return this._misuse(`${method} needs a room; join() one first`);
    return new Promise((resolve, reject) => {
      this._ask(method, data, { ...effects, timeoutMs, resolve, reject });
    });
  }

  /**
   * A request. What it comes to:
   * `answered(data)` takes the effect of a good answer and returns what the promise resolves to;
   * `refused(error)` that of an error; `inEffect(me)` says from the list of members whether a
   * stream request has been carried out; `timedOut(error)` is for one that has consequences.
   * `passing`: the library's own question, which nobody needs answered after a loss.
   */
  _ask(method, data, { timeoutMs, first = false, ...effects } = {}) {
    let body;
    try {
      body = JSON.stringify(data);
    } catch (cause) {
      return effects.reject(new MeetingError("usage", `this is no JSON: ${cause.message}`, { method, cause }));
    }
    // What a toJSON of the application's has made of it.
    if (!body || body[0] !== "{") return effects.reject(new MeetingError("usage", "this is no JSON object", { method }));
    const request = { method, data, body, ...effects, cseq: null, sentAt: 0, settled: false, verify: false };
    if (this._isTooLong(request)) {
      const message = `a message may be ${this._maxMessageBytes} bytes long`;
      return effects.reject(new MeetingError("refused", message, { err: 413, method }));
    }
    if (timeoutMs !== undefined) request.timer = this._after(timeoutMs, () => this._requestTimedOut(request));
    if (first) this._requests = new Set([request, ...this._requests]);
    else this._requests.add(request);
    if (this._link && this._link.attached) this._send(request);
    return undefined;
  }

  /** With the longest cseq and session that it may be sent with. */
  _isTooLong({ method, body }) {
    const { length } = this._envelope(method, Number.MAX_SAFE_INTEGER, "-".repeat(36), body);
    if (length * 3 <= this._maxMessageBytes) return false;
    const bytes = new TextEncoder().encode(body).length + length - body.length;
    return bytes > this._maxMessageBytes;
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
    this._emit("message", { direction: "out", text, time: this._now() });
    // A listener may have closed the connection just now.
    if (this._link === link) link.socket.send(text);
  }

  /** An effect may still show itself later: a stream request is kept until its answer is known. */
  _requestTimedOut(request) {
    const { method, timedOut } = request;
    const error = new MeetingError("timeout", `no answer to ${method} in time`, { method });
    const link = this._link;
    const silent = request.cseq !== null && link && link.heard <= request.sentAt
      && this._now() - request.sentAt >= this._heartbeatTimeoutMs;
    if (isStreamRequest(request) && request.cseq !== null) this._settle(request, error);
    else this._finish(request, error);
    if (timedOut) timedOut(error);
    else if (silent) this._giveUp(`no answer to ${method}`);
  }

  /** Keeps the promise; the request may go on. */
  _settle(request, error, value) {
    if (request.settled) return;
    request.settled = true;
    this._clearTimeout(request.timer);
    if (error && request.reject) request.reject(error);
    if (!error && request.resolve) request.resolve(value);
  }

  /** Nothing more will come of a request. */
  _finish(request, error, value) {
    this._requests.delete(request);
    this._settle(request, error, value);
  }

  _answer(link, { cseq, err, err_msg, data }) {
    const request = link.sent.get(cseq);
    if (!request) return;
    link.sent.delete(cseq);
    if (err === 0) {
      this._finish(request, null, request.answered ? request.answered(data) : undefined);
      return;
    }
    const error = new MeetingError("refused", err_msg, { err, method: request.method });
    if (request.refused) request.refused(error);
    this._finish(request, error);
  }

  // ----- the effects of each

  _publishing(stream) {
    return {
      answered: () => this._streamIs(stream.stream_id, stream),
      inEffect: (me) => publishes(me, stream),
    };
  }

  /** This member publishes a stream now, or no longer. No event tells it what it did itself. */
  _streamIs(id, stream) {
    if (!this._stay) return;
    if (stream) this._stream = stream;
    else if (this._stream && this._stream.stream_id === id) this._stream = null;
    if (stream) this._roster.publish(this.endpoint, stream);
    else this._roster.unpublish(this.endpoint, id);
    this._membersChanged();
  }

  /** The stream that will be published when all that was asked is done. */
  _lastStreamId() {
    const asked = [...this._requests].filter((request) => request.method === "stream.add").pop();
    if (asked) return asked.data.stream.stream_id;
    return this._stream ? this._stream.stream_id : undefined;
  }

  _askingForMedia(protocol) {
    if (protocol !== "webrtc") return { answered: ({ media_server }) => media_server };
    return {
      answered: ({ media_server }) => { this._mediaServerIs(media_server); return media_server; },
      refused: ({ err }) => { if (err === 503) this._mediaServerIs({}); },
    };
  }

  _mediaServerIs(addresses) {
    if (JSON.stringify(addresses) === JSON.stringify(this._mediaServer)) return;
    this._mediaServer = Object.freeze({ ...addresses });
    if (this._stay && this._stay.entered) this._emit("mediaServer", this._mediaServer);
  }

  // ------------------------------------------------------------------ the connection

  /** Connects, unless that is under way. */
  _start() {
    if (!this._link && this._retryTimer === null) this._open();
    this._updateState();
  }

  _open() {
    this._retryTimer = null;
    let socket;
    try {
      socket = new this._WebSocket(this.url);
    } catch (cause) {
      this._failed(0, `no connection can be made: ${cause.message}`);
      return;
    }
    const link = {
      socket,
      opened: false,
      attached: false,
      attachedAt: 0,
      /** When the server was last heard. */
      heard: this._now(),
      sent: new Map(),
      token: undefined,
      hasToken: false,
      joinCseq: null,
      /** The last error event: it says why what follows is a close. */
      warning: null,
      /** The server has said goodbye, and when to come back. */
      goodbye: null,
      timer: this._attemptTimer(),
      /** Whoever waits for the end of it. */
      gone: null,
    };
    this._link = link;
    socket.onopen = () => this._opened(link);
    socket.onmessage = (event) => this._message(link, event.data);
    socket.onclose = (event) => {
      if (link.gone) link.gone();
      this._dropped(link, event.code, event.reason);
    };
    // A close follows, which says as much. `ws` wants a listener in any case.
    socket.onerror = () => {};
    if (this._stay) this._fetchToken(link);
    this._updateState();
  }

  _attemptTimer() {
    return this._after(this._timeoutMs, () => this._giveUp("no answer in time"));
  }

  _opened(link) {
    if (this._link !== link) return;
    link.opened = true;
    link.heard = this._now();
    for (const { resolve, timer } of this._connects) { this._clearTimeout(timer); resolve(); }
    this._connects.clear();
    if (!this._stay) this._stopTimer(link);
    this._updateState();
    this._sendJoin(link);
  }

  _stopTimer(link) {
    this._clearTimeout(link.timer);
    link.timer = null;
  }

  /** Lets go of the connection, without a word to the application. */
  _dispose(code) {
    this._clearTimeout(this._retryTimer);
    this._retryTimer = null;
    this._clearTimeout(this._heartbeatTimer);
    const link = this._link;
    if (!link) return;
    this._link = null;
    this._stopTimer(link);
    link.socket.close(code);
  }

  /** The connection is no good: whatever it may still bring is not waited for. */
  _giveUp(reason) {
    const link = this._link;
    if (!link) return;
    link.socket.close(GIVEN_UP, "given up");
    this._dropped(link, GIVEN_UP, reason);
  }

  _dropped(link, code, reason) {
    if (this._link !== link) return;
    this._link = null;
    this._stopTimer(link);
    this._clearTimeout(this._heartbeatTimer);
    if (link.attached) this._backoff.held(this._now() - link.attachedAt);
    const { warning } = link;
    const wanted = (warning && UNWANTED_EVENTS.get(warning.type)) || code;
    // Before its join a connection is closed with 1008 for being too late: the token took long.
    const late = wanted === 1008 && link.joinCseq === null;
    if (this._stay && UNWANTED.has(wanted) && !late) {
      const message = (warning && warning.message) || reason || UNWANTED.get(wanted);
      const err = (warning && EVENT_ERRORS.get(warning.type)) || 0;
      this._endStay(new MeetingError("ended", message, { err, closeCode: wanted }));
      return;
    }
    let asked = link.goodbye === null ? undefined : link.goodbye;
    if (asked === undefined && code === 1001) asked = this._random() * SHUTDOWN_SPREAD_MS;
    this._failed(code, (warning && warning.type) || reason || (link.opened ? "connection lost" : "no connection"), asked);
  }

  /** There is no connection: tries again, if anybody wants one. */
  _failed(code, reason, askedMs) {
    const stay = this._stay;
    this._lastFailure = reason;
    if (!stay && this._connects.size === 0) return this._updateState();
    if (stay && stay.entered) {
      if (!this._reconnects) {
        return this._endStay(new MeetingError("ended", `the connection was lost: ${reason}`, { closeCode: code }));
      }
      if (this._backoff.exhausted) return this._endStay(this._unreachable());
    }
    const delayMs = this._backoff.next(askedMs);
    this._retryTimer = this._after(delayMs, () => this._open());
    this._updateState();
    if (stay && stay.entered && this._stay === stay) {
      this._emit("reconnecting", { attempt: this._backoff.tries, delayMs, reason, closeCode: code });
    }
    return undefined;
  }

  _networkChanged(type) {
    if (this._link && this._link.attached) this._probe(Math.min(NETWORK_PROBE_MS, this._heartbeatTimeoutMs));
    else if (type === "online" && this._retryTimer !== null) {
      this._clearTimeout(this._retryTimer);
      this._open();
    }
  }

  _watchNetwork(on) {
    if (!this._network) return;
    const change = on ? "addEventListener" : "removeEventListener";
    for (const event of ["online", "offline"]) this._network[change](event, this._onNetwork);
  }

  // ------------------------------------------------------------------ coming in, and coming back

  /** Gets the token while the connection is being made. */
  _fetchToken(link) {
    const { params, endpoint } = this._stay;
    this._stay.joins += 1;
    const arrived = (token) => {
      link.token = token;
      link.hasToken = true;
      this._sendJoin(link);
    };
    if (typeof params.token !== "function") {
      arrived(params.token);
      return;
    }
    const request = { app: params.app, channel: params.channel, endpoint, attempt: this._stay.joins };
    const stay = this._stay;
    const current = () => this._link === link && this._stay === stay;
    new Promise((resolve) => { resolve(params.token(request)); }).then(
      (token) => { if (current()) arrived(token); },
      (cause) => { if (current()) this._tokenFailed(cause); },
    );
  }

  /** Whoever makes tokens may be out of reach as well as the server is. */
  _tokenFailed(cause) {
    const message = `no token: ${cause && cause.message ? cause.message : cause}`;
    if (this._stay.entered) {
      this._giveUp(message);
      return;
    }
    this._dispose(1000);
    this._endStay(new MeetingError("token", message, { cause }));
  }

  _sendJoin(link) {
    const stay = this._stay;
    if (!stay || this._link !== link || !link.opened || !link.hasToken || link.joinCseq !== null) return;
    const { app, channel, role, device } = stay.params;
    // Whoever comes back only to leave takes nobody's place: an empty endpoint resumes, or is new.
    const endpoint = stay.leaving ? "" : stay.endpoint;
    const data = { app, channel, endpoint, role, device, token: link.token, last_event: stay.lastEvent };
    link.joinCseq = this._cseq += 1;
    this._write(link, this._envelope("channel.join", link.joinCseq, stay.session, JSON.stringify(data)));
  }

  _joinAnswered(link, { err, err_msg, data }) {
    if (!this._stay) return;
    if (err !== 0) {
      this._joinRefused(link, new MeetingError("refused", err_msg, { err, method: "channel.join" }));
      return;
    }
    const stay = this._stay;
    link.attached = true;
    link.attachedAt = this._now();
    this._stopTimer(link);
    if (data.resumed) {
      if (stay.announce === null) stay.announce = "resumed";
      this._sortAfterResume(data.last_cseq);
    } else {
      stay.announce = stay.entered ? "rejoined" : "joined";
      stay.held = stay.held || [];
      stay.endpoint = data.endpoint;
      stay.session = data.session;
      // At a resume the replay is still to come, so the mark stays where it is.
      stay.lastEvent = data.last_event;
      if (!stay.entered) this._roster.join(data.endpoint, stay.params.device || "");
      this._sortAfterRejoin();
    }
    this._mediaServerIs(data.media_server);
    this._startHeartbeat();
    // Whoever came back only to leave wants to know nothing.
    if (stay.leaving) stay.announce = null;
    const verifying = [...this._requests].some((request) => request.verify);
    if (verifying || (stay.announce !== null && stay.announce !== "resumed")) this._refresh();
    else this._refreshSoon();
    for (const request of this._requests) {
      if (request.cseq === null && !request.verify) this._send(request);
    }
    if (stay.announce === "resumed") this._announce();
  }

  _joinRefused(link, error) {
    const stay = this._stay;
    const { err } = error;
    const busy = err === 503 || err === 429;
    if (busy && (stay.entered || link.goodbye !== null)) {
      const asked = link.goodbye === null ? undefined : link.goodbye;
      link.socket.close(GIVEN_UP);
      this._link = null;
      this._stopTimer(link);
      this._failed(0, error.message, asked);
      return;
    }
    // After 401 and 403 the server closes the connection.
    if (stay.entered || err === 401 || err === 403) this._dispose(1000);
    else { this._stopTimer(link); link.joinCseq = null; link.hasToken = false; }
    this._endStay(error);
  }

  /**
   * The session goes on. What the server took in (`last_cseq`) has had its effect and only the
   * answer is lost; the rest is sent again. A broadcast that was taken in has reached the room;
   * whether a stream request was granted is seen in the list of members.
   */
  _sortAfterResume(lastCseq) {
    for (const request of [...this._requests]) {
      const taken = request.verify || (request.cseq !== null && request.cseq <= lastCseq);
      const wasSent = request.verify || request.cseq !== null;
      request.cseq = null;
      request.verify = taken && isStreamRequest(request);
      if (request.verify || !wasSent) continue;
      if (request.passing || request.settled) this._finish(request);
      else if (taken && request.method === "broadcast") this._finish(request, null);
    }
  }

  /**
   * A new session. It publishes nothing yet, so that is made good before anything else is asked.
   * Whether an unanswered broadcast reached the room before, nobody knows.
   */
  _sortAfterRejoin() {
    for (const request of [...this._requests]) {
      const wasSent = request.verify || request.cseq !== null;
      request.cseq = null;
      request.verify = false;
      if (!wasSent) continue;
      const { method } = request;
      if (request.passing || request.settled) this._finish(request);
      else if (method === "broadcast") {
        const message = "the session ended before the answer came";
        this._finish(request, new MeetingError("lost", message, { method }));
      }
    }
    const stream = this._stream;
    if (!stream || this._stay.leaving) return;
    const next = [...this._requests].find(isStreamRequest);
    if (next && next.method === "stream.delete" && next.data.stream_id === stream.stream_id) {
      this._streamIs(stream.stream_id, null);
      this._finish(next, null);
    } else if (!next || next.method !== "stream.add" || next.data.stream.stream_id !== stream.stream_id) {
      this._republish(stream);
    }
  }

  _republish(stream) {
    const stay = this._stay;
    this._ask("stream.add", { stream }, {
      ...this._publishing(stream),
      first: true,
      refused: (error) => {
        if (error.err === 429 || error.err === 503) {
          this._after(BUSY_MS * (1 + this._random()), () => {
            if (this._stay === stay && this._stream === stream) this._republish(stream);
          });
          return;
        }
        this._streamIs(stream.stream_id, null);
        this._emit("error", { type: "republish_failed", message: error.message });
      },
    });
  }

  /** Tells the application that it is in the room, with the list of members as it is now. */
  _announce() {
    const stay = this._stay;
    const how = stay.announce;
    stay.announce = null;
    const { session, endpoint, held } = stay;
    const joined = { session, endpoint, mediaServer: this._mediaServer, members: this.roster };
    const tell = () => {
      if (this._stay !== stay) return;
      stay.held = null;
      this._emit("joined", { how, ...joined });
      if (how !== "resumed") this._emit("members", this.roster);
      for (const [event, value] of held || []) {
        if (this._stay === stay) this._emit(event, value);
      }
    };
    if (stay.entered) {
      this._updateState();
      tell();
      return;
    }
    stay.entered = true;
    this._clearTimeout(stay.timer);
    this._updateState();
    stay.resolve(joined);
    // Not before whoever awaits the join has gone on, through however many promises.
    this._after(0, tell);
  }

  // ------------------------------------------------------------------ what the server says

  _message(link, text) {
    this._emit("message", { direction: "in", text, time: this._now() });
    if (this._link !== link) return;
    link.heard = this._now();
    let message;
    try {
      message = JSON.parse(text);
    } catch (_) {
      this._giveUp("the server sent something that is no message");
      return;
    }
    if (message.event !== undefined) this._event(link, message);
    else if (message.cseq === link.joinCseq) this._joinAnswered(link, message);
    else this._answer(link, message);
  }

  _event(link, { event, cseq, data }) {
    if (event === "error") {
      this._serverError(link, data);
      return;
    }
    const stay = this._stay;
    if (!stay || !link.attached) return;
    stay.lastEvent = Math.max(stay.lastEvent, cseq);
    if (event === "endpoint") {
      if (data.stat === "join") this._roster.join(data.endpoint, data.device);
      else this._roster.leave(data.endpoint);
      this._membersChanged();
      this._deliver("endpoint", { ...data, number: cseq });
    } else if (event === "stream") {
      if (data.stat === "publish") this._roster.publish(data.endpoint, Object.freeze({ stream_id: data.stream }));
      else this._roster.unpublish(data.endpoint, data.stream);
      this._membersChanged();
      this._deliver("stream", { ...data, number: cseq });
    } else if (event === "broadcast") {
      this._deliver("broadcast", { from: data.source_endpoint, payload: data.payload, number: cseq });
    }
  }

  _serverError(link, { type, message = "", retry_after_ms }) {
    link.warning = { type, message };
    const value = { type, message };
    if (type === "server_shutdown") {
      link.goodbye = retry_after_ms === undefined ? this._random() * SHUTDOWN_SPREAD_MS : retry_after_ms;
      value.retryAfterMs = link.goodbye;
    } else if (type === "media_server_down" && link.attached) {
      this._ask("media_server.dump", { protocol: "webrtc" }, { passing: true, ...this._askingForMedia("webrtc") });
    }
    this._emit("error", value);
  }

  /** To the application, but not before its join() has resolved. */
  _deliver(event, value) {
    const stay = this._stay;
    if (!stay) return;
    if (stay.held) stay.held.push([event, value]);
    else this._emit(event, value);
  }

  _membersChanged() {
    // While events are held the whole list will be told behind them.
    if (this._stay && !this._stay.held) this._emit("members", this.roster);
    this._refreshSoon();
  }

  // ----- the list of members

  /** Answers and events come in one order, so a list is true when it arrives, and stays so by events. */
  _takeDump({ endpoint_list }) {
    if (!this._stay) return;
    const changed = this._roster.replace(endpoint_list);
    if (changed) this._membersChanged();
    this._verify();
    if (this._stay.announce !== null && this._stay.announce !== "resumed") this._announce();
  }

  /** Stream requests that were taken in: of several, each has undone what was before it. */
  _verify() {
    const taken = [...this._requests].filter((request) => request.verify);
    const me = this._roster.find(this.endpoint);
    const last = taken.pop();
    if (!last) return;
    for (const request of taken) this._finish(request, null);
    last.verify = false;
    if (last.inEffect(me)) {
      last.answered();
      this._finish(last, null);
    } else if (last.settled) this._finish(last);
    // It was refused, and the server will say once more why.
    else this._send(last);
  }

  _refresh() {
    this._clearTimeout(this._refreshTimer);
    this._refreshTimer = null;
    this._ask("channel.dump", {}, {
      passing: true,
      answered: (data) => this._takeDump(data),
      refused: () => {
        if (!this._stay) return;
        for (const request of [...this._requests].filter((one) => one.verify)) {
          request.verify = false;
          this._send(request);
        }
        if (this._stay.announce !== null && this._stay.announce !== "resumed") this._announce();
        this._refreshSoon(BUSY_MS);
      },
    });
  }

  _refreshSoon(atLeastMs = 0) {
    if (this._refreshTimer !== null || !(this._roster.incomplete || atLeastMs)) return;
    const spread = Math.min(this.roster.length * REFRESH_MS_A_MEMBER, REFRESH_MS_AT_MOST);
    this._refreshTimer = this._after(atLeastMs + this._random() * spread, () => {
      this._refreshTimer = null;
      const asked = [...this._requests].some((request) => request.method === "channel.dump");
      if (this._stay && this._link && this._link.attached && !asked) this._refresh();
    });
  }

  // ------------------------------------------------------------------ the heartbeat

  /** A page cannot see the server's pings, so after a silence it asks something harmless. */
  _startHeartbeat() {
    this._clearTimeout(this._heartbeatTimer);
    if (!this._heartbeatMs) return;
    const due = this._link.heard + this._heartbeatMs - this._now();
    this._heartbeatTimer = this._after(Math.max(due, 1), () => {
      if (this._now() - this._link.heard < this._heartbeatMs) this._startHeartbeat();
      else this._probe(this._heartbeatTimeoutMs);
    });
  }

  _probe(patienceMs) {
    const link = this._link;
    const since = this._now();
    let heard = false;
    this._ask("media_server.dump", { protocol: "webrtc" }, { passing: true, ...this._askingForMedia("webrtc") });
    this._clearTimeout(this._heartbeatTimer);
    this._heartbeatTimer = this._after(patienceMs, () => {
      heard = link.heard > since || !link.sent.size;
      if (heard) this._startHeartbeat();
      else this._giveUp("the server is silent");
    });
  }

  // ------------------------------------------------------------------ the end

  _joinTimedOut() {
    const opened = this._link && this._link.opened;
    const error = opened
      ? new MeetingError("timeout", "the join was not answered in time", { method: "channel.join" })
      : this._unreachable();
    this._dispose(1000);
    this._endStay(error);
  }

  /** The stay is over; whether the connection is, is for the caller. */
  _endStay(error) {
    const stay = this._stay;
    this._stay = null;
    this._clearTimeout(this._refreshTimer);
    this._refreshTimer = null;
    this._clearTimeout(this._heartbeatTimer);
    this._stream = null;
    this._mediaServer = {};
    this._roster.clear();
    if (this._link) {
      this._link.attached = false;
      this._link.joinCseq = null;
      this._link.hasToken = false;
      this._link.sent.clear();
    }
    if (stay) {
      this._clearTimeout(stay.timer);
      this._watchNetwork(false);
    }
    for (const request of [...this._requests]) {
      const { method } = request;
      const out = method === "channel.leave" && error.kind !== "timeout";
      const { kind, message, err, closeCode } = error;
      this._finish(request, out ? null : new MeetingError(kind, message, { err, closeCode, method }));
    }
    this._updateState();
    if (!stay) return;
    if (!stay.entered) {
      stay.reject(error);
      return;
    }
    this._emit("members", this.roster);
    if (!stay.leaving && !this._closed) this._emit("ended", { error, closeCode: error.closeCode || 0 });
  }

  // ------------------------------------------------------------------ small things

  /** Where the client stands follows from what it has. */
  _updateState() {
    const previous = this._state;
    this._state = this._standing();
    if (previous !== this._state) this._emit("state", { state: this._state, previous });
  }

  _standing() {
    const { _link: link, _stay: stay } = this;
    if (this._closed) return "closed";
    if (stay && stay.entered) return link && link.attached && stay.announce === null ? "joined" : "reconnecting";
    if (stay) return link && link.opened ? "joining" : "connecting";
    if (link && link.opened) return "connected";
    return link || this._connects.size > 0 ? "connecting" : "idle";
  }

  /** An error in a listener is the application's: it is reported as uncaught, and harms nothing here. */
  _emit(event, value) {
    for (const listener of this._listeners.get(event) || []) {
      try {
        listener(value);
      } catch (error) {
        queueMicrotask(() => { throw error; });
      }
    }
  }

  _after(ms, callback) {
    return this._setTimeout(callback, ms);
  }

  _misuse(message) {
    return Promise.reject(new MeetingError("usage", message));
  }

  _closedError() {
    return new MeetingError("closed", "this client was closed");
  }

  _unreachable() {
    return new MeetingError("unreachable", `no way to the server: ${this._lastFailure || "no answer in time"}`);
  }
}
