// Drives the JavaScript client for a test: takes calls from standard input, writes what happens to standard output.
import readline from "node:readline";

const [, , file, url, options] = process.argv;
const { RelayClient } = await import(file);
const client = new RelayClient(url, JSON.parse(options));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const faultOf = ({ name, message, status, code, closeCode, retryAfterMs }) => ({
  fault: { name, message, status, code, closeCode, retryAfterMs },
});

async function iterate() {
  try {
    for await (const message of client) say({ message });
    say({ message: { type: "end" } });
  } catch (fault) {
    say(faultOf(fault));
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [call, ...args] = JSON.parse(line);
  try {
    if (call === "iterate") iterate();
    else say({ result: (call === "streams" ? client.streams : await client[call](...args)) ?? null });
  } catch (fault) {
    say(faultOf(fault));
  }
}
client.close();
