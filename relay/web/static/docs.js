// @ts-check
// The search of the page of the contracts: shows the routes, messages and objects that have all the words.

import { byId, hide, write } from "./page.js";

const input = byId("search", HTMLInputElement);
/** @type {NodeListOf<HTMLElement>} */
const cards = document.querySelectorAll(".card");
const texts = new Map([...cards].map((card) => [card, (card.textContent ?? "").toLowerCase()]));
/** @type {NodeListOf<HTMLElement>} */
const links = document.querySelectorAll(".contents a[href^='#']");

function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const card of cards) {
    const fits = words.every((word) => texts.get(card)?.includes(word));
    hide(card, !fits);
    if (fits) found += 1;
  }
  for (const link of links) {
    const card = document.getElementById(link.getAttribute("href")?.slice(1) ?? "")?.closest(".card");
    if (card) hide(link, /** @type {HTMLElement} */ (card).hidden);
  }
  write(byId("found"), !words.length ? "" : found ? `${found} of ${cards.length} found` : "Nothing found");
}

input.addEventListener("input", search);
// A link to what the search left out shows all again.
addEventListener("hashchange", () => {
  const card = document.getElementById(location.hash.slice(1))?.closest(".card");
  if (!(card instanceof HTMLElement) || !card.hidden) return;
  input.value = "";
  search();
  card.scrollIntoView();
});
// A browser that comes back to the page keeps what was typed.
search();
