// A broken or hostile server: whatever it sends, nothing is thrown past the library, every promise
// settles, and nothing that the library keeps grows without bound.

import assert from "node:assert/strict";
import test from "node:test";
import { World, camera, member, settle, watch } from "./fake.mjs";

/** The same numbers for the same seed, from 0 up to 1. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Runs `act` and returns the promises that were rejected in it without a handler. */
async function unhandledIn(act) {
  const unhandled = [];
  const note = (error) => unhandled.push(error);
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", note);
  try {
    await act();
    await settle();
  } finally {
    process.removeListener("unhandledRejection", note);
    for (const other of others) process.on("unhandledRejection", other);
  }
  return unhandled;
}

// ---------------------------------------------------------------- one malformed message each

/** Values of every JSON type, and texts that name properties which every object inherits. */
const VALUES = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e300,
  2 ** 53,
  "",
  "x",
  "__proto__",
  "constructor",
  "toString",
  [],
  [null],
  [[]],
  {},
  { toString: 1 },
  { endpoint: 1 },
  { __proto__: null, length: 1e9 },
  "\u0000",
  "\ud800",
];

/** Each message that is `message` with one part replaced by one of `VALUES`, or left out. */
function* malformed(message) {
  const places = [];
  const walk = (value, path) => {
    if (path.length > 0) places.push(path);
    if (typeof value === "object" && value !== null)
      for (const key of Object.keys(value)) walk(value[key], [...path, key]);
  };
  walk(message, []);
  for (const path of places) {
    for (const value of [...VALUES, undefined]) {
      const copy = structuredClone(message);
      const last = path.at(-1);
      const parent = path.slice(0, -1).reduce((object, key) => object[key], copy);
      parent[last] = value;
      yield copy;
    }
  }
}

const row = () => member("ben", camera("b1"), "relayer", "d2");

const EVENTS = [
  {
    version: 0,
    cseq: 7,
    event: "endpoint",
    session: "s",
    data: { endpoint: "ben", device: "", stat: "join" },
  },
  {
    version: 0,
    cseq: 7,
    event: "stream",
    session: "s",
    data: { endpoint: "ben", device: "", stream: "b1", stat: "publish" },
  },
  {
    version: 0,
    cseq: 7,
    event: "broadcast",
    session: "s",
    data: { source_endpoint: { endpoint: "ben", device: "" }, payload: { n: 1 } },
  },
  {
    version: 0,
    cseq: 0,
    event: "error",
    session: "s",
    data: { type: "server_shutdown", message: "m", retry_after_ms: 1000 },
  },
  {
    version: 0,
    cseq: 0,
    event: "error",
    session: "s",
    data: { type: "media_server_down", message: "m" },
  },
];

test("an event of any shape is taken, reported or ignored", async () => {
  let reported = 0;
  for (const event of EVENTS) {
    for (const message of malformed(event)) {
      const world = new World();
      await world.enter({ others: [member("ben")] });
      world.socket.receive(message);
      // It is still in the room, or on its way back.
      assert.ok(["joined", "reconnecting"].includes(world.client.state), JSON.stringify(message));
      for (const { endpoint, device, stream } of world.client.roster) {
        assert.ok(
          typeof endpoint === "string" && typeof device === "string",
          JSON.stringify(message),
        );
        assert.ok(stream === null || typeof stream.stream_id === "string", JSON.stringify(message));
      }
      for (const { number } of [
        ...world.of("endpoint"),
        ...world.of("stream"),
        ...world.of("broadcast"),
      ]) {
        assert.ok(Number.isSafeInteger(number), JSON.stringify(message));
      }
      for (const { type, message: words } of world.of("error")) {
        assert.deepEqual(
          [typeof type, typeof words],
          ["string", "string"],
          JSON.stringify(message),
        );
        if (type === "invalid_message") reported += 1;
      }
      world.client.close();
      world.socket.drop();
      assert.equal(world.clock.waiting, 0, JSON.stringify(message));
    }
  }
  assert.ok(reported > 200, String(reported));
});

test("after an event that is not valid the list of members is asked", async () => {
  const world = new World();
  await world.enter({ others: [member("ben")] });
  for (let i = 0; i < 100; i += 1)
    world.socket.event("endpoint", { endpoint: 5, stat: "leave" }, 2);
  await world.clock.advance(3000);
  assert.equal(world.socket.asked("channel.dump").length, 1);
  world.dump(member("anna"));
  assert.deepEqual(world.roster, ["anna"]);
});

