// What a client asks, and what it makes of the answers.

import assert from "node:assert/strict";
import test from "node:test";
import { MeetingClient, MeetingError } from "../client.js";
import { ADDRESSES, World, camera, member, settle, watch } from "./fake.mjs";

test("a join says everything that was given, and answers with where one is", async () => {
  const world = new World();
  const joining = world.client.join({
    app: "demo", channel: "lobby", endpoint: "anna", role: "recorder", device: "d1", token: "t",
  });
  world.socket.open();
  const request = world.admit({ last_event: 4 });
  assert.deepEqual(request, {
    version: 0,
    cseq: 1,
    method: "channel.join",
    session: "",
    data: { app: "demo", channel: "lobby", role: "recorder", device: "d1", endpoint: "anna", token: "t", last_event: 0 },
  });
  world.dump(member("ben", camera("b1"), "relayer", "d2"), member("anna", undefined, "recorder", "d1"));
  const joined = await joining;
  assert.deepEqual(joined, {
    session: "11111111-1111-4111-8111-111111111111",
    endpoint: "anna",
    mediaServer: ADDRESSES,
    members: [
      { endpoint: "ben", device: "d2", role: "relayer", stream: camera("b1") },
      { endpoint: "anna", device: "d1", role: "recorder", stream: null },
    ],
  });
  assert.equal(world.client.state, "joined");
  assert.equal(world.client.session, joined.session);
  assert.equal(world.client.endpoint, "anna");
  assert.deepEqual(world.client.mediaServerAddresses, ADDRESSES);
  assert.deepEqual(world.states, ["connecting", "joining", "joined"]);
});

test("a join without an endpoint gets the server's, and keeps it", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby" });
  world.socket.open();
  assert.equal(world.admit({ endpoint: "made-up" }).data.endpoint, "");
  world.dump(member("made-up"));
  assert.equal((await joining).endpoint, "made-up");
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.endpoint, "made-up");
});

test("each request has the protocol's shape, and resolves with its answer", async () => {
  const world = new World();
  await world.enter();
  const session = world.client.session;
  const { client, socket } = world;
  const cases = [
    ["stream.add", () => client.publish(camera()), { stream: camera() }, {}, undefined],
    ["stream.delete", () => client.unpublish("anna-1"), { stream_id: "anna-1" }, {}, undefined],
    ["broadcast", () => client.broadcast({ text: "hi" }), { text: "hi" }, {}, undefined],
    ["media_server.dump", () => client.mediaServer(), { protocol: "webrtc" }, { media_server: { ws: "ws://b" } }, { ws: "ws://b" }],
    ["media_server.dump", () => client.mediaServer("rtsp"), { protocol: "rtsp" }, { media_server: { rtsp: "rtsp://c" } }, { rtsp: "rtsp://c" }],
    ["channel.dump", () => client.members(), {}, { endpoint_list: [member("anna")] },
      [{ endpoint: "anna", device: "", role: "normal", stream: null }]],
    ["channel.leave", () => client.leave(), {}, {}, undefined],
  ];
  let cseq = socket.sent.at(-1).cseq;
  for (const [method, call, data, answer, value] of cases) {
    const promise = call();
    const { cseq: number, ...request } = socket.answer(method, answer);
    assert.deepEqual(request, { version: 0, method, session, data });
    assert.ok(number > cseq, "the numbers rise");
    cseq = number;
    assert.deepEqual(await promise, value);
  }
  assert.equal(client.state, "connected");
  assert.equal(client.session, "");
  assert.deepEqual(client.roster, []);
});

test("only an answer for webrtc is the room's media server", async () => {
  const world = new World();
  await world.enter();
  world.client.mediaServer("rtsp");
  world.socket.answer("media_server.dump", { media_server: { rtsp: "rtsp://c" } });
  assert.deepEqual(world.client.mediaServerAddresses, ADDRESSES);
  assert.deepEqual(world.of("mediaServer"), []);
  world.client.mediaServer();
  world.socket.answer("media_server.dump", { media_server: { ws: "ws://b" } });
  assert.deepEqual(world.client.mediaServerAddresses, { ws: "ws://b" });
  assert.deepEqual(world.of("mediaServer"), [{ ws: "ws://b" }]);
});

