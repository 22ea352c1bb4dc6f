// What an application written in TypeScript does: it has to pass the strictest checks, and what is
// marked as wrong has to fail them. Checked by `npm run types`, never run.

import { MeetingClient, MeetingError } from "meeting-client";
import type { ClientState, Joined, Member, MediaServer, Role, Stream, WebSocketConstructor } from "meeting-client";

declare const ws: WebSocketConstructor;
declare function show(...values: unknown[]): void;
declare function fetchToken(channel: string): Promise<string>;

export async function meet(): Promise<void> {
  const client = new MeetingClient("wss://meet.example.org/ws", {
    WebSocket: ws,
    timeoutMs: 5000,
    reconnect: { baseMs: 500, attempts: 20 },
    network: null,
    page: null,
    monotonic: () => 0,
  });
  new MeetingClient("/ws", { reconnect: false });

  const stop: () => void = client.on("members", (members) => {
    for (const member of members) {
      const role: Role | null = member.role;
      const id: string | undefined = member.stream?.stream_id;
      show(member.endpoint, role, id);
    }
  });
  client.on("state", ({ state, previous }) => show(state, previous));
  client.on("broadcast", ({ from, payload, number }) => show(from.endpoint, payload.text, number.toFixed()));
  client.on("endpoint", ({ stat }) => show(stat === "join"));
  client.on("stream", ({ stream, stat }) => show(stream.length, stat === "publish"));
  client.on("joined", ({ how, members }) => show(how === "rejoined", members.length));
  client.on("reconnecting", ({ attempt, delayMs }) => show(attempt + delayMs));
  client.on("error", ({ type, message, retryAfterMs }) => show(type === "removed", message, retryAfterMs ?? 0));
  client.once("ended", ({ error, closeCode }) => show(error.kind === "ended", closeCode === 4001));
  client.on("mediaServer", ({ wss }) => show(wss));
  client.on("message", ({ direction, text, time }) => show(direction === "in", text, time));

  const joined: Joined = await client.join({
    app: "demo",
    channel: "lobby",
    endpoint: "anna",
    role: "recorder",
    token: ({ channel, attempt }) => (attempt > 1 ? fetchToken(channel) : "first"),
  });
  const addresses: MediaServer = joined.mediaServer;
  show(addresses.https);

  const stream: Stream = { type: "camera", stream_id: "anna-1", has_video: true, has_audio: false };
  try {
    await client.publish(stream, { timeoutMs: 1000 });
  } catch (error) {
    if (error instanceof MeetingError && error.kind === "refused" && error.err === 409) show(error.err_msg, error.method);
    else throw error;
  }
  await client.unpublish();
  const members: readonly Member[] = await client.members();
  await client.mediaServer("rtsp");
  await client.broadcast({ text: `we are ${members.length}` });
  const state: ClientState = client.state;
  show(state, client.roster[0]?.endpoint, client.stream?.stream_id, client.mediaServerAddresses.ws);
  stop();
  await client.leave();
  await client.close();
}

export function mistakes(client: MeetingClient): void {
  // @ts-expect-error a join needs a channel
  void client.join({ app: "demo" });
  // @ts-expect-error a role is one of three
  void client.join({ app: "demo", channel: "lobby", role: "admin" });
  // @ts-expect-error a stream says what it has
  void client.publish({ type: "camera", stream_id: "s" });
  // @ts-expect-error a broadcast is an object
  void client.broadcast("hello");
  // @ts-expect-error there is no such event
  client.on("nothing", () => {});
  // @ts-expect-error a list of members is not to be changed
  client.roster.push();
  // @ts-expect-error nor is the state
  client.state = "joined";
  // @ts-expect-error a state is compared with one
  show(client.state === "online");
}
