/**
 * The client of a meeting-server: one WebSocket that keeps a member in its room.
 *
 * ```js
 * import { MeetingClient } from "meeting-client";
 *
 * const client = new MeetingClient("wss://meet.example.org/ws");
 * client.on("members", (members) => show(members));
 * client.on("broadcast", ({ from, payload }) => say(from.endpoint, payload));
 * const { endpoint, mediaServer } = await client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
 * await client.publish({ type: "camera", stream_id: "anna-1", has_video: true, has_audio: true });
 * await client.broadcast({ text: "hello" });
 * await client.close();
 * ```
 *
 * What goes over the wire as it is (a stream's description, a broadcast's payload, the addresses of
 * a media server) has the protocol's names; what is the library's own is in camelCase. Times are
 * milliseconds.
 */

/** What a member is. It changes nothing in the room but what others see. */
export type Role = "normal" | "recorder" | "relayer";

/** Where a stream's picture comes from. */
export type StreamType = "camera" | "desktop";

/** A stream that this client publishes. */
export interface Stream {
  type: StreamType;
  /** 1 to 128 bytes, unique in the room. */
  stream_id: string;
  has_video: boolean;
  has_audio: boolean;
  audio_codec?: string;
  video_codec?: string;
}

/** A stream in the list of members. Only `stream_id` is there until the room was asked for the rest; then all is. */
export type MemberStream = Partial<Stream> & { stream_id: string };

/** One member of the room. The objects are never changed: a change makes a new one. */
export interface Member {
  readonly endpoint: string;
  /** "" where it is not known. */
  readonly device: string;
  /** null for the moment between the news that a member is there and the room's word about it. */
  readonly role: Role | null;
  /** null for a member that publishes nothing. */
  readonly stream: Readonly<MemberStream> | null;
}

/** The addresses of a media server; {} while none is healthy. */
export interface MediaServer {
  wss?: string;
  ws?: string;
  https?: string;
  http?: string;
  rtsp?: string;
}

/** What a token is asked for with. */
export interface TokenRequest {
  app: string;
  channel: string;
  endpoint: string;
  /** 1 for the first join of a stay in the room, then rising. */
  attempt: number;
}

/** Where to go, and as whom. */
export interface JoinParams {
  app: string;
  channel: string;
  /** Unique in the room. Missing or "": the server makes one. */
  endpoint?: string;
  /** Missing: normal. */
  role?: Role;
  device?: string;
  /** A token, or a function that gets one; it is asked before each join, also of a reconnect. */
  token?: string | ((request: TokenRequest) => string | Promise<string>);
}

/** What one came to. */
export interface Joined {
  session: string;
  endpoint: string;
  mediaServer: MediaServer;
  /** Everybody in the room, this member included, in the order of their joins. */
  members: readonly Member[];
}

/**
 * Where a client stands.
 *
 * - `idle`: no connection and none wanted
 * - `connecting`: the first connection is on its way
 * - `connected`: there is a connection, and no room
 * - `joining`: a join is on its way, the first one of a stay
 * - `joined`: in the room
 * - `reconnecting`: the connection was lost and the library is getting back into the room
 * - `closed`: close() was called; this client is done
 */
export type ClientState =
  | "idle" | "connecting" | "connected" | "joining" | "joined" | "reconnecting" | "closed";

/** Why a promise was rejected, or a stay in a room ended. */
export type ErrorKind =
  /** The server answered with an error: see `err`. */
  | "refused"
  /** No answer in time. Whether the request took effect is not known. */
  | "timeout"
  /** The session ended before the answer came. Whether the request took effect is not known. */
  | "lost"
  /** The server ended the connection and wants the client not to come back: see `closeCode`. */
  | "ended"
  /** There is no way to the server. */
  | "unreachable"
  /** The client was closed, or left the room, meanwhile. */
  | "closed"
  /** The call makes no sense now, or its arguments do not. */
  | "usage"
  /** The function that gets a token failed; `cause` is its error. */
  | "token"
  /** The server's answer is not as the protocol has it. Whether it took effect is not known. */
  | "protocol"
  /** Too many requests wait for the connection: at most 1,000, and at most 1 MiB. */
  | "queue_full";

/**
 * Every promise of this library is rejected with one of these. The constructor, on, once and off
 * throw them.
 */
export class MeetingError extends Error {
  readonly kind: ErrorKind;
  /** The server's error number (400, 401, 403, 404, 409, 410, 413, 429, 503), else 0. */
  readonly err: number;
  /** The server's sentence, else the library's. The same as `message`. */
  readonly err_msg: string;
  /** The method of the request, where there was one. */
  readonly method?: string;
  /** The close code of the connection, where that was the reason. */
  readonly closeCode?: number;
  readonly cause?: unknown;
}

