// @ts-check
// How a relay is among the others with which it shares its work: its tile, who owns what, and what is not shared.

import { span } from "./format.js";
import { byId, fill, hide, make, write, writeState } from "./page.js";

const count = new Intl.NumberFormat("en");

const isApart = ({ differs }) => differs.length > 0;

/** Return the tile. */
export function relaysTile({ state, message, node, relays, shards }) {
  const owned = shards.filter(({ here }) => here === "all").length;
  const lone = shards.filter(({ owners }) => !owners).length;
  const apart = relays.filter(isApart).length;
  const facts = [
    `this is ${node}, owns ${owned} of ${count.format(shards.length)} ${shards.length === 1 ? "shard" : "shards"}`,
    lone && `${lone} without owner`,
    apart && `${apart} with other settings`,
  ];
  return {
    title: "Relays",
    figure: state === "alone" ? "alone" : count.format(relays.length),
    detail: message || facts.filter(Boolean).join(", "),
    level: state === "alone" ? "bad" : lone || apart ? "warn" : undefined,
  };
}

/** Return in words which part of a provider's limits is spent here, nothing if it is all. */
export function partOf(cluster, provider) {
  const parts = cluster?.budget_parts[provider];
  return parts ? `1 of ${parts} parts is spent here, relays that cannot be asked have the rest` : "";
}

/** Show the table of relays; none where a relay is one by itself. */
export function showRelays(cluster, titles) {
  const table = byId("relays", HTMLTableElement);
  hide(table.closest("section"), !cluster);
  if (!cluster) return;
  const notes = notesOf(cluster, titles);
  const rows = [...cluster.relays.map((relay) => ({ key: relay.id, relay })), { key: "notes", notes }];
  fill(
    table.tBodies[0],
    rows,
    ({ key }) => key,
    ({ relay }) => (relay ? makeRelay() : make("tr", {}, make("td", { className: "wide", colSpan: 4 }))),
    (row, { relay }) => {
      if (relay) {
        writeRelay(row, relay, cluster, titles);
        return;
      }
      fill(
        row.cells[0],
        notes.map((text, place) => ({ text, place })),
        ({ place }) => String(place),
        () => make("p"),
        (line, { text }) => write(line, text),
      );
    },
  );
}

function makeRelay() {
  const state = make("td", {}, make("span", { className: "state" }));
  return make("tr", {}, make("th", { scope: "row" }), state, make("td"), make("td"));
}

function writeRelay(row, relay, cluster, titles) {
  write(row.cells[0], relay.here ? `${relay.node} (this one)` : relay.node);
  const isAlone = relay.here && cluster.state === "alone";
  const [state, word] = isAlone
    ? ["error", "alone"]
    : isApart(relay)
      ? ["degraded", "has other settings"]
      : ["ok", "joined"];
  writeState(row.cells[1].firstElementChild, state, word);
  const owned = cluster.shards.filter(({ owner }) => owner === relay.node).map((shard) => shardName(shard, titles));
  const forItself = relay.here ? cluster.shards.filter(({ here }) => here === "own") : [];
  // Shards of other settings are known by their number only.
  const others = Math.max(0, relay.shards - owned.length);
  if (others) owned.push(`${count.format(others)} of other settings`);
  if (forItself.length) {
    owned.push(`for its own clients: ${forItself.map((shard) => shardName(shard, titles)).join(", ")}`);
  }
  write(row.cells[2], owned.join(", ") || "–");
  write(row.cells[3], relay.differs.map((name) => titles.get(name) ?? name).join(", ") || "–");
}

/** Return the name of a shard: that of its provider, with its number where there are several. */
function shardName({ shard, provider }, titles) {
  const [, parts, place] = shard.split(".");
  const title = titles.get(provider) ?? provider;
  return Number(parts) > 1 ? `${title} ${Number(place) + 1}/${parts}` : title;
}

function notesOf(cluster, titles) {
  const { state, message, shards, bus, history_calls: calls, alone_count: times, budget_parts: parts } = cluster;
  const named = (kept) => shards.filter(kept).map((shard) => shardName(shard, titles));
  // Who is alone sees no owners, and carries what its clients want.
  const lone = state === "alone" ? [] : named(({ owners }) => !owners);
  const contested = named((shard) => shard.contested);
  const spent = Object.entries(parts).map(([name, number]) => `1/${number} of ${titles.get(name) ?? name}`);
  const trip = bus.round_trip_ms;
  const numbers = [
    trip && `a write takes ${span(trip.p50)} / ${span(trip.p99)}`,
    `${count.format(bus.lost)} messages lost`,
    `${count.format(bus.invalid)} invalid`,
    `${count.format(times)} times alone`,
  ];
  return [
    message,
    lone.length && `Without owner: ${lone.join(", ")}`,
    contested.length && `Two owners: ${contested.join(", ")}`,
    !message && spent.length && `Limits that are spent here: ${spent.join(", ")}`,
    `NATS: ${numbers.filter(Boolean).join(", ")}`,
    calls.compared &&
      `${count.format(calls.compared)} candles of other relays compared, ${count.format(calls.contradicted)} contradicted by the provider`,
  ].filter(Boolean);
}