test("an unknown stat is no leave and no unpublish", async () => {
  const world = new World();
  await world.enter({ others: [member("ben", camera("b1"))] });
  world.socket.event("endpoint", { endpoint: "ben", device: "", stat: "away" }, 2);
  world.socket.event("stream", { endpoint: "ben", device: "", stream: "b1", stat: "paused" }, 3);
  assert.deepEqual(world.names, []);
  assert.deepEqual(world.roster, ["ben", "anna"]);
  assert.deepEqual(world.client.roster[0].stream, camera("b1"));
});

test("an answer of any shape resolves or rejects its request", async () => {
  const calls = [
    ["channel.dump", (c) => c.members(), { endpoint_list: [row(), member("anna")] }],
    ["media_server.dump", (c) => c.mediaServer(), { media_server: { ws: "ws://b" } }],
    ["media_server.dump", (c) => c.mediaServer("rtsp"), { media_server: { rtsp: "rtsp://b" } }],
    ["stream.add", (c) => c.publish(camera()), {}],
    ["stream.delete", (c) => c.unpublish("anna-1"), {}],
    ["broadcast", (c) => c.broadcast({}), {}],
    ["channel.leave", (c) => c.leave(), {}],
  ];
  for (const [method, call, data] of calls) {
    for (const message of malformed({ version: 0, cseq: 7, err: 0, err_msg: "ok", data })) {
      const world = new World();
      await world.enter();
      const fate = watch(call(world.client));
      const [request] = world.socket.asked(method);
      world.socket.receive({ ...message, ...(message.cseq === 7 ? { cseq: request.cseq } : {}) });
      await settle();
      if (!fate.settled) await world.clock.advance(60_000);
      assert.ok(fate.settled, JSON.stringify(message));
      if (fate.error) {
        assert.equal(fate.error.name, "MeetingError", JSON.stringify(message));
        assert.ok(
          ["refused", "protocol", "timeout", "closed"].includes(fate.error.kind),
          fate.error.kind,
        );
        assert.equal(typeof fate.error.message, "string");
      }
      for (const address of Object.values(world.client.mediaServerAddresses))
        assert.equal(typeof address, "string");
      world.client.close();
      world.socket.drop();
      assert.equal(world.clock.waiting, 0, JSON.stringify(message));
    }
  }
});

test("an answer to the join of any shape lets the join end in time", async () => {
  const data = {
    session: "s",
    media_server: { ws: "ws://b" },
    endpoint: "anna",
    last_event: 1,
    resumed: false,
    last_cseq: 1,
  };
  for (const resumed of [false, true]) {
    for (const message of malformed({
      version: 0,
      cseq: 1,
      err: 0,
      err_msg: "ok",
      data: { ...data, resumed },
    })) {
      const world = new World();
      const joining = watch(world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" }));
      world.socket.open();
      world.socket.receive(message);
      await settle();
      if (world.socket.readyState === 1 && world.socket.asked("channel.dump").length > 0)
        world.dump(member("anna"));
      await world.clock.advance(60_000);
      assert.ok(joining.settled, JSON.stringify(message));
      if (joining.error) assert.equal(joining.error.name, "MeetingError");
      else
        assert.deepEqual(
          [typeof joining.value.session, typeof joining.value.endpoint],
          ["string", "string"],
        );
    }
  }
});

test("a list that is not valid changes nothing, and is asked for again later", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.socket.open();
  world.admit();
  world.socket.answer("channel.dump", { endpoint_list: [member("anna"), member("anna")] });
  assert.deepEqual(
    (await joining).members.map(({ endpoint }) => endpoint),
    ["anna"],
  );
  let asked = 0;
  for (let i = 0; i < 60; i += 1) {
    await world.clock.advance(1000);
    for (; world.socket.asked("channel.dump").length > 0; asked += 1)
      world.socket.answer("channel.dump", { endpoint_list: 5 });
  }
  assert.ok(asked > 20 && asked <= 60, `${asked} in a minute`);
});

test("answers before and after their time harm nothing", async () => {
  const join = {
    version: 0,
    err: 0,
    err_msg: "ok",
    data: { session: "s", media_server: {}, endpoint: "x", last_event: 1, resumed: false },
  };
  const world = new World();
  const connecting = world.client.connect();
  world.socket.open();
  await connecting;
  for (const cseq of [null, 0, 1, "1", undefined]) world.socket.receive({ ...join, cseq });
  assert.equal(world.client.state, "connected");
  await world.enter();
  const { session } = world.client;
  // The answer to the join once more.
  world.socket.receive({ ...join, cseq: 1 });
  world.socket.receive({ ...join, cseq: 1, err: 401 });
  assert.deepEqual([world.client.state, world.client.session], ["joined", session]);
});

