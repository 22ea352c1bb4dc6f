// What a client does when its connection is lost: when it comes back, when it does not, how long it
// waits, and what becomes of what was asked.

import assert from "node:assert/strict";
import test from "node:test";
import { World, camera, member, settle, watch } from "./fake.mjs";

test("a lost connection is resumed with the session and the last event's number", async () => {
  const world = new World();
  await world.enter({ last_event: 4 });
  const { session } = world.client;
  world.socket.event("broadcast", { source_endpoint: { endpoint: "ben", device: "" }, payload: { n: 1 } }, 7);
  world.socket.drop();
  assert.equal(world.client.state, "reconnecting");
  assert.deepEqual(world.of("reconnecting"), [{ attempt: 1, delayMs: 500, reason: "connection lost", closeCode: 1006 }]);
  await world.reconnect();
  const request = world.socket.sent[0];
  assert.equal(request.session, session);
  assert.equal(request.data.last_event, 7);
  assert.equal(request.data.endpoint, "anna");
  world.admit({ resumed: true, last_cseq: 2, last_event: 9 });
  assert.equal(world.client.state, "joined");
  assert.deepEqual(world.of("joined").map(({ how }) => how), ["resumed"]);
  assert.deepEqual(world.socket.methods, ["channel.join"], "nothing needs to be asked");
});

test("who has seen no event since its join asks for what came after the join", async () => {
  const world = new World();
  await world.enter({ last_event: 4 });
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.last_event, 4);
  // A room that began anew counts anew.
  world.admit({ last_event: 1 });
  world.dump(member("anna"));
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.last_event, 1);
});

test("what was missed is told after `joined`, in order, once", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  await world.reconnect();
  world.events.length = 0;
  world.admit({ resumed: true, last_cseq: 2, last_event: 4 });
  for (const n of [2, 3, 4]) {
    world.socket.event("broadcast", { source_endpoint: { endpoint: "ben", device: "" }, payload: { n } }, n);
  }
  assert.deepEqual(world.names, ["state", "joined", "broadcast", "broadcast", "broadcast"]);
  assert.deepEqual(world.of("broadcast").map(({ payload }) => payload.n), [2, 3, 4]);
});

test("a replay that is cut off goes on where it was, not where the answer said it would end", async () => {
  const world = new World();
  await world.enter();
  await world.resume(2);
  world.socket.event("broadcast", { source_endpoint: { endpoint: "ben", device: "" }, payload: {} }, 3);
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.last_event, 3);
});

test("of lost answers, what the server took in is done, and the rest is sent again in order", async () => {
  const world = new World();
  await world.enter();
  const { client } = world;
  const taken = watch(client.broadcast({ n: 1 }));
  const last_cseq = world.socket.sent.at(-1).cseq;
  const lost = [client.broadcast({ n: 2 }), client.broadcast({ n: 3 })];
  await world.resume(last_cseq);
  const unsent = client.broadcast({ n: 4 });
  assert.ok(taken.settled && !taken.error);
  assert.deepEqual(world.socket.asked("broadcast").map(({ data }) => data.n), [2, 3, 4]);
  const numbers = world.socket.sent.map(({ cseq }) => cseq);
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
  assert.ok(numbers[0] > last_cseq);
  for (let i = 0; i < 3; i += 1) world.socket.answer("broadcast");
  await Promise.all([...lost, unsent]);
});

test("what is asked while there is no connection is sent once there is one, in order", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  const saying = [world.client.broadcast({ n: 1 }), world.client.publish(camera()), world.client.broadcast({ n: 2 })];
  await world.reconnect();
  assert.deepEqual(world.socket.methods, ["channel.join"]);
  world.admit({ resumed: true, last_cseq: 2 });
  assert.deepEqual(world.socket.methods.slice(1), ["broadcast", "stream.add", "broadcast"]);
  for (const method of world.socket.methods.slice(1)) world.socket.answer(method);
  await Promise.all(saying);
});

