// What is asked while the connection is lost: it is sent one by one afterwards, in order, so that
// the server's rate limit does not end the session, and its number and its bytes are bounded.

import assert from "node:assert/strict";
import test from "node:test";
import { World, camera, member, settle, watch } from "./fake.mjs";

/** In the room, without a connection. */
async function offline(options) {
  const world = new World(options);
  await world.enter();
  world.socket.drop();
  return world;
}

const back = async (world, last_cseq = 2) => {
  await world.reconnect();
  world.admit({ resumed: true, last_cseq });
  await settle();
};

const sent = (world) =>
  world.socket.sent.filter(({ method }) => method === "broadcast").map(({ data }) => data.n);

test("what waits is sent one by one, and new calls go behind it", async () => {
  const world = await offline();
  const promises = [1, 2, 3].map((n) => world.client.broadcast({ n }));
  await back(world);
  promises.push(world.client.broadcast({ n: 4 }));
  for (const n of [1, 2, 3, 4]) {
    assert.deepEqual(sent(world), [1, 2, 3, 4].slice(0, n));
    world.socket.answer("broadcast");
    await settle();
  }
  await Promise.all(promises);
  // With nothing waiting, calls are sent at once again.
  world.client.broadcast({ n: 5 }).catch(() => {});
  world.client.broadcast({ n: 6 }).catch(() => {});
  assert.deepEqual(sent(world), [1, 2, 3, 4, 5, 6]);
});

test("a call that is on its way is still before those that are made now", async () => {
  const world = await offline();
  const first = world.client.broadcast({ n: 1 });
  await back(world);
  const second = world.client.broadcast({ n: 2 });
  assert.deepEqual(sent(world), [1], "the first may still be refused");
  world.socket.answer("broadcast", {}, 429, "slow down");
  await world.clock.advance(1000);
  world.socket.answer("broadcast");
  world.socket.answer("broadcast");
  assert.deepEqual(sent(world), [1, 1, 2]);
  await Promise.all([first, second]);
});

test("after a 429 the same request is sent again a second later", async () => {
  const world = await offline();
  const promises = [1, 2].map((n) => world.client.broadcast({ n }));
  await back(world);
  for (let i = 0; i < 3; i += 1) {
    world.socket.answer("broadcast", {}, 429, "slow down");
    await world.clock.advance(999);
    assert.equal(world.socket.asked("broadcast").length, 0);
    await world.clock.advance(1);
    assert.equal(world.socket.asked("broadcast").length, 1);
  }
  world.socket.answer("broadcast");
  world.socket.answer("broadcast");
  assert.deepEqual(sent(world), [1, 1, 1, 1, 2]);
  await Promise.all(promises);
});

test("a loss while a request waits for its second try loses nothing", async () => {
  const world = await offline();
  const promises = [1, 2].map((n) => world.client.broadcast({ n }));
  await back(world);
  const { cseq } = world.socket.answer("broadcast", {}, 429, "slow down");
  world.socket.drop();
  // The refused request has not passed the rate limit, so the server does not count it.
  await back(world, cseq - 1);
  world.socket.answer("broadcast");
  world.socket.answer("broadcast");
  assert.deepEqual(sent(world), [1, 2]);
  await Promise.all(promises);
  assert.equal(world.clock.waiting, 0);
});

test("the order holds between methods, also where the list decides", async () => {
  const world = new World();
  await world.enter();
  const promises = [world.client.publish(camera())];
  const { cseq } = world.socket.sent.at(-1);
  promises.push(world.client.broadcast({ n: 1 }), world.client.unpublish());
  world.socket.drop();
  await back(world, cseq);
  assert.deepEqual(
    world.socket.methods,
    ["channel.join", "channel.dump"],
    "nothing overtakes the publish",
  );
  world.dump(member("anna"));
  for (const method of ["stream.add", "broadcast", "stream.delete"]) {
    assert.equal(world.socket.methods.at(-1), method);
    world.socket.answer(method);
  }
  await Promise.all(promises);
});

