// When a client whose connection is lost comes back, when it does not, how long it waits, and how it
// finds out.

import assert from "node:assert/strict";
import test from "node:test";
import { World, member, settle, watch } from "./fake.mjs";

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

test("a network that is back does not end a wait that the server has asked for", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 3210 });
  world.socket.drop(1001);
  world.network.dispatchEvent(new Event("online"));
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
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 1700 });
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  assert.equal(world.client.state, "connecting");
  await world.clock.advance(1700);
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
  world.socket.event("error", { type: "server_shutdown", message: "bye", retry_after_ms: 1700 });
  world.socket.answer("channel.join", {}, 503, "the server drains");
  await world.clock.advance(1699);
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