test("what waits for a connection waits no longer than its timeout, and is not sent then", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  const fate = watch(world.client.broadcast({ n: 1 }, { timeoutMs: 100 }));
  await world.clock.advance(100);
  assert.equal(fate.error.kind, "timeout");
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 2 });
  assert.deepEqual(world.socket.methods, ["channel.join"]);
});

test("a request that has timed out is not sent again after a loss", async () => {
  const world = new World();
  await world.enter();
  for (const call of [() => world.client.broadcast({}, { timeoutMs: 10 }), () => world.client.publish(camera(), { timeoutMs: 10 })]) {
    const fate = watch(call());
    // Something is heard, so the connection is not to blame.
    await world.clock.advance(1);
    world.socket.event("broadcast", { source_endpoint: { endpoint: "b", device: "" }, payload: {} }, 2);
    await world.clock.advance(9);
    assert.equal(fate.error.kind, "timeout");
  }
  await world.resume(2);
  assert.deepEqual(world.socket.methods, ["channel.join"]);
});

test("questions are simply asked again", async () => {
  const world = new World();
  await world.enter();
  const members = world.client.members();
  const media = world.client.mediaServer("rtsp");
  await world.resume(world.socket.sent.at(-1).cseq);
  world.dump(member("anna"), member("ben"));
  world.socket.answer("media_server.dump", { media_server: { rtsp: "rtsp://a" } });
  assert.equal((await members).length, 2);
  assert.deepEqual(await media, { rtsp: "rtsp://a" });
});

test("whether a stream request was granted is seen in the list of members", async () => {
  const cases = [
    // what was asked, what the room then shows, what is sent again
    { calls: (c) => [c.publish(camera())], shows: camera(), again: [] },
    { calls: (c) => [c.publish(camera())], shows: undefined, again: ["stream.add"] },
    { calls: (c) => [c.publish(camera())], shows: { ...camera(), has_video: false }, again: ["stream.add"] },
    { calls: (c) => [c.publish(camera()), c.unpublish()], shows: undefined, again: [] },
    { calls: (c) => [c.publish(camera()), c.unpublish()], shows: camera(), again: ["stream.delete"] },
    { calls: (c) => [c.publish(camera("a")), c.unpublish(), c.publish(camera("b"))], shows: camera("b"), again: [] },
  ];
  for (const { calls, shows, again } of cases) {
    const world = new World();
    await world.enter();
    const promises = calls(world.client);
    await world.resume(world.socket.sent.at(-1).cseq);
    assert.deepEqual(world.socket.methods, ["channel.join", "channel.dump"]);
    world.dump(member("anna", shows));
    assert.deepEqual(world.socket.methods.slice(2), again);
    for (const method of again) world.socket.answer(method);
    await Promise.all(promises);
    if (again.length === 0) assert.deepEqual(world.client.stream, shows || null);
  }
});

test("a stream request that was refused is refused once more, when its answer was lost", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.publish(camera()));
  await world.resume(world.socket.sent.at(-1).cseq);
  world.dump(member("anna"));
  world.socket.answer("stream.add", {}, 403, "no grant to publish");
  await settle();
  assert.equal(fate.error.err, 403);
});

test("the list that decides over a stream request may be lost, too", async () => {
  const world = new World();
  await world.enter();
  const publishing = world.client.publish(camera());
  const { cseq } = world.socket.sent.at(-1);
  await world.resume(cseq);
  await world.resume(world.socket.sent.at(-1).cseq);
  assert.deepEqual(world.socket.methods, ["channel.join", "channel.dump"]);
  world.dump(member("anna", camera()));
  await publishing;
  assert.deepEqual(world.client.stream, camera());
});

test("where the list is refused, the stream request is sent again", async () => {
  const world = new World();
  await world.enter();
  const publishing = world.client.publish(camera());
  await world.resume(world.socket.sent.at(-1).cseq);
  world.socket.answer("channel.dump", {}, 429, "slow down");
  world.socket.answer("stream.add");
  await publishing;
});

