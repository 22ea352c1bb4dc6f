// Checks docs/asyncapi.yaml: that it is a valid AsyncAPI document (by the official parser), that its
// examples fit its schemas, and that its schemas describe every message of the conversations in
// docs/protocol.md, which are replayed with a server by tests/protocol_document.
//
//   npm ci && node validate.mjs
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv';
import addFormats from 'ajv-formats';

const docs = new URL('../', import.meta.url);
const complaints = [];
let checked = 0;

const text = (name) => readFile(new URL(name, docs), 'utf8');
const yaml = await text('asyncapi.yaml');
const { document, diagnostics } = await new Parser().parse(yaml, { source: 'asyncapi.yaml' });
// A newer version of AsyncAPI is no defect of this document.
const findings = diagnostics.filter(({ code }) => code !== 'asyncapi-latest-version');
for (const { range, message, code } of findings) {
  complaints.push(`asyncapi.yaml:${range.start.line + 1}: ${message} (${code})`);
}
if (!document) {
  fail();
}

// Clients ignore keys that they do not know, so the schemas are open; what the server says today must
// be described to the last key, so here they are closed.
const closed = (schema) => {
  if (Array.isArray(schema)) {
    return schema.map(closed);
  }
  if (schema === null || typeof schema !== 'object') {
    return schema;
  }
  const entries = Object.entries(schema).map(([key, value]) => [
    key,
    // What stands under a condition adds to an object that is described elsewhere.
    ['if', 'then', 'else'].includes(key) ? value : closed(value),
  ]);
  const copy = Object.fromEntries(entries);
  if (copy.type === 'object' && copy.properties && !('additionalProperties' in copy)) {
    copy.additionalProperties = false;
  }
  return copy;
};

const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
const messages = new Map();
for (const message of document.messages()) {
  const schema = message.payload().json();
  messages.set(message.id(), {
    schema,
    validate: ajv.compile(closed(schema)),
    examples: message.examples().all(),
  });
}

function check(where, id, payload) {
  checked += 1;
  const { validate } = messages.get(id);
  if (!validate(payload)) {
    complaints.push(`${where} is no ${id}: ${ajv.errorsText(validate.errors)}\n  ${JSON.stringify(payload)}`);
  }
}

for (const [id, { examples }] of messages) {
  if (examples.length === 0) {
    complaints.push(`${id} has no example`);
  }
  for (const example of examples) {
    check('an example', id, example.payload());
  }
}

// Which message belongs to which method or event.
const requests = new Map();
for (const operation of document.operations().filter((operation) => operation.isReceive())) {
  const [request] = operation.messages().all();
  const replies = operation.reply().messages().all().map((reply) => reply.id());
  const { properties } = messages.get(request.id()).schema;
  requests.set(properties.method.const, {
    id: request.id(),
    granted: replies.find((id) => messages.get(id).schema.properties.err.const === 0),
    refused: replies.find((id) => messages.get(id).schema.properties.err.const !== 0),
  });
}
const events = new Map();
for (const [id, { schema }] of messages) {
  if (schema.properties.event) {
    events.set(schema.properties.event.const, id);
  }
}

// Every message of the page, in the order of its conversations.
const page = await text('protocol.md');
const block = /^`(\S+) ([→⇢←])`\s+```json\n([^]*?)```$|^(<!-- server: .* -->)$/gm;
let asked = new Map();
for (const [, who, arrow, json, server] of page.matchAll(block)) {
  if (server) {
    asked = new Map();
    continue;
  }
  const message = JSON.parse(json);
  const where = `protocol.md: what ${who} ${arrow === '←' ? 'hears' : 'says'}`;
  const key = `${who} ${message.cseq}`;
  if (arrow === '⇢') {
    check(where, requests.get(message.method).id, message);
  } else if (arrow === '→') {
    asked.set(key, message);
  } else if ('event' in message) {
    check(where, events.get(message.event), message);
  } else {
    const request = asked.get(key);
    const known = requests.get(request.method);
    check(where, message.err === 0 ? known.granted : (known?.refused ?? 'refusal'), message);
    // What is answered with a 400 or has no such method need not be right.
    if (known && message.err !== 400) {
      check(where, known.id, request);
    }
  }
}

if (checked < 100) {
  complaints.push(`only ${checked} messages were found to check`);
}
fail();
console.log(`asyncapi.yaml is valid, and so are ${checked} messages`);

function fail() {
  if (complaints.length > 0) {
    console.error(complaints.join('\n'));
    process.exit(1);
  }
}