test("a message that is no text is no message", async () => {
  for (const data of [
    new ArrayBuffer(3),
    undefined,
    null,
    7,
    {
      toString() {
        throw new Error("no");
      },
    },
  ]) {
    const world = new World();
    await world.enter();
    const seen = [];
    world.client.on("message", ({ text }) => seen.push(text));
    world.socket.onmessage({ data });
    assert.equal(world.client.state, "reconnecting");
    assert.deepEqual(seen, []);
  }
});

// ---------------------------------------------------------------- waits

test("a wait that the server asks for is at least 1 s and at most 60 s", async () => {
  const cases = [
    [0, 1000],
    [-5, 1000],
    [999.5, 1000],
    [1000, 1000],
    [59999, 59999],
    [60001, 60000],
    [1e12, 60000],
  ];
  for (const [retry_after_ms, delayMs] of cases) {
    const world = new World();
    await world.enter();
    world.socket.event("error", { type: "server_shutdown", message: "", retry_after_ms });
    world.socket.drop(1001);
    assert.equal(world.of("reconnecting")[0].delayMs, delayMs, String(retry_after_ms));
    assert.equal(world.of("error")[0].retryAfterMs, delayMs);
  }
  const infinite = new World();
  await infinite.enter();
  infinite.socket.receive(
    '{"cseq":0,"event":"error","data":{"type":"server_shutdown","retry_after_ms":1e999}}',
  );
  infinite.socket.drop(1001);
  assert.equal(infinite.of("reconnecting")[0].delayMs, 60000);
  for (const retry_after_ms of [null, "5", {}, undefined]) {
    const world = new World();
    await world.enter();
    world.socket.event("error", { type: "server_shutdown", message: "", retry_after_ms });
    world.socket.drop(1001);
    assert.equal(world.of("reconnecting")[0].delayMs, 2500, "as if it had not said when");
  }
});

test("a time limit that is longer than a timer can be is not over at once", async () => {
  const asked = [];
  const world = new World();
  const { setTimeout } = world.clock;
  const spy = (callback, ms) => {
    asked.push(ms);
    return setTimeout(callback, ms);
  };
  const other = new World({ setTimeout: spy, clearTimeout: world.clock.clearTimeout });
  other.client.join({ app: "demo", channel: "lobby" }, { timeoutMs: Infinity }).catch(() => {});
  assert.ok(asked.length > 0 && asked.every((ms) => ms < 2 ** 31), asked.join());
});

// ---------------------------------------------------------------- what is kept

/** How much the client keeps that grows by what a server sends, or fails to send. */
function kept({ client }) {
  return {
    requests: client._requests.size,
    sent: client._link ? client._link.sent.size : 0,
    held: client._stay && client._stay.held ? client._stay.held.length : 0,
    news: client._news.length,
  };
}

test("events that wait for a list that does not come are bounded, and none is lost", async () => {
  for (const rejoins of [false, true]) {
    const world = new World();
    if (rejoins) {
      await world.enter();
      world.socket.drop();
      await world.reconnect();
      world.events.length = 0;
    } else {
      world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
      world.socket.open();
    }
    world.admit();
    let most = 0;
    for (let n = 1; n <= 50_000; n += 1) {
      world.socket.event(
        "broadcast",
        { source_endpoint: { endpoint: "ben", device: "" }, payload: { n } },
        n + 1,
      );
      most = Math.max(most, kept(world).held);
    }
    assert.ok(most <= 20_000, `${most} are held`);
    await world.clock.advance(0);
    assert.deepEqual(
      world.of("broadcast").map(({ payload }) => payload.n),
      Array.from({ length: 50_000 }, (_, i) => i + 1),
    );
  }
});

test("the length of the events that wait is bounded as well", async () => {
  const world = new World();
  world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.socket.open();
  world.admit();
  const text = "x".repeat(1024 * 1024);
  for (let n = 1; n <= 64; n += 1) {
    world.socket.event(
      "broadcast",
      { source_endpoint: { endpoint: "ben", device: "" }, payload: { text } },
      n + 1,
    );
    assert.ok(kept(world).held <= 17, String(kept(world).held));
  }
});