test("a stream request that times out while the list decides over it shows in the list", async () => {
  for (const shows of [camera(), undefined]) {
    const world = new World();
    await world.enter();
    const fate = watch(world.client.publish(camera(), { timeoutMs: 2000 }));
    await world.resume(world.socket.sent.at(-1).cseq);
    await world.clock.advance(2000);
    assert.equal(fate.error.kind, "timeout");
    world.dump(member("anna", shows));
    assert.deepEqual(world.client.stream, shows || null);
    assert.deepEqual(world.socket.methods, ["channel.join", "channel.dump"], "it is not asked again");
  }
});

test("a stream request that timed out and took effect shows once the session goes on", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.publish(camera(), { timeoutMs: 10 }));
  const { cseq } = world.socket.sent.at(-1);
  await world.clock.advance(1);
  world.socket.event("broadcast", { source_endpoint: { endpoint: "b", device: "" }, payload: {} }, 2);
  await world.clock.advance(9);
  assert.equal(fate.error.kind, "timeout");
  await world.resume(cseq);
  world.dump(member("anna", camera()));
  assert.deepEqual(world.client.stream, camera());
  assert.deepEqual(world.socket.methods, ["channel.join", "channel.dump"]);
});

// ---------------------------------------------------------------- too late to resume

/** Comes back to a server that does not know the session any more. */
async function rejoin(world, last_event = 20) {
  world.socket.drop();
  await world.reconnect();
  world.events.length = 0;
  world.admit({ session: "22222222-2222-4222-8222-222222222222", last_event });
}

test("after too long it is a fresh join: the list is asked, the stream published again, and an event tells", async () => {
  const world = new World();
  await world.enter({ others: [member("ben")] });
  world.client.publish(camera());
  world.socket.answer("stream.add");
  await rejoin(world);
  assert.deepEqual(world.socket.methods, ["channel.join", "stream.add", "channel.dump"]);
  assert.equal(world.client.state, "reconnecting");
  world.socket.event("endpoint", { endpoint: "carl", device: "", stat: "join" }, 21);
  assert.deepEqual(world.names, [], "nothing is told before the list is there");
  assert.deepEqual(world.socket.answer("stream.add").data, { stream: camera() });
  world.dump(member("dora"), member("anna", camera()), member("carl"));
  assert.equal(world.client.state, "joined");
  assert.deepEqual(world.names, ["state", "joined", "members", "endpoint"]);
  const [joined] = world.of("joined");
  assert.equal(joined.how, "rejoined");
  assert.equal(joined.session, "22222222-2222-4222-8222-222222222222");
  assert.deepEqual(joined.members.map(({ endpoint }) => endpoint), ["dora", "anna", "carl"]);
  assert.deepEqual(world.roster, ["dora", "anna", "carl"]);
  assert.deepEqual(world.client.stream, camera());
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].session, joined.session);
  assert.equal(world.socket.sent[0].data.last_event, 21);
});

test("a stream that cannot be published again is no longer published, and an event tells", async () => {
  const world = new World();
  await world.enter();
  world.client.publish(camera());
  world.socket.answer("stream.add");
  await rejoin(world);
  world.socket.answer("stream.add", {}, 409, "another endpoint publishes it");
  world.dump(member("anna"));
  assert.deepEqual(world.of("error"), [{ type: "republish_failed", message: "another endpoint publishes it" }]);
  assert.equal(world.client.stream, null);
  assert.equal(world.client.roster[0].stream, null);
});

test("a server that is too busy for it is asked again to publish the stream", async () => {
  const world = new World();
  await world.enter();
  world.client.publish(camera());
  world.socket.answer("stream.add");
  await rejoin(world);
  world.socket.answer("stream.add", {}, 429, "slow down");
  world.dump(member("anna"));
  assert.deepEqual(world.of("error"), []);
  await world.clock.advance(2000);
  world.socket.answer("stream.add");
  assert.deepEqual(world.client.roster[0].stream, camera());
});

test("a stream that was taken back meanwhile is not published again", async () => {
  const world = new World();
  await world.enter();
  world.client.publish(camera());
  world.socket.answer("stream.add");
  await rejoin(world);
  world.socket.answer("stream.add", {}, 429, "slow down");
  world.dump(member("anna"));
  const fate = watch(world.client.unpublish());
  world.socket.answer("stream.delete", {}, 404, "no such stream");
  await world.clock.advance(5000);
  assert.equal(fate.error.err, 404);
  assert.equal(world.client.stream, null);
  assert.equal(world.socket.asked("stream.add").length, 0);
});

