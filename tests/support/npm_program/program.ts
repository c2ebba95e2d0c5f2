// A program of somebody who installed the package: it prints the candles that close, and ends after the third.
import { BadArgument, RelayClient, type Candle, type ClientOptions, type Message } from "market-relay-client";

const [, , url, stream] = process.argv;
const options: ClientOptions = { waitsForRelay: true };
const relay = new RelayClient(url, options);
relay.subscribe(stream, { bars: 3 });
// @ts-expect-error: there is no such option, so the types are there.
if (!(attempt(() => relay.subscribe(stream, { candles: 3 })) instanceof BadArgument)) throw new Error("no error");

const closed: Candle[] = [];
for await (const message of relay) {
  take(message);
  if (closed.length >= 3) break;
}
console.log(JSON.stringify(closed));

function take(message: Message): void {
  if (message.type === "snapshot") closed.push(...message.candles.filter((candle) => candle.isClosed));
  if (message.type === "update" && message.isClosed) closed.push(message.candle);
}

function attempt(call: () => void): unknown {
  try {
    return call();
  } catch (fault) {
    return fault;
  }
}
