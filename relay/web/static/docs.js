// @ts-check
// The page of the contracts: its search shows only the routes, messages and objects that have all the words.

import { byId, hide, within, write } from "./page.js";

const input = byId("search", HTMLInputElement);
/** @type {NodeListOf<HTMLElement>} */
const cards = document.querySelectorAll(".card");
const texts = new Map([...cards].map((card) => [card, (card.textContent ?? "").toLowerCase()]));
/** @type {NodeListOf<HTMLElement>} */
const links = document.querySelectorAll(".contents a[href^='#']");

/** A number is looked for as a whole: a time has many others in it. */
function has(text, word) {
  return /^\d+$/.test(word) ? new RegExp(`(?<!\\d)${word}(?!\\d)`).test(text) : text.includes(word);
}

function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const card of cards) {
    const fits = words.every((word) => has(texts.get(card) ?? "", word));
    hide(card, !fits);
    if (fits) found += 1;
  }
  for (const link of links) {
    const card = document.getElementById(link.getAttribute("href")?.slice(1) ?? "")?.closest(".card");
    if (card) hide(link, /** @type {HTMLElement} */ (card).hidden);
  }
  document.body.classList.toggle("searched", words.length > 0);
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
// Who is at the top needs no way there.
const toTop = within(document, ".to-top");
new IntersectionObserver(([{ isIntersecting }]) => hide(toTop, isIntersecting)).observe(within(document, "header"));
// A browser that comes back to the page keeps what was typed.
search();