test("no healthy media server is an error to whoever asks, and an empty address for all", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.mediaServer());
  world.socket.answer("media_server.dump", {}, 503, "no healthy media server");
  await settle();
  assert.equal(fate.error.err, 503);
  assert.deepEqual(world.of("mediaServer"), [{}]);
});

test("an error answer rejects with its number and sentence", async () => {
  const world = new World();
  await world.enter();
  const calls = [
    ["stream.add", () => world.client.publish(camera()), 409],
    ["stream.delete", () => world.client.unpublish("x"), 404],
    ["broadcast", () => world.client.broadcast({}), 403],
    ["channel.dump", () => world.client.members(), 429],
  ];
  for (const [method, call, err] of calls) {
    const promise = call();
    world.socket.answer(method, {}, err, "the server's sentence");
    await assert.rejects(promise, (error) => {
      assert.ok(error instanceof MeetingError && error instanceof Error);
      assert.equal(error.kind, "refused");
      assert.equal(error.err, err);
      assert.equal(error.err_msg, "the server's sentence");
      assert.equal(error.message, "the server's sentence");
      assert.equal(error.method, method);
      return true;
    });
  }
  assert.equal(world.client.state, "joined");
});

test("answers are matched by their number, in whatever order they come", async () => {
  const world = new World();
  await world.enter();
  const first = watch(world.client.broadcast({ n: 1 }));
  const second = watch(world.client.broadcast({ n: 2 }));
  const [one, two] = world.socket.asked("broadcast");
  world.socket.receive({ version: 0, cseq: two.cseq, err: 429, err_msg: "slow down", data: {} });
  await settle();
  assert.equal(first.settled, false);
  assert.equal(second.error.err, 429);
  world.socket.receive({ version: 0, cseq: one.cseq, err: 0, err_msg: "ok", data: {} });
  await settle();
  assert.ok(first.settled && !first.error);
});

test("a request without an answer in time is rejected, and a late answer harms nothing", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.broadcast({ text: "hi" }));
  await world.clock.advance(5000);
  world.socket.event("endpoint", { endpoint: "ben", device: "", stat: "join" }, 2);
  await world.clock.advance(4999);
  assert.equal(fate.settled, false);
  await world.clock.advance(1);
  assert.equal(fate.error.kind, "timeout");
  assert.equal(fate.error.method, "broadcast");
  world.socket.answer("broadcast");
  await settle();
  assert.equal(world.client.state, "joined");
});

test("one call may have its own timeout", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.members({ timeoutMs: 50 }));
  await world.clock.advance(50);
  assert.equal(fate.error.kind, "timeout");
  // It says nothing about the connection.
  assert.equal(world.client.state, "joined");
});

test("a publish whose answer is late has taken effect all the same", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.publish(camera(), { timeoutMs: 50 }));
  world.socket.event("broadcast", { source_endpoint: { endpoint: "b", device: "" }, payload: {} }, 2);
  await world.clock.advance(60);
  assert.equal(fate.error.kind, "timeout");
  assert.equal(world.client.stream, null);
  world.socket.answer("stream.add");
  assert.deepEqual(world.client.stream, camera());
  assert.deepEqual(world.client.roster[0].stream, camera());
});

test("unpublish without an id takes back what is published or about to be", async () => {
  const world = new World();
  await world.enter();
  await assert.rejects(world.client.unpublish(), { kind: "usage" });
  const publishing = world.client.publish(camera("s7"));
  const unpublishing = world.client.unpublish();
  world.socket.answer("stream.add");
  assert.deepEqual(world.client.stream, camera("s7"));
  const request = world.socket.answer("stream.delete");
  assert.deepEqual(request.data, { stream_id: "s7" });
  await Promise.all([publishing, unpublishing]);
  assert.equal(world.client.stream, null);
});

