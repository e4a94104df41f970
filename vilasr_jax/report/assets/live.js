"use strict";
/* The page of a running job loads itself again, unless the reader is busy in it. */
if (DATA.live) {
  const note = document.getElementById("live");
  note.hidden = false;
  note.textContent = `Live: loaded at ${new Date().toLocaleTimeString()}, again every ${DATA.live} seconds.`;
  const isBusy = () => document.querySelector("dialog[open]") || document.activeElement.matches("input, select")
    || String(getSelection()) || document.hidden;
  setInterval(() => { if (!isBusy()) location.reload(); }, 1000 * DATA.live);
}
