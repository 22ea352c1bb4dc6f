// A real server for a test, and a road to it that the test can cut.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

/** The binary; the tests that need it are skipped without. */
export const BINARY = process.env.MEETING_SERVER_BIN;

/** How long a test waits for what must come; none waits for it to pass. */
export const PATIENCE_MS = 20_000;

/** A server process on a port of its own. */
export class Server {
  #child;
  #errors = [];

  static async start(settings = {}, bind = "127.0.0.1:0") {
    const server = new Server();
    const env = { RUST_LOG: "info", MEETING_SERVER__SERVER__BIND: bind, MEETING_SERVER__SERVER__WORKERS: "2" };
    for (const [key, value] of Object.entries(settings)) env[`MEETING_SERVER__${key}`] = value;
    server.#child = spawn(BINARY, ["--config", "/dev/null"], { env, stdio: ["ignore", "ignore", "pipe"] });
    const lines = createInterface({ input: server.#child.stderr });
    const log = [];
    await new Promise((resolve, reject) => {
      lines.on("line", (line) => {
        log.push(line);
        if (/\bERROR\b/.test(line)) server.#errors.push(line);
        const bound = /\bbind=([\d.]+):(\d+)/.exec(line);
        if (bound) {
          server.port = Number(bound[2]);
          resolve();
        }
      });
      server.#child.on("error", reject);
      server.#child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${log.join("\n")}`)));
    });
    return server;
  }

  get url() { return `ws://127.0.0.1:${this.port}/ws`; }

  /** Ends it: "SIGTERM" says goodbye to everybody, "SIGKILL" does not. */
  async stop(signal = "SIGKILL") {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill(signal);
      await once(this.#child, "exit");
    }
    if (this.#errors.length) throw new Error(`the server's log: ${this.#errors.join("\n")}`);
  }
}

/** A road to the server: it carries bytes, loses them, or is cut. */
export class Road {
  #pairs = new Set();
  #server;
  /** While true nobody gets through. */
  closed = false;

  static async to(port) {
    const road = new Road();
    road.#server = createServer((near) => road.#carry(near, port));
    road.#server.listen(0, "127.0.0.1");
    await once(road.#server, "listening");
    road.url = `ws://127.0.0.1:${road.#server.address().port}/ws`;
    return road;
  }

  #carry(near, port) {
    if (this.closed) {
      near.destroy();
      return;
    }
    const pair = { near, far: connect(port, "127.0.0.1"), swallows: false };
    this.#pairs.add(pair);
    // Answers are what is lost; what is asked gets through.
    pair.near.on("data", (bytes) => pair.far.write(bytes));
    pair.far.on("data", (bytes) => { if (!pair.swallows) pair.near.write(bytes); });
    for (const end of [pair.near, pair.far]) {
      end.on("error", () => {});
      end.on("close", () => {
        this.#pairs.delete(pair);
        pair.near.destroy();
        pair.far.destroy();
      });
    }
  }

  /** From now on nothing comes back from the server over the present connections. */
  swallowAnswers() {
    for (const pair of this.#pairs) pair.swallows = true;
  }

  /** All connections end without a goodbye. */
  cut() {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  async stop() {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
