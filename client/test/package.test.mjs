// What the package is made of.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import test from "node:test";

const folder = fileURLToPath(new URL("..", import.meta.url));
const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("it is found by its name", async () => {
  const byName = await import("meeting-client");
  assert.equal(byName.MeetingClient, (await import("../client.js")).MeetingClient);
});

test("it packs the module, its types and its README, and nothing else", () => {
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: folder, stdio: ["ignore", "pipe", "ignore"] }));
  assert.deepEqual(files.map(({ path }) => path).sort(), ["README.md", "client.d.ts", "client.js", "package.json"]);
});

test("it depends on nothing", () => {
  const { dependencies, peerDependencies } = JSON.parse(read("package.json"));
  assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
  assert.doesNotMatch(read("client.js"), /^\s*import\b|\bimport\(|\brequire\(/m);
});

test("the types declare what the module has, and all of it", async () => {
  const { MeetingClient } = await import("../client.js");
  const declared = read("client.d.ts").split("export class MeetingClient {")[1];
  const names = [...declared.matchAll(/^ {2}(?:readonly )?(\w+)(?=[:(<])/gm)].map(([, name]) => name);
  const client = new MeetingClient("ws://server.example.org/ws", { WebSocket: class {} });
  const has = [...Object.getOwnPropertyNames(MeetingClient.prototype), ...Object.keys(client)].filter((name) => !name.startsWith("_"));
  assert.deepEqual([...new Set(names)].sort(), has.sort());
});

test("it is written for ES2020", async () => {
  const { default: ts } = await import("typescript");
  const { outputText } = ts.transpileModule(read("client.js"), {
    compilerOptions: { target: ts.ScriptTarget.ES2020, module: ts.ModuleKind.ESNext, removeComments: true },
  });
  const { outputText: newest } = ts.transpileModule(read("client.js"), {
    compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext, removeComments: true },
  });
  assert.equal(outputText, newest, "there is nothing to translate");
});