test("a list that does not come after a rejoin is not waited for without end", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  await world.reconnect();
  world.admit();
  for (let i = 0; i < 20; i += 1) {
    await world.clock.advance(1000);
    world.socket.event("weather", {}, i + 2);
  }
  assert.equal(world.client.state, "joined");
});

test("a server that reports media_server_down without end is asked once at a time", async () => {
  const world = new World();
  await world.enter();
  for (let i = 0; i < 1000; i += 1)
    world.socket.event("error", { type: "media_server_down", message: "" });
  assert.equal(world.socket.asked("media_server.dump").length, 1);
  assert.equal(kept(world).requests, 1);
});

test("requests that are never answered are not kept past their time", async () => {
  const world = new World();
  await world.enter();
  for (let i = 0; i < 500; i += 1) {
    world.client.broadcast({ i }, { timeoutMs: 100 }).catch(() => {});
    await world.clock.advance(50);
    world.socket.event("weather", {}, i + 2);
    assert.ok(kept(world).requests <= 3 && kept(world).sent <= 3, JSON.stringify(kept(world)));
  }
});

// ---------------------------------------------------------------- anything at any moment

const WORDS = [
  "endpoint",
  "stream",
  "broadcast",
  "error",
  "join",
  "leave",
  "publish",
  "unpublish",
  "anna",
  "ben",
  "anna-1",
  "",
  "x",
  "server_shutdown",
  "media_server_down",
  "endpoint_replaced",
  "removed",
  "rate_limited",
  "slow_consumer",
  "camera",
  "desktop",
  "normal",
  "__proto__",
  "constructor",
  "ok",
  "ws://b",
];

const KEYS = [
  "version",
  "cseq",
  "err",
  "err_msg",
  "data",
  "event",
  "session",
  "endpoint",
  "device",
  "stat",
  "stream",
  "stream_id",
  "type",
  "message",
  "retry_after_ms",
  "endpoint_list",
  "media_server",
  "last_event",
  "last_cseq",
  "resumed",
  "source_endpoint",
  "payload",
  "role",
  "has_video",
  "has_audio",
  "audio_codec",
  "toString",
  "toJSON",
  "then",
  "__proto__",
];