test("what makes no sense is refused without a word to the server", async () => {
  const world = new World();
  const { client } = world;
  for (const call of [
    () => client.publish(camera()), () => client.members(), () => client.mediaServer(), () => client.broadcast({}),
    () => client.join(), () => client.join({ app: "demo" }), () => client.join({ app: 1, channel: "x" }),
  ]) await assert.rejects(call(), { kind: "usage" });
  assert.equal(world.sockets.length, 0);
  await client.leave();
  await world.enter();
  const sent = world.socket.sent.length;
  const cycle = {};
  cycle.cycle = cycle;
  for (const call of [
    () => client.broadcast("text"), () => client.broadcast(null), () => client.broadcast([1]), () => client.broadcast(cycle),
    () => client.broadcast({ n: 1n }), () => client.broadcast({ toJSON: () => 7 }), () => client.broadcast(new Date(0)),
    () => client.publish("camera"), () => client.join({ app: "demo", channel: "other" }),
  ]) await assert.rejects(call(), { kind: "usage" });
  assert.equal(world.socket.sent.length, sent);
  assert.throws(() => new MeetingClient("ws://x/ws", { WebSocket: "no constructor" }), { kind: "usage" });
});

test("a message that the server would end the session for is not sent", async () => {
  const world = new World({ maxMessageBytes: 1000 });
  await world.enter();
  const sent = world.socket.sent.length;
  await assert.rejects(world.client.broadcast({ text: "x".repeat(1000) }), { kind: "refused", err: 413 });
  // It is bytes that count.
  await assert.rejects(world.client.broadcast({ text: "你".repeat(320) }), { kind: "refused", err: 413 });
  assert.equal(world.socket.sent.length, sent);
  const saying = world.client.broadcast({ text: "x".repeat(800) });
  world.socket.answer("broadcast");
  await saying;
});

test("a payload is what it was when it was said", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  const payload = { text: "before" };
  const saying = world.client.broadcast(payload);
  payload.text = "after";
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 2 });
  assert.deepEqual(world.socket.answer("broadcast").data, { text: "before" });
  await saying;
});

test("connect opens the connection beforehand, and a join uses it", async () => {
  const world = new World();
  const connecting = world.client.connect();
  assert.equal(world.client.state, "connecting");
  world.socket.open();
  await connecting;
  assert.equal(world.client.state, "connected");
  await world.client.connect();
  await world.enter();
  assert.equal(world.sockets.length, 1);
});

test("a connection that joined nothing and was closed for it is just gone", async () => {
  const world = new World();
  const connecting = world.client.connect();
  world.socket.open();
  await connecting;
  world.socket.drop(1008, "no join in time");
  assert.equal(world.client.state, "idle");
  await world.clock.advance(60000);
  assert.equal(world.sockets.length, 1);
  await world.enter();
  assert.equal(world.sockets.length, 2);
});

test("connect tries again until its time is up", async () => {
  const world = new World();
  const fate = watch(world.client.connect({ timeoutMs: 5000 }));
  world.socket.drop();
  await world.clock.advance(1000);
  assert.equal(world.sockets.length, 2);
  world.socket.drop();
  await world.clock.advance(4000);
  assert.equal(fate.error.kind, "unreachable");
  assert.equal(world.client.state, "idle");
  const { length } = world.sockets;
  await world.clock.advance(60000);
  assert.equal(world.sockets.length, length);
  assert.equal(world.clock.waiting, 0);
});

test("close ends with 1000, cleanly and for good", async () => {
  const world = new World();
  await world.enter();
  const pending = watch(world.client.broadcast({ text: "hi" }));
  const closing = watch(world.client.close());
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.client.state, "closed");
  await settle();
  assert.equal(pending.error.kind, "closed");
  assert.equal(closing.settled, false);
  world.socket.drop(1000);
  await settle();
  assert.ok(closing.settled && !closing.error);
  assert.deepEqual(world.of("ended"), []);
  await assert.rejects(world.client.join({ app: "demo", channel: "lobby" }), { kind: "closed" });
  await assert.rejects(world.client.connect(), { kind: "closed" });
  await assert.rejects(world.client.broadcast({}), { kind: "closed" });
  await world.client.close();
  await world.clock.advance(60000);
  assert.equal(world.sockets.length, 1);
  assert.equal(world.clock.waiting, 0);
});