/** Somebody came or went. */
export interface EndpointEvent {
  endpoint: string;
  device: string;
  stat: "join" | "leave";
  /** The room's event number. */
  number: number;
}

/**
 * Somebody began or stopped to publish. A member gets no event about its own requests. It gets an
 * `unpublish` of its own stream where the server has ended that: its token no longer grants `publish`.
 */
export interface StreamEvent {
  endpoint: string;
  device: string;
  /** The stream's id. */
  stream: string;
  stat: "publish" | "unpublish";
  /** The room's event number. */
  number: number;
}

/** Somebody said something to the room. */
export interface BroadcastEvent {
  from: { endpoint: string; device: string };
  payload: Record<string, any>;
  /** The room's event number. */
  number: number;
}

/** The server's error events. `republish_failed` and `invalid_message` are the library's own. */
export type ServerErrorType =
  | "join_timeout" | "bad_message" | "message_too_big" | "rate_limited" | "endpoint_replaced"
  | "slow_consumer" | "removed" | "media_server_down" | "room_failed" | "server_shutdown" | "republish_failed"
  | "invalid_message";

/** What the server complains of, for the record: the library has already done what has to be done. */
export interface ServerErrorEvent {
  type: ServerErrorType | (string & {});
  message: string;
  /** With server_shutdown: when the library will come back; 1000 to 60000 if the server said. */
  retryAfterMs?: number;
}

/** The state has changed. */
export interface StateEvent {
  state: ClientState;
  previous: ClientState;
}

/** In the room, for the first time or again. */
export interface JoinedEvent extends Joined {
  /**
   * - `joined`: by join()
   * - `resumed`: after a loss, as if nothing had been; what was missed follows as events
   * - `rejoined`: after a loss that took too long: a new session. Events may have been missed, the
   *   list of members is fresh, and the stream was published again. The media server may be another.
   */
  how: "joined" | "resumed" | "rejoined";
}

/** The connection is lost, and will be tried again. */
export interface ReconnectingEvent {
  /** 1 for the first try since the room was last entered for good. */
  attempt: number;
  /** How long until it is tried. */
  delayMs: number;
  /** Why it was lost or the last try failed, in a few words. */
  reason: string;
  /** The close code, 4900 where the library gave the connection up itself; 0 where there was none. */
  closeCode: number;
}

/** The stay in the room is over, and the library does not come back by itself. join() may. */
export interface EndedEvent {
  error: MeetingError;
  /** 4001 another client took the endpoint's place, 4003 removed by an operator, 1008 and others: see the README. */
  closeCode: number;
}

/** One message as it went over the wire. It holds tokens and sessions: mask them where others see it. */
export interface WireMessage {
  direction: "in" | "out";
  text: string;
  /** Milliseconds since 1970. */
  time: number;
}

/** The events, by name. */
export interface ClientEvents {
  state: StateEvent;
  joined: JoinedEvent;
  reconnecting: ReconnectingEvent;
  ended: EndedEvent;
  /** The list of members, whenever it has changed; also `client.roster`. */
  members: readonly Member[];
  endpoint: EndpointEvent;
  stream: StreamEvent;
  broadcast: BroadcastEvent;
  /** The media server of the room is another one now, or has other addresses. */
  mediaServer: MediaServer;
  error: ServerErrorEvent;
  message: WireMessage;
}

/** How to come back after a loss. */
export interface ReconnectOptions {
  /** The longest wait before the first try; it doubles from try to try. 1000. */
  baseMs?: number;
  /** The longest wait there is. 30000. */
  maxMs?: number;
  /** How long a connection must have held before the next loss counts as a first one. 30000. */
  stableMs?: number;
  /** Give up after so many tries in a row. Infinity. */
  attempts?: number;
}

