// A page that is hidden, restored or turned to; a clock that is set; a connect that hangs; and a
// media server that is asked for until there is one.

import assert from "node:assert/strict";
import test from "node:test";
import { World, member, settle, watch } from "./fake.mjs";

// ---------------------------------------------------------------- the back/forward cache

test("a page in the cache gives its connection up, a restored one is back at once", async () => {
  const world = new World();
  await world.enter();
  const { session } = world.client;
  world.pageEvent("pagehide", true);
  assert.equal(world.socket.closedWith, 4900);
  assert.equal(world.client.state, "reconnecting");
  assert.deepEqual(world.of("ended"), []);
  await world.clock.advance(600_000);
  assert.equal(world.sockets.length, 1, "nothing connects in the cache");
  world.pageEvent("pageshow", true);
  assert.equal(world.sockets.length, 2, "without a wait");
  world.socket.open();
  await settle();
  assert.equal(world.socket.sent[0].session, session);
  world.admit({ resumed: true, last_cseq: 2 });
  assert.deepEqual(
    world.of("joined").map(({ how }) => how),
    ["resumed"],
  );
});

test("a page that is closed or loaded anew changes nothing", async () => {
  const world = new World();
  await world.enter();
  world.pageEvent("pagehide", false);
  world.pageEvent("pageshow", false);
  await world.clock.advance(60_000);
  assert.equal(world.socket.closedWith, undefined);
  assert.deepEqual([world.client.state, world.sockets.length], ["joined", 1]);
});

test("a page in the cache does not connect, whatever was under way", async () => {
  const stages = [
    // Waiting for the next try, connecting, and waiting for the answer to the join.
    async (world) => {
      await world.enter();
      world.socket.drop();
    },
    async (world) => {
      await world.enter();
      world.socket.drop();
      await world.clock.advance(500);
    },
    async (world) => {
      await world.enter();
      world.socket.drop();
      await world.reconnect();
    },
    async (world) => {
      world.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: 1e6 }).catch(() => {});
    },
  ];
  for (const stage of stages) {
    const world = new World();
    await stage(world);
    world.pageEvent("pagehide", true);
    const { length } = world.sockets;
    if (world.socket.readyState < 3) {
      assert.ok(world.socket.closedWith === 4900 || world.socket.readyState === 3);
      world.socket.drop(4900);
    }
    await world.clock.advance(60_000);
    assert.equal(world.sockets.length, length);
    world.pageEvent("pageshow", true);
    assert.equal(world.sockets.length, length + 1);
  }
});

test("a restored page keeps a wait that the server has asked for", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "server_shutdown", message: "", retry_after_ms: 5000 });
  world.socket.drop(1001);
  world.pageEvent("pagehide", true);
  await world.clock.advance(1000);
  world.pageEvent("pageshow", true);
  assert.equal(world.sockets.length, 1);
  await world.clock.advance(4000);
  assert.equal(world.sockets.length, 2);
});

test("a page that was longer in the cache than the server's wait is back at once", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "server_shutdown", message: "", retry_after_ms: 5000 });
  world.socket.drop(1001);
  world.pageEvent("pagehide", true);
  await world.clock.advance(6000);
  assert.equal(world.sockets.length, 1);
  world.pageEvent("pageshow", true);
  assert.equal(world.sockets.length, 2);
});

test("without reconnect a page that goes into the cache leaves", async () => {
  const world = new World({ reconnect: false });
  await world.enter();
  world.pageEvent("pagehide", true);
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.of("ended").length, 1);
  assert.equal(world.client.state, "idle");
});

test("calls that are made on the way into the cache are sent afterwards", async () => {
  const world = new World();
  await world.enter();
  world.pageEvent("pagehide", true);
  const saying = world.client.broadcast({ n: 1 });
  world.pageEvent("pageshow", true);
  world.socket.open();
  await settle();
  world.admit({ resumed: true, last_cseq: 2 });
  world.socket.answer("broadcast");
  await saying;
});