test("close waits but so long for a server that does not answer, and not at all without a connection", async () => {
  const world = new World();
  await world.enter();
  const closing = watch(world.client.close());
  await world.clock.advance(1999);
  assert.equal(closing.settled, false);
  await world.clock.advance(1);
  assert.ok(closing.settled);
  await new World().client.close();
});

test("close while the join is under way rejects it", async () => {
  const world = new World();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby" }));
  world.client.close();
  await settle();
  assert.equal(joining.error.kind, "closed");
});

test("leave while the join is under way rejects it, and hangs up", async () => {
  const world = new World();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby" }));
  world.socket.open();
  await world.client.leave();
  assert.equal(joining.error.kind, "closed");
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.client.state, "idle");
});

test("after leave nothing of that room is told, and another can be joined on the same connection", async () => {
  const world = new World();
  await world.enter();
  const leaving = world.client.leave();
  await assert.rejects(world.client.broadcast({}), { kind: "usage" });
  world.socket.answer("channel.leave");
  await leaving;
  assert.deepEqual(world.names, ["state", "members"]);
  assert.deepEqual(world.of("members"), [[]]);
  world.events.length = 0;
  world.socket.event("endpoint", { endpoint: "ben", device: "", stat: "join" }, 2);
  await world.clock.advance(1000);
  assert.deepEqual(world.names, []);
  await world.enter({ params: { channel: "other" } });
  assert.equal(world.sockets.length, 1);
  assert.equal(world.socket.sent.at(-2).session, "", "a join names no session of another room");
});

test("an answer that comes after the leave is nobody's any more", async () => {
  const world = new World();
  await world.enter();
  const asking = watch(world.client.members());
  const leaving = world.client.leave();
  world.socket.answer("channel.leave");
  await leaving;
  assert.equal(asking.error.kind, "closed");
  world.dump(member("ben"));
  assert.deepEqual(world.client.roster, []);
});

test("a leave that is refused hangs up instead: that leaves, too", async () => {
  const world = new World();
  await world.enter();
  const leaving = world.client.leave();
  world.socket.answer("channel.leave", {}, 429, "slow down");
  await leaving;
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.client.state, "idle");
});

test("a leave that is not answered in time hangs up, and says so", async () => {
  const world = new World();
  await world.enter();
  const leaving = watch(world.client.leave());
  await world.clock.advance(10000);
  assert.equal(leaving.error.kind, "timeout");
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.client.state, "idle");
  assert.equal(world.clock.waiting, 0);
});

test("every message is shown as it goes over the wire", async () => {
  const world = new World();
  const messages = [];
  world.client.on("message", (message) => messages.push(message));
  await world.enter();
  assert.deepEqual(messages.map(({ direction, text }) => [direction, JSON.parse(text).method || JSON.parse(text).err]), [
    ["out", "channel.join"], ["in", 0], ["out", "channel.dump"], ["in", 0],
  ]);
  assert.equal(messages[0].time, world.clock.now);
});

/** Runs it, and returns what it left uncaught. */
async function uncaughtIn(run) {
  const uncaught = [];
  const catcher = (error) => uncaught.push(error.message);
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", catcher);
  try {
    await run();
    await settle();
  } finally {
    process.removeListener("uncaughtException", catcher);
    for (const other of others) process.on("uncaughtException", other);
  }
  return uncaught;
}

test("listeners come and go, and one that throws harms nobody", async () => {
  const world = new World();
  const heard = [];
  const stop = world.client.on("state", () => heard.push("stopped"));
  const off = () => heard.push("off");
  world.client.on("state", off);
  world.client.on("state", () => { throw new Error("the application's"); });
  world.client.on("state", ({ state }) => heard.push(state));
  world.client.once("state", () => heard.push("once"));
  stop();
  world.client.off("state", off);
  const uncaught = await uncaughtIn(() => world.enter());
  assert.deepEqual(heard, ["connecting", "once", "joining", "joined"]);
  assert.deepEqual(uncaught, ["the application's", "the application's", "the application's"]);
});

