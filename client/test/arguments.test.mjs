// Listeners and arguments: what Node and browsers do with them, and that a call which cannot be
// carried out is a MeetingError that changes nothing.

import assert from "node:assert/strict";
import test from "node:test";
import { MeetingClient, MeetingError } from "../client.js";
import { World, camera, member, settle, watch } from "./fake.mjs";

/** Something happens in the room. */
const happens = (world, n) =>
  world.socket.event(
    "broadcast",
    { source_endpoint: { endpoint: "b", device: "" }, payload: { n } },
    n,
  );

// ---------------------------------------------------------------- listeners

test("off stops a listener that was added with once", async () => {
  const world = new World();
  await world.enter();
  const heard = [];
  const listener = ({ payload }) => heard.push(payload.n);
  world.client.once("broadcast", listener);
  world.client.off("broadcast", listener);
  happens(world, 2);
  assert.deepEqual(heard, []);
  world.client.once("broadcast", listener);
  happens(world, 3);
  happens(world, 4);
  assert.deepEqual(heard, [3]);
});

test("an equal listener added twice is called twice, and each stop stops its own", async () => {
  const world = new World();
  await world.enter();
  let calls = 0;
  const listener = () => {
    calls += 1;
  };
  const stops = [world.client.on("broadcast", listener), world.client.on("broadcast", listener)];
  happens(world, 2);
  assert.equal(calls, 2);
  stops[0]();
  stops[0]();
  happens(world, 3);
  assert.equal(calls, 3, "one stop, however often it is called, stops one");
  world.client.on("broadcast", listener);
  world.client.off("broadcast", listener);
  happens(world, 4);
  assert.equal(calls, 4, "off stops one");
  stops[1]();
  world.client.off("broadcast", listener);
  happens(world, 5);
  assert.equal(calls, 4);
});

test("of once and on with an equal listener, off stops the one that was added last", async () => {
  const world = new World();
  await world.enter();
  let calls = 0;
  const listener = () => {
    calls += 1;
  };
  world.client.on("broadcast", listener);
  world.client.once("broadcast", listener);
  world.client.off("broadcast", listener);
  happens(world, 2);
  happens(world, 3);
  assert.equal(calls, 2);
});

test("a listener that another one stops is not called, one that it adds not yet", async () => {
  const world = new World();
  await world.enter();
  const heard = [];
  const added = () => heard.push("added");
  world.client.once("broadcast", () => {
    stop();
    world.client.on("broadcast", added);
  });
  const stop = world.client.on("broadcast", () => heard.push("stopped"));
  happens(world, 2);
  assert.deepEqual(heard, []);
  happens(world, 3);
  assert.deepEqual(heard, ["added"]);
});

test("a listener of once that causes the event again is called once", async () => {
  const world = new World();
  await world.enter();
  let calls = 0;
  world.client.once("message", () => {
    calls += 1;
    world.client.broadcast({}).catch(() => {});
  });
  happens(world, 2);
  assert.equal(calls, 1);
});

test("an event that does not exist and a listener that is no function are usage errors", () => {
  const { client } = new World();
  for (const method of ["on", "once", "off"]) {
    for (const name of [
      "typo",
      "__proto__",
      "constructor",
      "",
      undefined,
      null,
      Symbol("state"),
      {
        toString() {
          throw new Error("no");
        },
      },
    ]) {
      assert.throws(
        () => client[method](name, () => {}),
        (error) => error instanceof MeetingError && error.kind === "usage",
      );
    }
    for (const listener of [undefined, null, {}, "text", { handleEvent() {} }]) {
      assert.throws(
        () => client[method]("state", listener),
        (error) => error instanceof MeetingError && error.kind === "usage",
      );
    }
  }
  assert.throws(
    () => client.on("member", () => {}),
    /members/,
    "it names the events that there are",
  );
  client.off("state", () => {});
});

// ---------------------------------------------------------------- arguments

const ring = {};
ring.ring = ring;

/** Values that JSON cannot write, with the error that `JSON.stringify` throws for each. */
const UNWRITABLE = [
  ["a BigInt", () => ({ n: 1n })],
  ["a ring", () => ring],
  [
    "a toJSON that throws",
    () => ({
      toJSON() {
        throw new RangeError("mine");
      },
    }),
  ],
  [
    "a toJSON that throws nothing",
    () => ({
      toJSON() {
        throw undefined;
      },
    }),
  ],
  [
    "a getter that throws",
    () => ({
      get stream_id() {
        throw new RangeError("mine");
      },
    }),
  ],
  [
    "a proxy that throws",
    () =>
      new Proxy(
        {},
        {
          ownKeys() {
            throw new RangeError("mine");
          },
        },
      ),
  ],
  ["a toJSON that returns no object", () => ({ toJSON: () => 7 })],
  ["a toJSON that returns nothing", () => ({ toJSON: () => undefined })],
  [
    "a nesting too deep",
    () => {
      let deep = {};
      for (let i = 0; i < 100_000; i += 1) deep = { deep };
      return deep;
    },
  ],
  ["a function", () => () => {}],
  ["a symbol", () => Symbol("x")],
  ["a BigInt itself", () => 5n],
];

/** What a failed call must not change. */
const seen = ({ client, clock, socket }) => ({
  state: client.state,
  stream: client.stream,
  requests: client._requests.size,
  stay: client._stay,
  timers: clock.waiting,
  sent: socket ? socket.sent.length : 0,
  connects: client._connects.size,
  cseq: client._cseq,
});

