// @ts-check
// Drives the JavaScript client for a test: takes calls from standard input, writes what happens to standard output.
import readline from "node:readline";

const [, , file, url, options] = process.argv;
const { RelayClient } = await import(file);
const client = new RelayClient(url.startsWith("[") ? JSON.parse(url) : url, JSON.parse(options));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
/** @param {any} fault */
const faultOf = ({ name, message, status, code, closeCode, retryAfterMs }) => ({
  fault: { name, message, status, code, closeCode, retryAfterMs },
});

let pauseMs = 0; // the reader rests so long after the next message

/** Say all messages; `last` is the type behind which the loop is left. */
async function iterate(last) {
  try {
    for await (const message of client) {
      say({ message });
      if (message.type === last) break;
      if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      pauseMs = 0;
    }
    say({ message: { type: "end" } });
  } catch (fault) {
    say({ ...faultOf(fault), isOfLoop: true });
  }
}

async function run(call, args) {
  try {
    if (call === "iterate") iterate(...args);
    else if (call === "pause") [pauseMs] = args;
    else if (call === "nextWithin") say({ result: await client.next({ signal: AbortSignal.timeout(args[0]) }) });
    else if (call === "new") new RelayClient(...args);
    else say({ result: (typeof client[call] === "function" ? await client[call](...args) : client[call]) ?? null });
  } catch (fault) {
    say(faultOf(fault));
  }
}

// A call need not have ended for the next one to begin.
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [call, ...args] = JSON.parse(line, (key, value) =>
    value?.$number === undefined ? value : Number(value.$number),
  );
  run(call, args);
}
client.close();
