// The client against the server itself: what the two make of each other. Needs the server's binary
// in MEETING_SERVER_BIN.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import { MeetingClient } from "../client.js";
import { camera } from "./fake.mjs";
import { BINARY, PATIENCE_MS, Road, Server } from "./server.mjs";

const WebSocket = globalThis.WebSocket || (await import("ws")).WebSocket;

const skip = BINARY ? false : "MEETING_SERVER_BIN names no server binary";

/** A test with a server of its own; whatever `t` was given to end is ended. */
function meeting(name, settings, run) {
  test(name, { skip, timeout: 60_000 }, async () => {
    const server = await Server.start(settings);
    const ends = [];
    const t = {
      server,
      ending: (end) => { ends.push(end); },
      client(url = server.url, options = {}) {
        const client = new MeetingClient(url, { WebSocket, timeoutMs: PATIENCE_MS, reconnect: { baseMs: 50 }, ...options });
        client.told = [];
        for (const event of ["joined", "endpoint", "stream", "broadcast", "error", "ended", "reconnecting"]) {
          client.on(event, (value) => client.told.push([event, value]));
        }
        ends.push(() => client.close());
        return client;
      },
      async member(endpoint, url, options) {
        const client = t.client(url, options);
        await client.join({ app: "demo", channel: "lobby", endpoint });
        return client;
      },
      async road() {
        const road = await Road.to(server.port);
        ends.push(() => road.stop());
        return road;
      },
    };
    try {
      await run(t);
    } finally {
      for (const end of ends.reverse()) await end();
      await server.stop();
    }
  });
}

/** Waits for it to be true; the client says when to look again. */
function until(client, what, holds) {
  return new Promise((resolve, reject) => {
    const stops = ["state", "members", "joined", "broadcast", "ended", "error", "reconnecting", "stream", "endpoint"]
      .map((event) => client.on(event, look));
    const timer = setTimeout(() => done(new Error(`${what} did not come: ${JSON.stringify(client.told)}`)), PATIENCE_MS);
    function done(error) {
      clearTimeout(timer);
      for (const stop of stops) stop();
      if (error) reject(error);
      else resolve();
    }
    function look() { if (holds()) done(); }
    look();
  });
}

const names = (client) => client.roster.map(({ endpoint }) => endpoint);
const said = (client) => client.told.filter(([event]) => event === "broadcast").map(([, { payload }]) => payload.n);
const how = (client) => client.told.filter(([event]) => event === "joined").map(([, joined]) => joined.how);

meeting("two meet: they see each other, what each publishes, and hear each other", {}, async (t) => {
  const anna = await t.member("anna");
  assert.deepEqual(anna.mediaServerAddresses, { http: "http://127.0.0.1:8889", rtsp: "rtsp://127.0.0.1:8554" });
  const ben = t.client();
  const joined = await ben.join({ app: "demo", channel: "lobby", endpoint: "ben", role: "recorder", device: "d1" });
  assert.deepEqual(joined.members.map(({ endpoint }) => endpoint), ["anna", "ben"]);
  await until(anna, "ben", () => anna.roster[1]?.role === "recorder");
  assert.deepEqual(anna.roster[1], { endpoint: "ben", device: "d1", role: "recorder", stream: null });
  await ben.publish(camera("b1"));
  await until(anna, "ben's stream", () => anna.roster[1]?.stream?.type === "camera");
  assert.deepEqual(anna.roster[1].stream, camera("b1"));
  await assert.rejects(anna.publish(camera("b1")), { kind: "refused", err: 409 });
  await anna.broadcast({ n: 1 });
  await until(ben, "a word", () => said(ben).length === 1);
  assert.deepEqual(await anna.mediaServer("rtsp"), anna.mediaServerAddresses);
  assert.deepEqual(await anna.members(), await ben.members());
  await ben.unpublish();
  await until(anna, "the end of the stream", () => anna.roster[1]?.stream === null);
  await ben.leave();
  await until(anna, "the leave", () => anna.roster.length === 1);
  await ben.join({ app: "demo", channel: "lobby", endpoint: "ben" });
  await ben.close();
  await until(anna, "the close", () => anna.told.filter(([, { stat }]) => stat === "leave").length === 2);
});

