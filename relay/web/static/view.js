// @ts-check
// How charts are looked at: scale, times, averages; and the dialog that changes it, and goes to a date.

import { byId, within, write } from "./page.js";
import { onceUtc } from "./format.js";

const KEY = "relay-view";
const DEFAULT = { scale: "normal", isLocal: false, hasAverages: false };
const SCALES = ["normal", "logarithmic", "percent"];

/** Return what was remembered, or the default. */
export function storedView() {
  try {
    const { scale, isLocal, hasAverages } = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return {
      scale: SCALES.includes(scale) ? scale : DEFAULT.scale,
      isLocal: isLocal === true,
      hasAverages: hasAverages === true,
    };
  } catch {
    return { ...DEFAULT };
  }
}

/** The dialog. `onChange` is called with the view, `onGo` with a time in Unix seconds; it returns what to say. */
export class ViewDialog {
  #dialog = byId("view", HTMLDialogElement);
  #form = within(this.#dialog, "form", HTMLFormElement);
  #said = within(this.#dialog, "[role=status]");
  #view = storedView();

  constructor({ onChange, onGo }) {
    const form = this.#form;
    for (const radio of this.#radios("scale")) radio.checked = radio.value === this.#view.scale;
    for (const radio of this.#radios("time")) radio.checked = (radio.value === "local") === this.#view.isLocal;
    const averages = within(form, "[name=averages]", HTMLInputElement);
    averages.checked = this.#view.hasAverages;
    form.addEventListener("change", () => {
      const chosen = new FormData(form);
      this.#view = {
        scale: String(chosen.get("scale")),
        isLocal: chosen.get("time") === "local",
        hasAverages: averages.checked,
      };
      try {
        localStorage.setItem(KEY, JSON.stringify(this.#view));
      } catch {
        // Then it lasts until the page is loaded again.
      }
      onChange(this.#view);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const text = within(form, "[name=date]", HTMLInputElement).value;
      const time = onceUtc(text, this.#view.isLocal);
      if (time === null) return write(this.#said, "Choose a date and a time first.");
      write(this.#said, "Loading …");
      const problem = await onGo(time);
      write(this.#said, problem);
      if (!problem) this.#dialog.close();
    });
    within(form, "[data-do=copy]").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        write(this.#said, "The link is copied.");
      } catch {
        write(this.#said, `The browser does not allow the page to copy; the link is ${location.href}`);
      }
    });
    within(form, "[data-do=full]").addEventListener("click", () => {
      this.#dialog.close();
      this.toggleFull();
    });
  }

  get view() {
    return this.#view;
  }

  open() {
    write(this.#said, "");
    this.#dialog.showModal();
  }

  /** Take the whole screen, or give it back. */
  async toggleFull() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await document.documentElement.requestFullscreen();
    } catch {
      // Phones of one maker have no such function at all.
      write(this.#said, "The browser does not allow full screen.");
      this.#dialog.showModal();
    }
  }

  /** @returns {HTMLInputElement[]} */
  #radios(name) {
    return [...this.#form.querySelectorAll(`[name=${name}]`)].filter((one) => one instanceof HTMLInputElement);
  }
}
