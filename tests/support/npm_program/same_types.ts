// What a compiler reads of the client itself (`made`) against the types that are written by hand (`client`).
import * as made from "./made/client.js";
import * as written from "./client.js";

// All that is written is there, and can be called so. Errors are the client's to make.
type Called = Omit<typeof written, "Refused" | "Disconnected">;
const called: Called = made;
const client: written.RelayClient = new made.RelayClient("http://127.0.0.1:8000");
const refused: written.Refused = null as unknown as made.Refused;
const disconnected: written.Disconnected = null as unknown as made.Disconnected;

// And nothing else is.
type Other<Made, Written> = Exclude<keyof Made, keyof Written>;
type Others =
  | Other<typeof made, typeof written>
  | Other<made.RelayClient, written.RelayClient>
  | Other<made.Refused, written.Refused>
  | Other<made.Disconnected, written.Disconnected>;
const others: never[] = [] as Others[];

export { called, client, disconnected, others, refused };