meeting("a connection that is cut is resumed, and nobody notices", {}, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url);
  await anna.publish(camera());
  // Events tell neither role nor kind of stream: ben asks for them, some time after.
  await until(ben, "all of anna", () => ben.roster[1]?.role && ben.roster[1].stream?.type);
  const before = ben.told.length;
  road.closed = true;
  road.cut();
  await until(anna, "the loss", () => anna.state === "reconnecting");
  for (const n of [1, 2, 3]) await ben.broadcast({ n });
  await ben.publish(camera("b1"));
  const saying = anna.broadcast({ n: 4 });
  road.closed = false;
  await saying;
  await until(anna, "what was missed", () => anna.told.some(([event]) => event === "stream"));
  assert.deepEqual(said(anna), [1, 2, 3]);
  assert.deepEqual(how(anna), ["joined", "resumed"]);
  await until(ben, "anna's word", () => said(ben).length === 1);
  assert.deepEqual(ben.told.slice(before).map(([event]) => event), ["broadcast"]);
  assert.deepEqual(await anna.members(), ben.roster);
  assert.deepEqual(anna.stream, camera());
});

meeting("requests whose answers were lost take effect once", {}, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url);
  road.swallowAnswers();
  const pending = [anna.broadcast({ n: 1 }), anna.publish(camera()), anna.members(), anna.broadcast({ n: 2 })];
  // They have been taken in, and the answers are gone.
  await until(ben, "both words", () => said(ben).length === 2);
  road.cut();
  const [, , members] = await Promise.all(pending);
  assert.deepEqual(members.map(({ endpoint }) => endpoint), ["ben", "anna"]);
  await anna.broadcast({ n: 3 });
  await until(ben, "the last word", () => said(ben).includes(3));
  assert.deepEqual(said(ben), [1, 2, 3]);
  assert.equal(ben.told.filter(([event]) => event === "stream").length, 1);
  assert.deepEqual(anna.stream, camera());
  assert.deepEqual(how(anna), ["joined", "resumed"]);
});

meeting("a server that no longer answers is noticed, and the session resumed", {}, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url, { heartbeatMs: 50, heartbeatTimeoutMs: 200 });
  road.swallowAnswers();
  await until(anna, "the resume", () => how(anna).includes("resumed"));
  assert.equal(anna.told.find(([event]) => event === "reconnecting")[1].closeCode, 4900);
  await anna.broadcast({ n: 1 });
  await until(ben, "a word", () => said(ben).length === 1);
  assert.deepEqual(ben.told.filter(([event]) => event === "endpoint").length, 1, "ben has seen anna come, once");
});

meeting("after too long it is a new session, with the list and the stream as they should be", { ROOMS__RESUME_WINDOW: "0s" }, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url);
  const { session } = anna;
  await anna.publish(camera());
  await until(ben, "anna's stream", () => ben.roster[1]?.stream);
  road.closed = true;
  road.cut();
  await until(ben, "anna's end", () => ben.roster.length === 1);
  await ben.publish(camera("b1"));
  road.closed = false;
  await until(anna, "the rejoin", () => how(anna).includes("rejoined"));
  assert.notEqual(anna.session, session);
  await until(ben, "anna's stream again", () => ben.roster[1]?.stream?.type === "camera");
  assert.deepEqual(await anna.members(), await ben.members());
  assert.deepEqual(anna.roster.map(({ stream }) => stream.stream_id), ["b1", "anna-1"]);
});

meeting("a server that is restarted has its members back", { SERVER__DRAIN_TIMEOUT: "1s" }, async (t) => {
  const anna = await t.member("anna");
  const ben = await t.member("ben");
  await anna.publish(camera());
  const { port } = t.server;
  await t.server.stop("SIGTERM");
  const saying = anna.broadcast({ n: 1 });
  const again = await Server.start({}, `127.0.0.1:${port}`);
  t.ending(() => again.stop());
  for (const client of [anna, ben]) {
    await until(client, "the rejoin", () => how(client).includes("rejoined"));
    assert.deepEqual(client.told.filter(([event]) => event === "ended"), []);
    const goodbye = client.told.find(([event]) => event === "error")[1];
    assert.equal(goodbye.type, "server_shutdown");
    const [, { delayMs, closeCode }] = client.told.find(([event]) => event === "reconnecting");
    assert.deepEqual([delayMs, closeCode], [goodbye.retryAfterMs, 1001]);
  }
  await saying;
  await until(ben, "both and the stream", () => names(ben).length === 2 && ben.roster.some(({ stream }) => stream));
  assert.deepEqual(await anna.members(), await ben.members());
});

