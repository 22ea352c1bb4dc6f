// The list of members, and when the application is told what.

import assert from "node:assert/strict";
import test from "node:test";
import { World, camera, member, settle, watch } from "./fake.mjs";

const comes = (endpoint, device = "") => ["endpoint", { endpoint, device, stat: "join" }];
const goes = (endpoint) => ["endpoint", { endpoint, device: "", stat: "leave" }];
const publishes = (endpoint, stream) => ["stream", { endpoint, device: "", stream, stat: "publish" }];
const ends = (endpoint, stream) => ["stream", { endpoint, device: "", stream, stat: "unpublish" }];

/** Events of the room, numbered from `number` on. */
function happen(world, number, ...events) {
  events.forEach(([name, data], i) => world.socket.event(name, data, number + i));
}

test("an event has what the server said, and its number", async () => {
  const world = new World();
  await world.enter();
  happen(world, 5, comes("ben", "d"), publishes("ben", "b1"), ends("ben", "b1"), goes("ben"));
  assert.deepEqual(world.of("endpoint"), [
    { endpoint: "ben", device: "d", stat: "join", number: 5 },
    { endpoint: "ben", device: "", stat: "leave", number: 8 },
  ]);
  assert.deepEqual(world.of("stream"), [
    { endpoint: "ben", device: "", stream: "b1", stat: "publish", number: 6 },
    { endpoint: "ben", device: "", stream: "b1", stat: "unpublish", number: 7 },
  ]);
  world.socket.event("broadcast", { source_endpoint: { endpoint: "ben", device: "d" }, payload: { n: 1 } }, 9);
  assert.deepEqual(world.of("broadcast"), [{ from: { endpoint: "ben", device: "d" }, payload: { n: 1 }, number: 9 }]);
});

test("the list follows joins, leaves, publishes and unpublishes at once", async () => {
  const world = new World();
  await world.enter();
  happen(world, 2, comes("ben", "d"));
  assert.deepEqual(world.client.roster, [
    { endpoint: "anna", device: "", role: "normal", stream: null },
    { endpoint: "ben", device: "d", role: null, stream: null },
  ]);
  happen(world, 3, publishes("ben", "b1"));
  assert.deepEqual(world.client.roster[1].stream, { stream_id: "b1" });
  happen(world, 4, ends("ben", "other"));
  assert.deepEqual(world.client.roster[1].stream, { stream_id: "b1" });
  happen(world, 5, ends("ben", "b1"));
  assert.equal(world.client.roster[1].stream, null);
  happen(world, 6, goes("ben"));
  assert.deepEqual(world.roster, ["anna"]);
});

test("a listener finds the list as its event has left it", async () => {
  const world = new World();
  await world.enter();
  const seen = [];
  world.client.on("endpoint", () => seen.push(world.roster));
  happen(world, 2, comes("ben"), goes("ben"));
  assert.deepEqual(seen, [["anna", "ben"], ["anna"]]);
  assert.deepEqual(world.of("members").map((list) => list.length), [2, 1]);
});

test("one that is replaced stands where it joined again", async () => {
  const world = new World();
  await world.enter({ others: [member("ben", camera("b1")), member("carl")] });
  happen(world, 4, ends("ben", "b1"), goes("ben"), comes("ben"));
  assert.deepEqual(world.roster, ["carl", "anna", "ben"]);
  assert.equal(world.client.roster[2].stream, null);
});

test("what events do not tell is asked of the room, once for many", async () => {
  const world = new World();
  await world.enter();
  happen(world, 2, comes("ben"), publishes("ben", "b1"), comes("carl"));
  assert.equal(world.socket.asked("channel.dump").length, 0, "everybody would ask at the same time");
  await world.clock.advance(100);
  assert.equal(world.socket.asked("channel.dump").length, 1);
  happen(world, 5, comes("dora"));
  await world.clock.advance(100);
  assert.equal(world.socket.asked("channel.dump").length, 1, "one at a time");
  world.dump(member("anna"), member("ben", camera("b1"), "recorder", "d"), member("carl"), member("dora"));
  assert.deepEqual(world.client.roster[1], { endpoint: "ben", device: "d", role: "recorder", stream: camera("b1") });
  await world.clock.advance(60000);
  assert.equal(world.socket.asked("channel.dump").length, 0, "all is known");
});