test("publishing again comes before what is asked later, also after a second loss", async () => {
  const world = new World();
  await world.enter();
  world.client.publish(camera("a"));
  world.socket.answer("stream.add");
  world.socket.drop();
  world.client.publish(camera("b")).catch(() => {});
  await world.reconnect();
  world.admit();
  const published = () => world.socket.asked("stream.add").map(({ data }) => data.stream.stream_id);
  assert.deepEqual(published(), ["a", "b"]);
  world.socket.drop();
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 1 });
  assert.deepEqual(published(), ["a", "b"]);
});

test("publishing again survives a second loss, however that ends", async () => {
  for (const resumed of [true, false]) {
    const world = new World();
    await world.enter();
    world.client.publish(camera());
    world.socket.answer("stream.add");
    await rejoin(world);
    world.socket.drop();
    await world.reconnect();
    world.admit(resumed ? { resumed, last_cseq: 1 } : {});
    assert.deepEqual(world.socket.asked("stream.add").length, 1);
    world.socket.answer("stream.add");
    world.dump(member("anna", camera()));
    assert.equal(world.client.state, "joined");
    assert.deepEqual(world.of("joined").map(({ how }) => how), ["rejoined"], "it is still to be told");
  }
});

test("with the session ends the certainty: a broadcast may have arrived or not", async () => {
  const world = new World();
  await world.enter();
  const fate = watch(world.client.broadcast({ n: 1 }));
  world.socket.drop();
  const unsent = world.client.broadcast({ n: 2 });
  await world.reconnect();
  world.admit();
  await settle();
  assert.equal(fate.error.kind, "lost");
  assert.deepEqual(world.socket.asked("broadcast").map(({ data }) => data.n), [2]);
  world.socket.answer("broadcast");
  await unsent;
});

test("unanswered stream requests are made good in the new session", async () => {
  const cases = [
    { published: null, calls: (c) => [c.publish(camera("a"))], sends: [["stream.add", "a"]], stream: "a" },
    { published: "a", calls: (c) => [c.unpublish()], sends: [], stream: null },
    { published: "a", calls: (c) => [c.publish(camera("a"))], sends: [["stream.add", "a"]], stream: "a" },
    { published: "a", calls: (c) => [c.unpublish(), c.publish(camera("b"))], sends: [["stream.add", "b"]], stream: "b" },
    { published: "a", calls: (c) => [c.broadcast({})].map((p) => p.catch(() => {})), sends: [["stream.add", "a"]], stream: "a" },
  ];
  for (const { published, calls, sends, stream } of cases) {
    const world = new World();
    await world.enter();
    if (published) {
      world.client.publish(camera(published));
      world.socket.answer("stream.add");
    }
    const promises = calls(world.client);
    await rejoin(world);
    const sent = world.socket.sent.filter(({ method }) => method.startsWith("stream."));
    assert.deepEqual(sent.map(({ method, data }) => [method, data.stream ? data.stream.stream_id : data.stream_id]), sends);
    for (const [method] of sends) world.socket.answer(method);
    await Promise.all(promises);
    assert.equal(world.client.stream && world.client.stream.stream_id, stream);
  }
});

// ---------------------------------------------------------------- leaving without a connection

test("whoever leaves without a connection comes back for it, to nobody's harm", async () => {
  for (const resumed of [true, false]) {
    const world = new World();
    await world.enter();
    world.client.publish(camera());
    world.socket.answer("stream.add");
    world.socket.drop();
    const leaving = world.client.leave();
    await world.reconnect();
    const request = world.admit(resumed ? { resumed, last_cseq: 3 } : { endpoint: "made-up" });
    assert.equal(request.data.endpoint, "", "it takes nobody's place");
    assert.ok(!world.socket.methods.includes("stream.add"));
    world.socket.answer("channel.leave");
    await leaving;
    assert.equal(world.client.state, "connected");
    assert.deepEqual(world.of("ended"), []);
    assert.deepEqual(world.of("joined"), []);
  }
});

