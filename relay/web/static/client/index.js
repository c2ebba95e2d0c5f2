// @ts-check
/**
 * Client of a market relay: streams that survive lost connections, and the REST routes; no dependencies, no page.
 *
 *     import { RelayClient } from "http://127.0.0.1:8000/client.js";
 *
 *     const relay = new RelayClient("http://127.0.0.1:8000");
 *     relay.subscribe("BTCUSDT@1m", { bars: 100 });
 *     for await (const message of relay) {
 *       if (message.type === "snapshot") console.log(message.candles.length, "candles");
 *       if (message.type === "update" && message.isClosed) console.log(message.candle);
 *     }
 *
 * What the relay promises for one connection, the client keeps across connections: every closed candle once and in
 * order. It speaks as `relay.client` does in Python.
 */

export { BadArgument, BadReply, ClientClosed, ClientError, Disconnected, Refused, Unreachable } from "./errors.js";
export { parseStream, parseUrl } from "./parsing.js";
export { RelayClient } from "./relay_client.js";
