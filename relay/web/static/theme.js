// @ts-check
// The theme of all pages: that of the address (`?theme=dark`), else what the reader chose, else the system's. A classic
// script in the head, so that the first paint has the right colours already. A button with `data-theme-toggle` switches;
// `themechange` tells the document.
(() => {
  const KEY = "relay-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser that keeps nothing
    }
  }

  function linked() {
    return new URLSearchParams(location.search).get("theme");
  }

  function apply() {
    const choice = [linked(), chosen()].find((one) => one === "dark" || one === "light");
    set(choice ?? (system.matches ? "dark" : "light"));
  }

  function set(theme) {
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("themechange", { detail: theme }));
  }

  function toggle() {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      // The system's own theme is no choice: it may change with the time of day.
      if ((next === "dark") === system.matches) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, next);
    } catch {
      // Then it lasts until the page is loaded again.
    }
    if (linked() !== null) {
      // What the reader chooses goes before what the author of the link chose.
      const address = new URL(location.href);
      address.searchParams.delete("theme");
      history.replaceState(null, "", address);
    }
    set(next);
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", ({ key }) => key === KEY && apply());
  document.addEventListener("click", ({ target }) => {
    if (target instanceof Element && target.closest("[data-theme-toggle]")) toggle();
  });
})();
