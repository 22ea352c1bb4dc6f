// What becomes of a session when its connection is lost: what was missed, what was asked, what is
// published, and who wants to leave.

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
  for (const n of [2, 3, 4]) {
    assert.deepEqual(world.socket.asked("broadcast").map(({ data }) => data.n), [n]);
    world.socket.answer("broadcast");
  }
  const numbers = world.socket.sent.map(({ cseq }) => cseq);
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
  assert.ok(numbers[0] > last_cseq);
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
  for (const method of ["broadcast", "stream.add", "broadcast"]) {
    assert.equal(world.socket.methods.at(-1), method);
    world.socket.answer(method);
  }
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

test("a stream that the server ends at a resume is not published any more", async () => {
  const world = new World();
  await world.enter({ others: [member("ben", camera("ben-1"))] });
  world.client.publish(camera());
  const { cseq } = world.socket.answer("stream.add");
  await world.clock.advance(0);
  await world.resume(cseq);
  world.events.length = 0;
  const unpublish = (endpoint, stream) => ({ endpoint, device: "", stream, stat: "unpublish" });
  // Neither another member's stream nor another one of its own is meant.
  world.socket.event("stream", unpublish("ben", "anna-1"), 2);
  world.socket.event("stream", unpublish("anna", "other"), 3);
  assert.deepEqual(world.client.stream, camera());
  world.socket.event("stream", unpublish("anna", "anna-1"), 4);
  assert.equal(world.client.stream, null);
  assert.equal(world.client.roster.find(({ endpoint }) => endpoint === "anna").stream, null);
  assert.deepEqual(world.of("stream").at(-1), { ...unpublish("anna", "anna-1"), number: 4 });
  assert.ok(world.names.includes("members"));
  await rejoin(world);
  assert.equal(world.socket.asked("stream.add").length, 0, "it is not published again");
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