test("outside a room nothing listens to the page", async () => {
  const heard = new Set();
  const page = {
    document: { visibilityState: "visible" },
    addEventListener: (type) => heard.add(type),
    removeEventListener: (type) => heard.delete(type),
  };
  const world = new World({ page });
  assert.equal(heard.size, 0);
  await world.enter();
  assert.deepEqual([...heard].sort(), ["pagehide", "pageshow", "visibilitychange"]);
  const leaving = world.client.leave();
  world.socket.answer("channel.leave");
  await leaving;
  assert.equal(heard.size, 0);
});

// ---------------------------------------------------------------- back from the background

/** The page is turned to. */
const shown = (world) => {
  world.page.document.visibilityState = "visible";
  world.pageEvent("visibilitychange");
};

test("a page that is turned to probes at once, and gives a dead connection up", async () => {
  for (const how of [shown, (world) => world.pageEvent("pageshow", true)]) {
    const world = new World();
    await world.enter();
    world.page.document.visibilityState = "hidden";
    world.pageEvent("visibilitychange");
    assert.equal(world.socket.asked("media_server.dump").length, 0, "not when it is hidden");
    await world.clock.advance(3_600_000);
    how(world);
    assert.equal(world.socket.asked("media_server.dump").length, 1);
    await world.clock.advance(3000);
    assert.equal(world.socket.closedWith, 4900);
    assert.equal(world.client.state, "reconnecting");
  }
});

test("a page that is turned to over a connection that lives stays there", async () => {
  const world = new World();
  await world.enter();
  for (let i = 0; i < 20; i += 1) shown(world);
  assert.equal(world.socket.asked("media_server.dump").length, 1, "one question for many turns");
  world.socket.answer("media_server.dump", { media_server: {} });
  await world.clock.advance(10_000);
  assert.deepEqual([world.client.state, world.sockets.length], ["joined", 1]);
});

test("a page that is turned to while it waits for the next try does not wait", async () => {
  const world = new World();
  await world.enter();
  world.chance = 0.999;
  world.socket.drop();
  shown(world);
  assert.equal(world.sockets.length, 2);
});

test("online ends a connect that hangs, and starts another", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  await world.clock.advance(500);
  const hangs = world.socket;
  world.network.dispatchEvent(new Event("offline"));
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 3);
  assert.equal(hangs.closedWith, 4900);
  // What it says later is of no matter.
  hangs.open();
  hangs.drop();
  // Many such events in a short time start no connect each, and a later one does.
  for (let i = 0; i < 10; i += 1) world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 3);
  await world.clock.advance(1000);
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 4);
  world.socket.open();
  await settle();
  // The answer to the join does not come over the network that is gone.
  await world.clock.advance(2000);
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 5);
  assert.deepEqual(world.of("reconnecting").length, 1);
  world.socket.open();
  await settle();
  world.admit({ resumed: true, last_cseq: 2 });
  assert.equal(world.client.state, "joined");
});

test("a first join that hangs while it connects is started anew as well", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  await settle();
  // Once it is sent it may have been carried out.
  await world.clock.advance(2000);
  world.network.dispatchEvent(new Event("online"));
  assert.equal(world.sockets.length, 2);
  world.admit();
  world.dump(member("anna"));
  await joining;
});

// ---------------------------------------------------------------- the clock