test("an event behind the list asks again, an event before it does not", async () => {
  const world = new World();
  await world.enter();
  happen(world, 2, comes("ben"));
  await world.clock.advance(100);
  world.dump(member("anna"), member("ben"));
  happen(world, 3, publishes("ben", "b1"));
  await world.clock.advance(100);
  world.dump(member("anna"), member("ben", camera("b1")));
  assert.deepEqual(world.client.roster[1].stream, camera("b1"));
});

test("a bigger room is asked later", async () => {
  const world = new World();
  const others = Array.from({ length: 399 }, (_, i) => member(`m${i}`));
  await world.enter({ others });
  happen(world, 2, comes("ben"));
  await world.clock.advance(2000);
  assert.equal(world.socket.asked("channel.dump").length, 0);
  await world.clock.advance(10);
  assert.equal(world.socket.asked("channel.dump").length, 1);
});

test("a room that was too busy to say who is there is asked again", async () => {
  const world = new World();
  await world.enter();
  happen(world, 2, comes("ben"));
  await world.clock.advance(100);
  world.socket.answer("channel.dump", {}, 429, "slow down");
  await world.clock.advance(2000);
  world.dump(member("anna"), member("ben"));
  assert.equal(world.client.roster[1].role, "normal");
});

test("a stream that is announced again is described anew", async () => {
  const world = new World();
  await world.enter({ others: [member("ben", camera("b1"))] });
  happen(world, 3, publishes("ben", "b1"));
  await world.clock.advance(100);
  const desktop = { ...camera("b1"), type: "desktop" };
  world.dump(member("ben", desktop), member("anna"));
  assert.deepEqual(world.client.roster[0].stream, desktop);
});

test("what a client does itself no event tells, and its list shows it", async () => {
  const world = new World();
  await world.enter();
  const publishing = world.client.publish(camera());
  assert.equal(world.client.roster[0].stream, null, "not before it is granted");
  world.socket.answer("stream.add");
  await publishing;
  assert.deepEqual(world.client.roster[0].stream, camera());
  const unpublishing = world.client.unpublish();
  world.socket.answer("stream.delete");
  await unpublishing;
  assert.equal(world.client.roster[0].stream, null);
  assert.equal(world.of("members").length, 2);
});

test("an own stream is listed as others see it", async () => {
  const world = new World();
  await world.enter();
  world.client.publish({ has_audio: true, has_video: false, stream_id: "s", type: "desktop" });
  world.socket.answer("stream.add");
  const seen = { stream_id: "s", type: "desktop", has_video: false, has_audio: true, audio_codec: "", video_codec: "" };
  assert.deepEqual(world.client.roster[0].stream, seen);
  const before = world.of("members").length;
  world.client.members();
  world.dump(member("anna", seen));
  assert.equal(world.of("members").length, before, "nothing has changed");
});

test("the list that the application asks for is the list", async () => {
  const world = new World();
  await world.enter();
  const asking = world.client.members();
  world.dump(member("anna"), member("ben"));
  assert.equal(await asking, world.client.roster);
  assert.deepEqual(world.roster, ["anna", "ben"]);
  const again = world.client.members();
  world.dump(member("anna"), member("ben"));
  await again;
  assert.equal(world.of("members").length, 1, "nothing has changed");
});

test("lists and members are never changed", async () => {
  const world = new World();
  const { members } = await world.enter({ others: [member("ben", camera("b1"))] });
  happen(world, 3, ends("ben", "b1"), comes("carl"));
  assert.equal(members.length, 2);
  assert.deepEqual(members[0].stream, camera("b1"));
  assert.throws(() => world.client.roster.push({}), TypeError);
  assert.throws(() => { world.client.roster[0].role = "x"; }, TypeError);
});

test("no event comes before join has resolved, and none is lost", async () => {
  const world = new World();
  const order = [];
  for (const event of ["joined", "members", "endpoint", "broadcast"]) world.client.on(event, () => order.push(event));
  const enter = async () => world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  const joining = (async () => { await enter(); order.push("resolved"); })();
  await settle();
  world.socket.open();
  world.admit({ last_event: 1 });
  happen(world, 2, comes("ben"));
  await world.clock.advance(100);
  world.dump(member("anna"), member("ben"));
  happen(world, 3, comes("carl"), ["broadcast", { source_endpoint: { endpoint: "carl", device: "" }, payload: {} }]);
  await joining;
  assert.deepEqual(order, ["resolved"]);
  assert.deepEqual(world.roster, ["anna", "ben", "carl"]);
  // A listener that is added only now hears it all.
  world.client.on("endpoint", ({ endpoint }) => order.push(endpoint));
  await world.clock.advance(0);
  assert.deepEqual(order, ["resolved", "joined", "members", "endpoint", "ben", "endpoint", "carl", "broadcast"]);
  happen(world, 5, goes("ben"));
  assert.deepEqual(order.slice(8), ["members", "endpoint", "ben"]);
});