test("a leave whose answer was lost is asked again", async () => {
  const world = new World();
  await world.enter();
  const leaving = world.client.leave();
  await world.resume(2);
  world.socket.answer("channel.leave");
  await leaving;
});

// ---------------------------------------------------------------- who is not wanted

test("a client that is not wanted does not come back, and says why", async () => {
  const cases = [
    { type: "endpoint_replaced", code: 4001 },
    { type: "removed", code: 4003 },
    { type: "rate_limited", code: 1008, err: 429 },
    { type: "message_too_big", code: 1009, err: 413 },
    { code: 1002 }, { code: 1003 }, { code: 1007 }, { code: 1008 },
    // The close frame itself was lost.
    { type: "endpoint_replaced", code: 1006, closeCode: 4001 },
    { type: "removed", code: 1006, closeCode: 4003 },
  ];
  for (const { type, code, err = 0, closeCode = code } of cases) {
    const world = new World();
    await world.enter();
    const pending = watch(world.client.broadcast({}));
    if (type) world.socket.event("error", { type, message: `about ${type}` });
    world.socket.drop(code, type ? "" : "the reason");
    assert.equal(world.client.state, "idle");
    const [{ error, ...ended }] = world.of("ended");
    assert.deepEqual(ended, { closeCode });
    assert.deepEqual([error.kind, error.err, error.closeCode], ["ended", err, closeCode]);
    assert.equal(error.message, type ? `about ${type}` : "the reason");
    assert.deepEqual(world.of("error"), type ? [{ type, message: `about ${type}` }] : []);
    assert.deepEqual(world.client.roster, []);
    await settle();
    assert.equal(pending.error.kind, "ended");
    await world.clock.advance(600000);
    assert.equal(world.sockets.length, 1);
    assert.equal(world.clock.waiting, 0);
    // The application may try.
    await world.enter();
    assert.equal(world.sockets.length, 2);
    assert.equal(world.socket.sent[0].session, "");
  }
});

test("a first join that is refused is the application's matter", async () => {
  const cases = [
    { err: 401, closes: true }, { err: 403, closes: true },
    { err: 400, closes: false }, { err: 503, closes: false }, { err: 429, closes: false },
  ];
  for (const { err, closes } of cases) {
    const world = new World();
    const joining = watch(world.client.join({ app: "demo", channel: "lobby" }));
    world.socket.open();
    world.socket.answer("channel.join", {}, err, "no");
    await settle();
    assert.deepEqual([joining.error.kind, joining.error.err], ["refused", err]);
    assert.equal(world.client.state, closes ? "idle" : "connected");
    assert.deepEqual(world.of("ended"), []);
    await world.clock.advance(60000);
    assert.equal(world.sockets.length, 1);
    await world.enter();
    assert.equal(world.sockets.length, closes ? 2 : 1);
  }
});

test("a refusal on the way back ends the stay", async () => {
  for (const err of [401, 403]) {
    const world = new World();
    await world.enter();
    world.socket.drop();
    await world.reconnect();
    world.socket.answer("channel.join", {}, err, "the token has expired");
    assert.equal(world.client.state, "idle");
    const [{ error }] = world.of("ended");
    assert.deepEqual([error.kind, error.err, error.message], ["refused", err, "the token has expired"]);
    world.socket.drop(1008);
    await world.clock.advance(600000);
    assert.equal(world.sockets.length, 2);
  }
});

// ---------------------------------------------------------------- when it comes back

test("every loss that is not meant for good is come back from", async () => {
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4002, 4004]) {
    const world = new World();
    await world.enter();
    world.socket.drop(code);
    assert.equal(world.client.state, "reconnecting");
    await world.reconnect();
    assert.equal(world.socket.sent[0].method, "channel.join");
  }
});

test("a server that goes down says when to come back", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 3210 });
  world.socket.drop(1001);
  assert.deepEqual(world.of("error"), [{ type: "server_shutdown", message: "bye", retryAfterMs: 3210 }]);
  assert.equal(world.of("reconnecting")[0].delayMs, 3210);
  await world.clock.advance(3209);
  assert.equal(world.sockets.length, 1);
  await world.clock.advance(1);
  assert.equal(world.sockets.length, 2);
});

