// @ts-check
// Marks the page as one in a frame of another page before it is painted: a classic script in the head, as the theme is.
if (new URLSearchParams(location.search).get("embed") === "1") document.documentElement.dataset.embed = "";
