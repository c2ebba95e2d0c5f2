// @ts-check
// The token of this tab: kept in the session storage, asked for in a dialog when the relay wants one.

import { byId, within } from "./page.js";

const KEY = "relay-token";
/** @type {Promise<string> | null} */
let asking = null;

/** Return the token entered in this tab, or undefined. */
export function currentToken() {
  try {
    return sessionStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

/**
 * Ask for a token and keep it; however many ask at once, there is one dialog, and all get its answer.
 *
 * The page needs `<dialog id="token">` with a form, an input `token` and a paragraph `.reason`.
 */
export function askToken(reason) {
  asking ??= ask(reason).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(reason) {
  const dialog = byId("token", HTMLDialogElement);
  const form = within(dialog, "form", HTMLFormElement);
  const input = within(form, "[name=token]", HTMLInputElement);
  within(dialog, ".reason").textContent = reason;
  input.value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    // Without a token there is nothing to show behind the dialog.
    dialog.oncancel = (event) => event.preventDefault();
    input.oninput = () => input.setCustomValidity("");
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(token)) {
        input.setCustomValidity("A token is one word of letters, digits and other printable ASCII characters.");
        input.reportValidity();
        return;
      }
      try {
        sessionStorage.setItem(KEY, token);
      } catch {
        // Then it lasts until the page is loaded again.
      }
      dialog.close();
      resolve(token);
    };
  });
}