test("a server that goes down without a word is given up to five seconds", async () => {
  const world = new World();
  await world.enter();
  world.chance = 0.9;
  world.socket.drop(1001);
  assert.equal(world.of("reconnecting")[0].delayMs, 4500);
});

test("the waits double, up to a bound, and are drawn", async () => {
  const world = new World();
  await world.enter();
  world.chance = 0.999999;
  world.socket.drop();
  for (let i = 0; i < 7; i += 1) {
    await world.clock.advance(world.of("reconnecting").at(-1).delayMs);
    world.socket.drop();
  }
  assert.deepEqual(world.of("reconnecting").map(({ delayMs }) => delayMs), [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  assert.deepEqual(world.of("reconnecting").map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6, 7, 8]);
  world.chance = 0;
  await world.clock.advance(30000);
  world.socket.drop();
  assert.equal(world.of("reconnecting").at(-1).delayMs, 0);
});

test("a connection that was short-lived does not start the waits anew, one that has held does", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  for (let i = 0; i < 3; i += 1) {
    await world.reconnect();
    world.admit({ resumed: true, last_cseq: 2 });
    await world.clock.advance(29999);
    world.socket.drop();
  }
  assert.deepEqual(world.of("reconnecting").map(({ attempt }) => attempt), [1, 2, 3, 4]);
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 2 });
  await world.clock.advance(30000);
  world.socket.drop();
  assert.equal(world.of("reconnecting").at(-1).attempt, 1);
});

test("a server that is full or drains is tried again later", async () => {
  for (const err of [503, 429]) {
    const world = new World();
    await world.enter();
    const { session } = world.client;
    world.socket.drop();
    await world.reconnect();
    world.socket.answer("channel.join", {}, err, "the server drains");
    assert.equal(world.client.state, "reconnecting");
    assert.equal(world.socket.closedWith, 4900);
    assert.deepEqual(world.of("reconnecting").at(-1), { attempt: 2, delayMs: 1000, reason: "the server drains", closeCode: 0 });
    await world.reconnect();
    assert.equal(world.socket.sent[0].session, session, "the session may still be there");
  }
});

test("a first join at a server that goes down is tried again when it said", async () => {
  const world = new World();
  const connecting = world.client.connect();
  world.socket.open();
  await connecting;
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 700 });
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  assert.equal(world.client.state, "connecting");
  await world.clock.advance(700);
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  world.admit();
  world.dump(member("anna"));
  await joining;
});

test("a first join that is refused by a server that goes down is tried again when it said", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.socket.open();
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 700 });
  world.socket.answer("channel.join", {}, 503, "the server drains");
  await world.clock.advance(699);
  assert.equal(world.sockets.length, 1);
  await world.clock.advance(1);
  world.socket.open();
  world.admit();
  world.dump(member("anna"));
  await joining;
});

test("a join over a connection that says nothing more is tried over another", async () => {
  const world = new World();
  const connecting = world.client.connect();
  world.socket.open();
  await connecting;
  world.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: 60000 });
  await world.clock.advance(10000);
  assert.equal(world.sockets[0].closedWith, 4900);
  await world.reconnect();
  assert.deepEqual(world.socket.methods, ["channel.join"]);
});

test("a new stay begins with short waits", async () => {
  const world = new World();
  await world.enter();
  for (let i = 0; i < 4; i += 1) {
    world.socket.drop();
    await world.reconnect();
  }
  world.socket.answer("channel.join", {}, 401, "no");
  await world.enter();
  world.socket.drop();
  assert.equal(world.of("reconnecting").at(-1).attempt, 1);
});

test("a first join goes on through failing connections until its time is up", async () => {
  const world = new World();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: 2000 }));
  world.socket.drop();
  await world.clock.advance(500);
  world.socket.open();
  world.socket.drop();
  assert.equal(world.client.state, "connecting");
  await world.clock.advance(1500);
  assert.equal(joining.error.kind, "unreachable");
  assert.match(joining.error.message, /connection lost/);
  assert.equal(world.client.state, "idle");
  assert.deepEqual(world.of("reconnecting"), []);
  assert.equal(world.clock.waiting, 0);
});