test("a join whose connection is lost before the list has come goes on, and forgets nothing", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.socket.open();
  world.admit({ last_event: 1 });
  happen(world, 2, comes("ben"));
  world.socket.drop();
  await world.reconnect();
  assert.equal(world.client.state, "joining");
  assert.equal(world.socket.sent[0].data.last_event, 2);
  world.admit({ resumed: true, last_cseq: 1 });
  happen(world, 3, comes("carl"));
  world.dump(member("anna"), member("ben"), member("carl"));
  await joining;
  await world.clock.advance(0);
  assert.deepEqual(world.of("joined").map(({ how }) => how), ["joined"]);
  assert.deepEqual(world.of("endpoint").map(({ endpoint }) => endpoint), ["ben", "carl"]);
});

test("a join is good without the list, which follows later", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna", device: "d" });
  world.socket.open();
  world.admit();
  world.socket.answer("channel.dump", {}, 429, "slow down");
  assert.deepEqual((await joining).members, [{ endpoint: "anna", device: "d", role: null, stream: null }]);
  await world.clock.advance(2000);
  world.dump(member("ben"), member("anna"));
  assert.deepEqual(world.roster, ["ben", "anna"]);
});

test("what was held back is not told to one who has left meanwhile", async () => {
  const world = new World();
  const joining = world.client.join({ app: "demo", channel: "lobby", endpoint: "anna" });
  world.socket.open();
  world.admit();
  happen(world, 2, comes("ben"));
  world.dump(member("anna"), member("ben"));
  await joining;
  const leaving = world.client.leave();
  world.socket.answer("channel.leave");
  await leaving;
  await world.clock.advance(100);
  assert.deepEqual(world.of("endpoint"), []);
  assert.deepEqual(world.of("joined"), []);
});

test("a resume changes the list by what was missed, and asks for what that does not tell", async () => {
  const world = new World();
  await world.enter({ others: [member("ben"), member("carl")] });
  await world.resume(2);
  assert.deepEqual(world.roster, ["ben", "carl", "anna"]);
  happen(world, 5, goes("ben"), comes("dora"), publishes("carl", "c1"));
  assert.deepEqual(world.roster, ["carl", "anna", "dora"]);
  await world.clock.advance(100);
  world.dump(member("carl", camera("c1")), member("anna"), member("dora", undefined, "relayer"));
  assert.equal(world.client.roster[2].role, "relayer");
});

test("a question about members that a loss has swallowed is asked again", async () => {
  const world = new World();
  await world.enter();
  happen(world, 2, comes("ben"));
  await world.clock.advance(100);
  await world.resume(2);
  await world.clock.advance(100);
  world.dump(member("anna"), member("ben", undefined, "recorder"));
  assert.equal(world.client.roster[1].role, "recorder");
});

test("a room whose media server is down asks for another", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("error", { type: "media_server_down", message: "it failed" });
  assert.deepEqual(world.of("error"), [{ type: "media_server_down", message: "it failed" }]);
  world.socket.answer("media_server.dump", { media_server: { ws: "ws://other" } });
  assert.deepEqual(world.of("mediaServer"), [{ ws: "ws://other" }]);
});

test("the join's answer after a loss may name another media server", async () => {
  const world = new World();
  await world.enter();
  world.socket.drop();
  await world.reconnect();
  world.admit({ resumed: true, last_cseq: 2, media_server: { ws: "ws://other" } });
  assert.deepEqual(world.of("mediaServer"), [{ ws: "ws://other" }]);
  assert.deepEqual(world.of("joined")[0].mediaServer, { ws: "ws://other" });
});

test("events that a later server may have are no trouble", async () => {
  const world = new World();
  await world.enter();
  world.socket.event("weather", { rain: true }, 2);
  assert.deepEqual(world.names, []);
  const fate = watch(world.client.broadcast({}));
  world.socket.answer("broadcast", { more: 1 });
  await settle();
  assert.ok(fate.settled && !fate.error);
});
