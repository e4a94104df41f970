"use strict";
/* The page of rows: a picture enlarges, and the arrow keys go through those of its row. */
for (const row of document.querySelectorAll("article")) {
  const set = [];
  for (const one of row.querySelectorAll("figure")) {
    const image = one.querySelector("img"), at = set.push({ url: image.src, words: one.textContent }) - 1;
    const open = () => zoom.open(set, at);
    one.tabIndex = 0;
    one.setAttribute("role", "button");
    one.setAttribute("aria-label", `Enlarge: ${one.textContent}`);
    one.addEventListener("click", open);
    one.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
    });
  }
}
