// @ts-check
// Builds and changes elements of a page without ever reading text as markup.

/**
 * Return the element of an id; throws where the page has none of this kind.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function byId(id, kind) {
  return within(document, `#${id}`, kind);
}

/**
 * Return the first element in another one that a selector names; throws where there is none of this kind.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function within(parent, selector, kind) {
  const found = parent.querySelector(selector);
  if (!(found instanceof (kind ?? HTMLElement))) throw new Error(`the page has no ${selector}`);
  return /** @type {T} */ (found);
}

/** Return an element with properties, `data-` and `aria-` attributes and children (elements or texts). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Hide an element, or show it. */
export function hide(element, isHidden) {
  element.hidden = isHidden;
}

/** Set a text, only where it changes: what the reader has selected stays selected. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set the state that colours an element, and its text. */
export function writeState(element, state, text = state) {
  if (element.dataset.state !== state) element.dataset.state = state;
  write(element, text);
}

/**
 * Make the children of `parent` those of `items`, in order: kept where the key is known, made where it is not.
 *
 * `create(item)` returns a new element, `update(element, item)` fills it in.
 */
export function fill(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let element = known.get(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    known.delete(key);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
  for (const element of known.values()) element.remove();
}