test("a connection that fails without a close has failed, too", async () => {
  const world = new World();
  await world.enter();
  world.socket.onerror({});
  await world.clock.advance(1000);
  assert.equal(world.client.state, "joined", "where there was a connection a close will follow");
  world.socket.drop();
  for (const closes of [false, true]) {
    const before = world.sockets.length;
    await world.clock.advance(world.of("reconnecting").at(-1).delayMs);
    assert.equal(world.sockets.length, before + 1);
    world.socket.onerror({});
    if (closes) world.socket.drop();
    await world.clock.advance(0);
  }
  assert.deepEqual(world.of("reconnecting").map(({ attempt, closeCode }) => [attempt, closeCode]), [[1, 1006], [2, 1006], [3, 1006]]);
});

test("a join that is not answered is a timeout, and is taken back", async () => {
  const world = new World();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: 3000 }));
  world.socket.open();
  await world.clock.advance(3000);
  assert.deepEqual([joining.error.kind, joining.error.method], ["timeout", "channel.join"]);
  assert.equal(world.socket.closedWith, 1000);
});

test("tries may be bounded, or switched off", async () => {
  const world = new World({ reconnect: { attempts: 2 } });
  await world.enter();
  for (let i = 0; i < 3; i += 1) {
    world.socket.drop();
    await world.clock.advance(30000);
  }
  assert.equal(world.client.state, "idle");
  assert.equal(world.of("ended")[0].error.kind, "unreachable");
  assert.equal(world.sockets.length, 3);

  const once = new World({ reconnect: false });
  await once.enter();
  once.socket.drop(1006);
  assert.deepEqual([once.client.state, once.of("ended")[0].closeCode], ["idle", 1006]);
  assert.deepEqual(once.of("reconnecting"), []);
});

test("a try that leads nowhere is given up with 4900, and the next one made", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  await world.clock.advance(500);
  const silent = world.socket;
  await world.clock.advance(10000);
  assert.equal(silent.closedWith, 4900);
  assert.equal(world.of("reconnecting").at(-1).closeCode, 4900);
  // What it still says is nobody's business.
  silent.open();
  assert.deepEqual(silent.sent, []);
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 2 });
  silent.drop(1006);
  assert.equal(world.client.state, "joined");
});

// ---------------------------------------------------------------- tokens

test("a token function is asked before each join, with what it needs to know", async () => {
  const world = new World();
  const asked = [];
  const token = async (request) => { asked.push(request); return `token-${asked.length}`; };
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna", token });
  world.socket.open();
  assert.deepEqual(world.socket.sent, [], "not before the token is there");
  await settle();
  assert.equal(world.admit().data.token, "token-1");
  world.dump(member("anna"));
  await joining;
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.token, "token-2");
  assert.deepEqual(asked, [
    { app: "demo", channel: "lobby", endpoint: "anna", attempt: 1 },
    { app: "demo", channel: "lobby", endpoint: "anna", attempt: 2 },
  ]);
});

test("without a token at first there is no join; on the way back it is tried again", async () => {
  const world = new World();
  let fails = true;
  const cause = new Error("the token server is down");
  const token = () => { if (fails) throw cause; return "t"; };
  const joining = watch(world.client.join({ app: "demo", channel: "lobby", token }));
  await settle();
  assert.equal(joining.error.kind, "token");
  assert.equal(joining.error.cause, cause);
  assert.equal(world.client.state, "idle");
  fails = false;
  await world.enter({ params: { token } });
  fails = true;
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.client.state, "reconnecting");
  assert.match(world.of("reconnecting").at(-1).reason, /the token server is down/);
  fails = false;
  await world.reconnect();
  assert.equal(world.socket.sent[0].data.token, "t");
});