/** A server that sends anything, and an application that does anything; `seed` decides on both. */
async function chaos(seed, steps) {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const chance = (of) => next() < of;
  const world = new World({
    heartbeatMs: pick([0, 5000]),
    reconnect: { baseMs: pick([10, 1000]) },
  });
  const { client } = world;
  const fates = [];
  const call = (promise) => fates.push(watch(promise));

  const number = () =>
    pick([
      0,
      1,
      2,
      3,
      -1,
      1.5,
      1e12,
      1e300,
      2 ** 53,
      401,
      403,
      410,
      429,
      503,
      Math.floor(next() * 40),
    ]);
  const value = (depth) => {
    const kind = Math.floor(next() * (depth > 0 ? 7 : 5));
    if (kind === 0) return null;
    if (kind === 1) return chance(0.5);
    if (kind === 2) return number();
    if (kind < 5) return pick(WORDS);
    if (kind === 5) return Array.from({ length: Math.floor(next() * 3) }, () => value(depth - 1));
    return Object.fromEntries(
      Array.from({ length: Math.floor(next() * 5) }, () => [pick(KEYS), value(depth - 1)]),
    );
  };
  /** A message of the protocol, or one that is nearly so. */
  const message = () => {
    const pending = world.socket.sent.map(({ cseq }) => cseq);
    const good = chance(0.5)
      ? structuredClone(pick(EVENTS))
      : {
          version: 0,
          cseq: pick(pending.length ? pending : [1]),
          err: pick([0, 0, 0, 400, 401, 404, 429, 503]),
          err_msg: "m",
          data: pick([
            {},
            { endpoint_list: [row(), member("anna")] },
            { media_server: { ws: "ws://b" } },
            {
              session: "s",
              media_server: {},
              endpoint: "anna",
              last_event: 3,
              resumed: chance(0.5),
              last_cseq: number(),
            },
          ]),
        };
    if (good.event) good.cseq = Math.floor(next() * 100);
    if (chance(0.5)) return good;
    const where = pick([good, good.data]);
    where[pick(chance(0.7) ? Object.keys(where) : KEYS) ?? "x"] = value(3);
    return good;
  };
  const text = () => {
    const whole = JSON.stringify(chance(0.8) ? message() : value(4));
    return chance(0.05) ? whole.slice(0, Math.floor(next() * whole.length)) : whole;
  };

  const does = {
    receive: () => {
      if (world.socket?.readyState === 1) world.socket.receive(text());
    },
    honest: async () => {
      if (!world.socket || world.socket.readyState > 1) return;
      if (world.socket.readyState === 0) world.socket.open();
      await settle();
      if (world.socket.asked("channel.join").length)
        world.admit({ resumed: chance(0.5), last_cseq: Math.floor(next() * 30) });
      if (world.socket.asked("channel.dump").length) world.dump(member("anna"));
    },
    open: () => {
      if (world.socket?.readyState === 0) world.socket.open();
    },
    drop: () => {
      if (world.socket && world.socket.readyState !== 3)
        world.socket.drop(pick([1000, 1001, 1006, 1008, 1011, 4001, 4002, 4004, 4900]));
    },
    fail: () => {
      if (world.socket?.readyState === 0) world.socket.onerror({});
    },
    time: () => world.clock.advance(pick([0, 1, 50, 1000, 5000, 20_000])),
    network: () => {
      world.network.dispatchEvent(new Event(pick(["online", "offline"])));
    },
    page: () => {
      world.page.document.visibilityState = pick(["visible", "hidden"]);
      world.pageEvent(pick(["pagehide", "pageshow", "visibilitychange"]), chance(0.5));
    },
    join: () => {
      const token = pick([
        undefined,
        "t",
        () => "t",
        async () => "t",
        () => {
          throw null;
        },
        () => 5n,
        () => new Promise(() => {}),
      ]);
      call(
        client.join(
          { app: "demo", channel: "lobby", endpoint: pick(["anna", ""]), token },
          { timeoutMs: pick([10, 10_000]) },
        ),
      );
    },
    connect: () => call(client.connect()),
    leave: () => call(client.leave()),
    publish: () => call(client.publish(camera(), { timeoutMs: pick([10, 10_000]) })),
    unpublish: () => call(client.unpublish()),
    members: () => call(client.members()),
    mediaServer: () => call(client.mediaServer(pick(["webrtc", "rtsp"]))),
    broadcast: () => call(client.broadcast({ n: 1 }, { timeoutMs: pick([10, 10_000]) })),
  };
  const order = [
    ...Array(12).fill("receive"),
    ...Array(4).fill("honest"),
    ...Array(4).fill("time"),
    ...Object.keys(does),
    "join",
    "broadcast",
  ];
  const unhandled = await unhandledIn(async () => {
    for (let step = 0; step < steps; step += 1) {
      const what = pick(order);
      try {
        await does[what]();
        await settle();
      } catch (error) {
        error.message = `seed ${seed}, step ${step}, ${what}: ${error.message}`;
        throw error;
      }
      const { requests, sent, held, news } = kept(world);
      assert.ok(
        requests <= steps && sent <= steps && held <= steps && news === 0,
        `seed ${seed}: ${JSON.stringify(kept(world))}`,
      );
    }
    // The server falls silent; every promise still settles.
    await world.clock.advance(200_000);
    const open = fates.filter(({ settled }) => !settled).length;
    assert.equal(open, 0, `seed ${seed}: ${open} promises of ${fates.length} did not settle`);
    for (const { error } of fates)
      if (error) assert.equal(error.name, "MeetingError", `seed ${seed}: ${error.stack}`);
    const closing = watch(client.close());
    await world.clock.advance(5000);
    assert.ok(closing.settled, `seed ${seed}`);
    assert.equal(world.clock.waiting, 0, `seed ${seed}: a timer is left`);
  });
  assert.deepEqual(unhandled, [], `seed ${seed}`);
  return new Set(client.state === "closed" ? world.states : []);
}

test(
  "whatever a server sends at any moment, nothing is thrown and all settles",
  { timeout: 120_000 },
  async () => {
    const reached = new Set();
    const runs = Number(process.env.FUZZ_RUNS || 150);
    const first = Number(process.env.FUZZ_SEED || 1);
    for (let seed = first; seed < first + runs; seed += 1) {
      for (const state of await chaos(seed, 120)) reached.add(state);
    }
    // It has been everywhere.
    for (const state of ["connecting", "connected", "joining", "joined", "reconnecting", "idle"])
      assert.ok(reached.has(state), state);
  },
);