test("every kind of request that waits is sent again after a 429", async () => {
  const world = await offline();
  const promises = [
    world.client.publish(camera()),
    world.client.members(),
    world.client.mediaServer(),
    world.client.unpublish(),
    world.client.leave(),
  ];
  await back(world);
  for (const [method, data] of [
    ["stream.add", {}],
    ["channel.dump", { endpoint_list: [member("anna", camera())] }],
    ["media_server.dump", { media_server: {} }],
    ["stream.delete", {}],
    ["channel.leave", {}],
  ]) {
    world.socket.answer(method, {}, 429, "slow down");
    await world.clock.advance(1000);
    world.socket.answer(method, data);
    await settle();
  }
  await Promise.all(promises);
  assert.equal(world.client.state, "connected");
});

test("while it waits a call may time out, and the next one is sent", async () => {
  const world = await offline();
  const short = watch(world.client.broadcast({ n: 1 }, { timeoutMs: 700 }));
  const long = world.client.broadcast({ n: 2 });
  await back(world);
  world.socket.answer("broadcast", {}, 429, "slow down");
  await world.clock.advance(700);
  assert.equal(short.error.kind, "timeout");
  await world.clock.advance(300);
  world.socket.answer("broadcast");
  assert.deepEqual(sent(world), [1, 2]);
  await long;
});

test("a stream request that timed out on its way holds up nothing", async () => {
  const world = await offline();
  const fate = watch(world.client.publish(camera(), { timeoutMs: 2000 }));
  const saying = world.client.broadcast({ n: 1 });
  await back(world);
  world.socket.event("weather", {}, 2);
  await world.clock.advance(2000);
  assert.equal(fate.error.kind, "timeout");
  world.socket.answer("broadcast");
  await saying;
});

test("at most 1,000 calls wait", async () => {
  const world = await offline();
  const promises = Array.from({ length: 1000 }, (_, n) =>
    world.client.broadcast({ n }, { timeoutMs: 600_000 }),
  );
  for (const call of [
    () => world.client.broadcast({}),
    () => world.client.publish(camera()),
    () => world.client.members(),
  ]) {
    await assert.rejects(call(), { name: "MeetingError", kind: "queue_full", err: 0 });
  }
  // They are the same calls whether the connection is lost once more or not.
  await back(world);
  world.socket.answer("broadcast");
  promises.push(world.client.broadcast({ n: 1000 }, { timeoutMs: 600_000 }));
  await assert.rejects(world.client.broadcast({}), { kind: "queue_full" });
  for (let n = 1; n <= 1000; n += 1) {
    world.socket.answer("broadcast");
    await settle();
  }
  await Promise.all(promises);
  assert.deepEqual(
    sent(world),
    Array.from({ length: 1001 }, (_, n) => n),
  );
});

test("at most 1 MiB waits, in bytes", async () => {
  const world = await offline();
  const text = "你".repeat(16_384);
  let fits = 0;
  for (; fits < 100; fits += 1) {
    const fate = watch(world.client.broadcast({ text }));
    await settle();
    if (fate.settled) {
      assert.equal(fate.error.kind, "queue_full");
      break;
    }
  }
  assert.equal(fits, Math.floor((1024 * 1024) / (3 * 16_384 + 11)));
  // A smaller one still fits, and leaving is always possible.
  const small = watch(world.client.broadcast({}));
  await settle();
  assert.equal(small.settled, false);
  const leaving = world.client.leave();
  world.client.close();
  await leaving;
});

test("a server with a rate limit gets 450 broadcasts in order, each once", async () => {
  const world = await offline();
  const promises = Array.from({ length: 450 }, (_, n) =>
    world.client.broadcast({ n }, { timeoutMs: 60_000 }),
  );
  await back(world);
  let tokens = 200;
  let last = world.clock.now;
  const taken = [];
  let refused = 0;
  while (taken.length < 450) {
    tokens = Math.min(200, tokens + (world.clock.now - last) / 10);
    last = world.clock.now;
    const [request] = world.socket.asked("broadcast");
    if (!request) {
      await world.clock.advance(100);
    } else if (tokens >= 1) {
      tokens -= 1;
      taken.push(world.socket.answer("broadcast").data.n);
      await settle();
    } else {
      refused += 1;
      world.socket.answer("broadcast", {}, 429, "slow down");
    }
  }
  await Promise.all(promises);
  assert.deepEqual(
    taken,
    Array.from({ length: 450 }, (_, n) => n),
  );
  assert.equal(refused, 3);
});