test("a token that comes too late for the server's patience is no reason to stay away", async () => {
  const world = new World();
  let give;
  const token = () => new Promise((resolve) => { give = resolve; });
  world.client.join({ app: "demo", channel: "lobby", token }, { timeoutMs: 60000 });
  world.socket.open();
  await settle();
  world.socket.drop(1008, "no join in time");
  give("late");
  await settle();
  assert.equal(world.client.state, "connecting");
  await world.reconnect();
  give("in time");
  await settle();
  assert.equal(world.socket.sent[0].data.token, "in time");
});

// ---------------------------------------------------------------- silence

const silent = { heartbeatMs: 15000, heartbeatTimeoutMs: 8000 };

test("after a silence the server is asked for a sign of life, and lives on with it", async () => {
  const world = new World(silent);
  await world.enter();
  await world.clock.advance(10000);
  world.socket.event("broadcast", { source_endpoint: { endpoint: "b", device: "" }, payload: {} }, 2);
  await world.clock.advance(14999);
  assert.equal(world.socket.asked("media_server.dump").length, 0);
  await world.clock.advance(1);
  const request = world.socket.answer("media_server.dump", { media_server: { http: "http://other" } });
  assert.deepEqual(request.data, { protocol: "webrtc" });
  assert.deepEqual(world.of("mediaServer"), [{ http: "http://other" }]);
  for (let i = 0; i < 3; i += 1) {
    await world.clock.advance(20000);
    assert.equal(world.socket.asked("media_server.dump").length, 1);
    world.socket.answer("media_server.dump", {}, 503, "none");
  }
  assert.equal(world.sockets.length, 1);
});

test("a silent connection is given up with 4900, and the session resumed", async () => {
  const world = new World(silent);
  await world.enter();
  const dead = world.socket;
  await world.clock.advance(15000 + 7999);
  assert.equal(world.client.state, "joined");
  await world.clock.advance(1);
  assert.equal(dead.closedWith, 4900);
  assert.equal(world.client.state, "reconnecting");
  assert.deepEqual(world.of("reconnecting")[0], { attempt: 1, delayMs: 500, reason: "the server is silent", closeCode: 4900 });
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 3 });
  assert.equal(world.client.state, "joined");
  assert.deepEqual(world.socket.methods, ["channel.join"], "the sign of life is not asked again");
});

test("a request that is not answered by a silent server gives the connection up", async () => {
  const world = new World({ heartbeatMs: 60000 });
  await world.enter();
  const fate = watch(world.client.broadcast({}));
  await world.clock.advance(10000);
  assert.equal(fate.error.kind, "timeout");
  assert.equal(world.socket.closedWith, 4900);
  assert.equal(world.client.state, "reconnecting");
});

test("when the network comes back there is no waiting", async () => {
  const world = new World();
  await world.enter();
  world.chance = 0.999;
  world.socket.drop();
  await world.clock.advance(10);
  world.network.dispatchEvent(new Event("offline"));
  assert.equal(world.sockets.length, 1);
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 2);
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 2);
});

test("when the network changes the connection has to prove itself", async () => {
  for (const type of ["online", "offline"]) {
    const world = new World();
    await world.enter();
    world.network.dispatchEvent(new Event(type));
    world.socket.answer("media_server.dump", { media_server: {} });
    await world.clock.advance(3000);
    assert.equal(world.client.state, "joined");
    world.network.dispatchEvent(new Event(type));
    await world.clock.advance(3000);
    assert.equal(world.socket.closedWith, 4900);
    assert.equal(world.client.state, "reconnecting");
  }
});

test("outside a room nobody listens to the network", async () => {
  const heard = new Set();
  const network = {
    addEventListener: (type) => heard.add(type),
    removeEventListener: (type) => heard.delete(type),
  };
  const world = new World({ network });
  await world.enter();
  assert.deepEqual([...heard], ["online", "offline"]);
  const leaving = world.client.leave();
  world.socket.answer("channel.leave");
  await leaving;
  assert.equal(heard.size, 0);
});

test("a server that says what is no message is given up", async () => {
  for (const text of ["{", "null", "5", "[]", ""]) {
    const world = new World();
    await world.enter();
    world.socket.receive(text);
    assert.equal(world.socket.closedWith, 4900);
    assert.equal(world.client.state, "reconnecting");
  }
});