meeting("a server that dies without a word has its members back", {}, async (t) => {
  const anna = await t.member("anna");
  const { port } = t.server;
  await t.server.stop("SIGKILL");
  const again = await Server.start({}, `127.0.0.1:${port}`);
  t.ending(() => again.stop());
  await until(anna, "the rejoin", () => how(anna).includes("rejoined"));
});

meeting("one whose place is taken stays away", {}, async (t) => {
  const first = await t.member("anna");
  const second = await t.member("anna");
  await until(first, "the end", () => first.told.some(([event]) => event === "ended"));
  const [, { error, closeCode }] = first.told.find(([event]) => event === "ended");
  assert.deepEqual([error.kind, closeCode, first.state], ["ended", 4001, "idle"]);
  assert.equal(second.state, "joined");
  await second.members();
  assert.deepEqual(names(second), ["anna"]);
});

meeting("a message over the server's limit ends the stay", { SESSION__MAX_MESSAGE_BYTES: "1024" }, async (t) => {
  const anna = await t.member("anna");
  await assert.rejects(anna.broadcast({ text: "x".repeat(2000) }), { kind: "ended", err: 413, closeCode: 1009 });
  await until(anna, "the end", () => anna.state === "idle");
});

meeting("the room is full: the first join is told, one that comes back waits", { ROOMS__MAX_MEMBERS: "1", ROOMS__RESUME_WINDOW: "0s" }, async (t) => {
  const road = await t.road();
  const anna = await t.member("anna", road.url);
  const ben = t.client();
  await assert.rejects(ben.join({ app: "demo", channel: "lobby", endpoint: "ben" }), { kind: "refused", err: 503 });
  road.closed = true;
  road.cut();
  // Who leaves is gone some time after its socket.
  for (;;) {
    try {
      await ben.join({ app: "demo", channel: "lobby", endpoint: "ben" });
      break;
    } catch (error) {
      assert.equal(error.err, 503);
    }
  }
  road.closed = false;
  const full = () => anna.told.some(([event, { reason }]) => event === "reconnecting" && /full|members/.test(reason));
  await until(anna, "the refusal", full);
  await ben.leave();
  await until(anna, "the way back", () => anna.state === "joined");
});

meeting("whoever leaves without a connection is gone when it is back", {}, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url);
  await until(ben, "anna", () => ben.roster.length === 2);
  road.closed = true;
  road.cut();
  await until(anna, "the loss", () => anna.state === "reconnecting");
  const leaving = anna.leave();
  road.closed = false;
  await leaving;
  await until(ben, "the leave", () => ben.roster.length === 1);
  assert.deepEqual(ben.told.filter(([event]) => event === "endpoint").map(([, { stat }]) => stat), ["join", "leave"]);
});

meeting("450 broadcasts made without a connection arrive, in order", {}, async (t) => {
  const road = await t.road();
  const ben = await t.member("ben");
  const anna = await t.member("anna", road.url);
  road.closed = true;
  road.cut();
  await until(anna, "the loss", () => anna.state === "reconnecting");
  // The server has its default rate limit.
  const options = { timeoutMs: 60_000 };
  const promises = Array.from({ length: 450 }, (_, n) => anna.broadcast({ n }, options));
  road.closed = false;
  await Promise.all(promises);
  await until(ben, "all of them", () => said(ben).length >= 450);
  assert.deepEqual(said(ben), Array.from({ length: 450 }, (_, n) => n));
  assert.deepEqual(how(anna), ["joined", "resumed"]);
});

/** The same numbers for the same seed, from 0 up to 1. */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