test("a listener may close the client or leave the room at any moment", async () => {
  const events = ["state", "joined", "members", "endpoint", "broadcast", "mediaServer", "error", "reconnecting", "message"];
  const reached = new Set();
  for (const method of ["close", "leave"]) {
    for (const event of events) {
      for (let nth = 1; nth <= 12; nth += 1) {
        const world = new World();
        const { client } = world;
        let left = nth;
        client.on(event, () => {
          left -= 1;
          if (left === 0) client[method]().catch(() => {});
        });
        const uncaught = await uncaughtIn(async () => {
          client.join({ app: "demo", channel: "lobby", endpoint: "anna" }).catch(() => {});
          // What the server does, as far as it is asked to.
          const asked = (what) => () => world.socket.asked(what).length > 0;
          const always = () => true;
          const connecting = () => world.socket.readyState === 0;
          const steps = [
            [connecting, () => world.socket.open()],
            [asked("channel.join"), () => world.admit()],
            [asked("channel.dump"), () => world.dump(member("anna"))],
            [always, () => world.clock.advance(0)],
            [always, () => { client.publish(camera()).catch(() => {}); }],
            [asked("stream.add"), () => world.socket.answer("stream.add")],
            [always, () => world.socket.event("endpoint", { endpoint: "ben", device: "", stat: "join" }, 2)],
            [always, () => world.socket.event("broadcast", { source_endpoint: { endpoint: "ben", device: "" }, payload: {} }, 3)],
            [always, () => world.socket.event("error", { type: "media_server_down", message: "" })],
            [asked("media_server.dump"), () => world.socket.answer("media_server.dump", { media_server: {} })],
            [asked("channel.leave"), () => world.socket.answer("channel.leave")],
            [always, () => world.socket.drop()],
            [always, () => world.clock.advance(500)],
            [connecting, () => world.socket.open()],
            [asked("channel.join"), () => world.admit({ media_server: {} })],
            [asked("channel.dump"), () => world.dump(member("anna"), member("carl"))],
            [asked("channel.leave"), () => world.socket.answer("channel.leave")],
            [always, () => world.clock.advance(100)],
          ];
          for (const [holds, step] of steps) if (holds()) await step();
        });
        assert.deepEqual(uncaught, [], `${method}() at ${event} ${nth}`);
        if (left > 0) continue;
        reached.add(event);
        const out = method === "close" ? ["closed"] : ["idle", "connected"];
        assert.ok(out.includes(client.state), `${method}() at ${event} ${nth}: ${client.state}`);
        assert.deepEqual(client.roster, []);
      }
    }
  }
  assert.deepEqual([...reached].sort(), events.sort());
});

test("all listeners hear all events in one order, whatever one of them does", async () => {
  const world = new World();
  await world.enter();
  const heard = [];
  world.client.on("endpoint", () => { if (world.client.state !== "closed") world.client.close(); });
  world.client.on("state", ({ state }) => heard.push(state));
  world.client.on("members", (members) => heard.push(members.length));
  world.client.on("endpoint", ({ endpoint }) => heard.push(endpoint));
  world.socket.event("endpoint", { endpoint: "ben", device: "", stat: "join" }, 2);
  assert.deepEqual(heard, [2, "closed", 0], "the rest of ben's coming is no matter any more");

  const other = new World();
  await other.enter();
  const order = [];
  other.client.on("members", () => { if (other.client.stream === null) other.client.broadcast({}).catch(() => {}); });
  other.client.on("message", ({ direction }) => order.push(direction));
  other.client.on("members", () => order.push("members"));
  other.socket.event("endpoint", { endpoint: "ben", device: "", stat: "join" }, 2);
  assert.deepEqual(order, ["in", "members", "out"]);
});

test("whoever leaves over and over leaves once", async () => {
  const world = new World();
  await world.enter();
  const [one, two] = [world.client.leave(), world.client.leave()];
  assert.equal(world.socket.asked("channel.leave").length, 1);
  world.socket.answer("channel.leave");
  await Promise.all([one, two, world.client.leave()]);
});

test("connect goes on waiting when a join on the same way is given up", async () => {
  const world = new World();
  const connecting = world.client.connect();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: 100 }));
  await world.clock.advance(100);
  assert.equal(joining.error.kind, "unreachable");
  assert.equal(world.client.state, "connecting");
  world.socket.open();
  await connecting;
});