/** What can be set. The clock, chance and the socket are here so that tests can rule over them. */
export interface ClientOptions {
  /** The constructor to use, for a runtime that has none, like Node 20: `ws`. */
  WebSocket?: WebSocketConstructor;
  /** How long connect, join and requests may take, each unless it says otherwise. 10000. */
  timeoutMs?: number;
  /** After so much silence the server is asked whether it is there. 15000; 0 = never. */
  heartbeatMs?: number;
  /** How long it may take to answer that before the connection counts as lost. 8000. */
  heartbeatTimeoutMs?: number;
  /** A longer request is refused before it is sent, since the server would end the session. 65536, its default. */
  maxMessageBytes?: number;
  /** false: a loss ends the stay. */
  reconnect?: ReconnectOptions | false;
  setTimeout?: (callback: () => void, ms: number) => unknown;
  clearTimeout?: (timer: any) => void;
  /** Milliseconds since 1970, for the times of messages. */
  now?: () => number;
  /**
   * Milliseconds since some moment, by a clock that is never set, for all waits. `performance.now`;
   * where only `now` is given, that.
   */
  monotonic?: () => number;
  /** From 0 up to, but not including, 1. */
  random?: () => number;
  /** Where `online` and `offline` events come from. The page's window, where there is one; null = none. */
  network?: Network | null;
  /** Where the events of the page's life come from: its window, where there is one. null = none. */
  page?: Page | null;
}

/** As much of a window as is used. */
export interface Network {
  addEventListener(type: "online" | "offline", listener: (event: { type: string }) => void): void;
  removeEventListener(type: "online" | "offline", listener: (event: { type: string }) => void): void;
}

/** As much of a window as is used for the page's life. */
export interface Page {
  readonly document: { readonly visibilityState: string };
  addEventListener(type: PageEventType, listener: (event: any) => void): void;
  removeEventListener(type: PageEventType, listener: (event: any) => void): void;
}

/** `visibilitychange` is an event of the document, which reaches the window as well. */
export type PageEventType = "pagehide" | "pageshow" | "visibilitychange";

/** As much of a WebSocket as is used: browsers, Node 22 and `ws` have it. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** What makes one. */
export type WebSocketConstructor = new (url: string) => WebSocketLike;

/** How long one call may take, where it is not as long as all others. */
export interface CallOptions {
  timeoutMs?: number;
}

/**
 * One client is in one room at a time.
 *
 * A request that is made while the connection is lost waits for it, and one whose answer was lost is
 * sent again when it had not taken effect; both as long as its timeout allows. What has waited is
 * sent one by one, in order, each after the answer to the one before.
 */
export class MeetingClient {
  /** @param url where the server's WebSocket is: `wss://…/ws`. A relative one is the page's. */
  constructor(url: string | { readonly href: string }, options?: ClientOptions);

  readonly url: string;
  readonly state: ClientState;
  /** This member's name in the room; "" while there is none. */
  readonly endpoint: string;
  /** The session; "" while there is none. It is the proof of who one is: keep it to yourself. */
  readonly session: string;
  /** The members, kept true. Empty outside a room. The array is never changed: a change makes a new one. */
  readonly roster: readonly Member[];
  /** The stream that this client publishes. It is null again where the server has ended it. */
  readonly stream: Readonly<Stream> | null;
  /** The media server's addresses for webrtc, as last heard. */
  readonly mediaServerAddresses: MediaServer;

  /**
   * Connects. join() does it by itself; doing it earlier saves the time. The server closes a
   * connection that joins no room within its join_timeout, and the client is idle again then.
   */
  connect(options?: CallOptions): Promise<void>;
  /**
   * Enters a room. Until it resolves no event of the room is delivered, and none is lost.
   * Rejected where the server refuses, or cannot be reached in time.
   */
  join(params: JoinParams, options?: CallOptions): Promise<Joined>;
  /** Leaves the room; the connection stays. However it ends, the client is out of the room. */
  leave(options?: CallOptions): Promise<void>;
  /** Says that a stream is being pushed to the media server. Saying it again with the same id announces it again. */
  publish(stream: Stream, options?: CallOptions): Promise<void>;
  /** Takes it back; without an id, the one that is published. */
  unpublish(streamId?: string, options?: CallOptions): Promise<void>;
  /** Asks the room who is there. `roster` has it without asking. */
  members(options?: CallOptions): Promise<readonly Member[]>;
  /** Asks for a media server that speaks this protocol. Missing: webrtc. */
  mediaServer(protocol?: string, options?: CallOptions): Promise<MediaServer>;
  /** Says something to everybody else in the room. Any JSON object. */
  broadcast(payload: object, options?: CallOptions): Promise<void>;
  /** Ends everything with close code 1000, which leaves the room. Resolves when the connection is gone. */
  close(): Promise<void>;

  /**
   * Listens. What it returns stops this listener, and no equal one: one that is added twice is
   * called twice. Throws a MeetingError of kind `usage` where there is no such event.
   */
  on<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => void): () => void;
  /** Listens for the next one only. */
  once<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => void): () => void;
  /** Stops a listener, also one of once(). Of equal listeners it stops the one added last. */
  off<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => void): void;
}
