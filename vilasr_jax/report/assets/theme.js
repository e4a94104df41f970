"use strict";
/* Colours: as the system says, until the reader chooses; the choice is saved where storage is allowed. */
const theme = (() => {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const choices = ["automatic", "light", "dark"];
  let choice = "automatic";
  try { choice = localStorage.getItem("vilasr-theme") || choice; } catch (error) { /* storage is blocked */ }
  function show() {
    const dark = choice === "dark" || (choice === "automatic" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.textContent = `Theme: ${choice}`;
  }
  button.addEventListener("click", () => {
    choice = choices[(choices.indexOf(choice) + 1) % choices.length];
    try { localStorage.setItem("vilasr-theme", choice); } catch (error) { /* storage is blocked */ }
    show();
  });
  system.addEventListener("change", show);
  show();
})();
