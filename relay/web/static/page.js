// Builds and changes elements of a page without ever reading text as markup.

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