test("a wall clock that is set changes neither the heartbeat nor the waits", async () => {
  for (const set of [-3_600_000, 3_600_000]) {
    let offset = 0;
    const world = new World({ heartbeatMs: 15_000, heartbeatTimeoutMs: 8000 });
    const { clock } = world;
    const other = new World({
      heartbeatMs: 15_000,
      heartbeatTimeoutMs: 8000,
      setTimeout: clock.setTimeout,
      clearTimeout: clock.clearTimeout,
      now: () => 1.7e12 + clock.now + offset,
      monotonic: () => clock.now,
    });
    other.clock = clock;
    await other.enter();
    const times = [];
    other.client.on("message", ({ time }) => times.push(time));
    await clock.advance(10_000);
    other.socket.event("weather", {}, 2);
    offset = set;
    await clock.advance(14_999);
    assert.equal(other.socket.asked("media_server.dump").length, 0);
    await clock.advance(1);
    assert.equal(other.socket.asked("media_server.dump").length, 1);
    await clock.advance(8000);
    assert.equal(other.socket.closedWith, 4900);
    // The times of messages are those of the wall clock.
    assert.equal(times[1], 1.7e12 + clock.now - 8000 + set);
  }
});

test("by default time is measured by a clock that cannot be set", async () => {
  const { MeetingClient } = await import("../client.js");
  const client = new MeetingClient("ws://server.example.org/ws", { WebSocket: class {} });
  const before = performance.now();
  const now = client._now();
  assert.ok(now >= before && now <= performance.now());
  const { now: wall } = Date;
  try {
    Date.now = () => 0;
    assert.ok(client._now() >= now);
  } finally {
    Date.now = wall;
  }
});

// ---------------------------------------------------------------- no media server

test("where there is no media server any more the server is asked until there is one", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "media_server_down", message: "" });
  const waits = [];
  for (let i = 0; i < 9; i += 1) {
    world.socket.answer("media_server.dump", {}, 503, "no healthy media server");
    const before = world.clock.now;
    while (world.socket.asked("media_server.dump").length === 0) await world.clock.advance(500);
    waits.push(world.clock.now - before);
  }
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
  assert.deepEqual(world.of("mediaServer"), [{}]);
  world.socket.answer("media_server.dump", { media_server: { ws: "ws://other" } });
  assert.deepEqual(world.of("mediaServer"), [{}, { ws: "ws://other" }]);
  await world.clock.advance(600_000);
  assert.equal(world.socket.asked("media_server.dump").length, 0);
  assert.equal(world.clock.waiting, 0);
  // The next failure begins with short waits.
  world.socket.event("error", { type: "media_server_down", message: "" });
  world.socket.answer("media_server.dump", {}, 503, "none");
  await world.clock.advance(1000);
  assert.equal(world.socket.asked("media_server.dump").length, 1);
});

test("an answer that says no more than that the server is busy is no answer", async () => {
  for (const answer of [[{}, 429, "slow down"], [{ media_server: {} }], [{ media_server: 5 }]]) {
    const world = new World();
    await world.enter();
    world.socket.event("error", { type: "media_server_down", message: "" });
    world.socket.answer("media_server.dump", ...answer);
    await world.clock.advance(1000);
    world.socket.answer("media_server.dump", { media_server: { ws: "ws://other" } });
    assert.deepEqual(world.client.mediaServerAddresses, { ws: "ws://other" });
  }
});

test("it asks on after a loss, and not after the room was left", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "media_server_down", message: "" });
  world.socket.answer("media_server.dump", {}, 503, "none");
  world.socket.drop();
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 3, media_server: {} });
  await world.clock.advance(4000);
  assert.equal(world.socket.asked("media_server.dump").length, 1);
  world.socket.answer("media_server.dump", {}, 503, "none");
  const leaving = world.client.leave();
  world.socket.answer("channel.leave");
  await leaving;
  await world.clock.advance(600_000);
  assert.equal(world.socket.asked("media_server.dump").length, 0);
});

test("a room that never had a media server is not asked for one", async () => {
  const world = new World();
  const joining = watch(world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" }));
  world.socket.open();
  world.admit({ media_server: {} });
  world.dump(member("anna"));
  await settle();
  assert.ok(joining.settled && !joining.error);
  await world.clock.advance(600_000);
  assert.equal(world.socket.asked("media_server.dump").length, 0);
});