test("an argument that JSON cannot write rejects, and changes nothing", async () => {
  for (const [what, make] of UNWRITABLE) {
    const world = new World();
    const { client } = world;
    const outside = seen(world);
    for (const call of [
      () => client.join(make()),
      () => client.join({ app: "demo", channel: "lobby", device: make() }),
      () => client.join({ app: "demo", channel: "lobby", role: make() }),
      () => client.join({ app: make(), channel: "lobby" }),
      () => client.join({ app: "demo", channel: "lobby", endpoint: make() }),
      () => client.connect({ timeoutMs: make() }),
      () => client.join({ app: "demo", channel: "lobby" }, { timeoutMs: make() }),
    ]) {
      const fate = watch(call());
      await settle();
      assert.ok(
        fate.error instanceof MeetingError && fate.error.kind === "usage",
        `${what}: ${fate.error}`,
      );
      assert.deepEqual(seen(world), outside, what);
    }
    await world.enter();
    const inside = seen(world);
    for (const call of [
      () => client.broadcast(make()),
      () => client.publish(make()),
      () => client.publish({ ...camera(), more: make() }),
      () => client.unpublish(make()),
      () => client.mediaServer(make()),
      () => client.members({ timeoutMs: make() }),
      () => client.broadcast({}, { timeoutMs: make() }),
      () => client.leave({ timeoutMs: make() }),
    ]) {
      const fate = watch(call());
      await settle();
      // Within an object JSON leaves functions and symbols out, in Node and in browsers.
      if (
        fate.error === undefined &&
        /function|symbol|returns nothing|returns no object/.test(what)
      ) {
        world.socket.answer("stream.add");
        world.client._stream = null;
        Object.assign(inside, { ...seen(world), stream: null });
        continue;
      }
      assert.ok(
        fate.error instanceof MeetingError && fate.error.kind === "usage",
        `${what}: ${fate.error}`,
      );
      assert.deepEqual(seen(world), inside, what);
    }
  }
});

test("a usage error says what was thrown", async () => {
  const world = new World();
  await world.enter();
  const cause = new RangeError("mine");
  const throws = {
    toJSON() {
      throw cause;
    },
  };
  for (const call of [
    () => world.client.broadcast(throws),
    () => world.client.publish(throws),
    () => world.client.publish({ ...camera(), more: throws }),
  ]) {
    const fate = watch(call());
    await settle();
    assert.equal(fate.error.cause, cause);
  }
});

test("options that are none are usage errors, and null is as none", async () => {
  const world = new World();
  await world.enter();
  for (const timeoutMs of ["10", NaN, -1, 5n, {}, null]) {
    for (const call of [
      (o) => world.client.broadcast({}, o),
      (o) => world.client.leave(o),
      (o) => world.client.connect(o),
    ]) {
      await assert.rejects(call({ timeoutMs }), { name: "MeetingError", kind: "usage" });
    }
  }
  assert.equal(world.client.state, "joined");
  const saying = world.client.broadcast({}, null);
  world.socket.answer("broadcast");
  await saying;
  const asking = world.client.members(null);
  world.dump(member("anna"));
  await asking;
  const leaving = world.client.leave(null);
  world.socket.answer("channel.leave");
  await leaving;
});

test("code in the arguments may call the client", async () => {
  for (const act of ["close", "leave", "unpublish"]) {
    const world = new World();
    await world.enter();
    const { client } = world;
    const inner = [];
    const payload = {
      toJSON() {
        inner.push(watch(client[act]()));
        return { n: 1 };
      },
    };
    const calls = [
      watch(client.broadcast(payload)),
      watch(client.publish({ ...camera(), more: payload })),
    ];
    if (act === "unpublish") world.socket.answer("broadcast");
    if (act === "unpublish") world.socket.answer("stream.add");
    if (act === "leave") world.socket.answer("channel.leave");
    if (act === "close") world.socket.drop(1000);
    await settle();
    for (const { settled, error } of [...calls, ...inner]) {
      assert.ok(settled, act);
      assert.ok(error === undefined || error instanceof MeetingError, `${act}: ${error}`);
    }
    client.close();
    assert.equal(client.state, "closed");
  }
  const world = new World();
  const first = [];
  const params = {
    app: "demo",
    get channel() {
      if (first.length === 0) first.push(watch(world.client.join({ app: "demo", channel: "x" })));
      return "lobby";
    },
  };
  await assert.rejects(world.client.join(params), { kind: "usage" });
  assert.equal(first[0].settled, false, "the join inside goes on");
  const closing = new World();
  const closes = {
    app: "demo",
    get channel() {
      closing.client.close();
      return "lobby";
    },
  };
  await assert.rejects(closing.client.join(closes), { kind: "closed" });
  assert.equal(closing.sockets.length, 0);
});

test("a stream is what JSON makes of it", async () => {
  const world = new World();
  await world.enter();
  const given = { ...camera(), left: undefined, out: () => {} };
  const publishing = world.client.publish(given);
  given.stream_id = "changed";
  world.socket.answer("stream.add");
  await publishing;
  assert.deepEqual(world.client.stream, camera());
  assert.ok(Object.isFrozen(world.client.stream));
});

test("an address that is none is a usage error", () => {
  for (const url of ["", "no address", undefined, null, Symbol("x"), 5n]) {
    assert.throws(
      () => new MeetingClient(url, { WebSocket: class {} }),
      (error) => error instanceof MeetingError && error.kind === "usage",
    );
  }
});