meeting("through cut after cut nothing is lost, doubled or out of order", {}, async (t) => {
  const next = random(7);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const watcher = await t.member("watcher");
  const speakers = [];
  for (const endpoint of ["anna", "ben"]) {
    const road = await t.road();
    const client = await t.member(endpoint, road.url, { reconnect: { baseMs: 20, maxMs: 100 } });
    speakers.push({ endpoint, road, client, spoken: 0, streams: 0 });
  }
  const promises = [];
  const asked = { speak: 0, publish: 0, unpublish: 0, cut: 0, lose: 0 };
  for (let round = 0; round < 300; round += 1) {
    const speaker = pick(speakers);
    const { client, road, endpoint } = speaker;
    const action = pick(["speak", "speak", "speak", "publish", "unpublish", "cut", "lose"]);
    asked[action] += 1;
    if (action === "speak") promises.push(client.broadcast({ n: speaker.spoken++ }));
    else if (action === "publish" && !speaker.stream) {
      speaker.stream = camera(`${endpoint}-${speaker.streams++}`);
      promises.push(client.publish(speaker.stream));
    } else if (action === "unpublish" && speaker.stream) {
      promises.push(client.unpublish(speaker.stream.stream_id));
      speaker.stream = null;
    } else if (action === "cut") road.cut();
    else if (action === "lose") {
      road.swallowAnswers();
      setTimeout(() => road.cut(), 30);
    }
    // Now and then everything has time to arrive.
    if (next() < 0.3) await new Promise((resolve) => { setTimeout(resolve, next() * 20); });
  }
  await Promise.all(promises);
  assert.ok(Object.values(asked).every((times) => times > 10), JSON.stringify(asked));
  const heard = (client, from) => client.told
    .filter(([event, value]) => event === "broadcast" && value.from.endpoint === from)
    .map(([, { payload }]) => payload.n);
  for (const { endpoint, spoken } of speakers) {
    const all = Array.from({ length: spoken }, (_, n) => n);
    for (const client of [watcher, ...speakers.map((one) => one.client)]) {
      if (client.endpoint === endpoint) continue;
      await until(client, `${endpoint}'s words`, () => heard(client, endpoint).length >= spoken);
      assert.deepEqual(heard(client, endpoint), all, `${client.endpoint} hears ${endpoint}`);
    }
  }
  const truth = await watcher.members();
  for (const { client, stream, endpoint } of speakers) {
    const mine = truth.find((one) => one.endpoint === endpoint).stream;
    assert.equal(mine && mine.stream_id, stream ? stream.stream_id : null);
    assert.equal(client.stream && client.stream.stream_id, stream ? stream.stream_id : null);
    await until(client, "the same list", () => JSON.stringify(client.roster) === JSON.stringify(truth));
    const [first, ...later] = how(client);
    assert.deepEqual([first, ...new Set(later)], ["joined", "resumed"]);
  }
  assert.equal(watcher.told.filter(([event]) => event === "endpoint").length, 2, "nobody was seen to go");
});

const SECRET = "a secret that is thirty-two bytes long";

const AUTH = { AUTH__KEYS__0__APP: "demo", AUTH__KEYS__0__ALG: "HS256", AUTH__KEYS__0__SECRET: SECRET };

/** A token for the app "demo" with these claims. */
function mint(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ exp: Date.now() / 1000 + 60, ...claims })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

meeting("a token is got before each join, and a bad one is the end", { ...AUTH, ROOMS__RESUME_WINDOW: "0s" }, async (t) => {
  const road = await t.road();
  const anna = t.client(road.url);
  const room = { app: "demo", channel: "lobby", endpoint: "anna" };
  await assert.rejects(anna.join(room), { kind: "refused", err: 401 });
  await assert.rejects(anna.join({ ...room, token: mint({ channel: "other" }) }), { kind: "refused", err: 403 });
  let asked = 0;
  let good = true;
  const token = async () => {
    asked += 1;
    return good ? mint({ grants: [] }) : "bad";
  };
  await anna.join({ ...room, token });
  await assert.rejects(anna.broadcast({}), { kind: "refused", err: 403 });
  road.cut();
  await until(anna, "the rejoin", () => how(anna).includes("rejoined"));
  assert.equal(asked, 2);
  good = false;
  road.cut();
  await until(anna, "the end", () => anna.told.some(([event]) => event === "ended"));
  const [, { error }] = anna.told.find(([event]) => event === "ended");
  assert.deepEqual([error.kind, error.err], ["refused", 401]);
  assert.equal(anna.state, "idle");
});
