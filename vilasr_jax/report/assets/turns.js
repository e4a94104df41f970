"use strict";
/* Turns and pictures of a conversation, on the page of a report and of a server. */

/* A picture in a button that enlarges it; `set` are all pictures of the conversation, for going through them. */
function picture(url, words, set) {
  const at = set.push({ url, words }) - 1;
  return el("button", { type: "button", class: "pic", "aria-label": `Enlarge: ${words}`, onclick: () => zoom.open(set, at) },
    el("img", { src: url, alt: words, decoding: "async" }), words);
}

const zoom = (() => {
  const box = document.getElementById("zoom");
  let set = [], at = 0;
  function show(index) {
    at = Math.max(0, Math.min(set.length - 1, index));
    box.querySelector("img").src = set[at].url;
    box.querySelector("img").alt = set[at].words;
    box.querySelector("figcaption").textContent = `${set[at].words} (${at + 1} of ${set.length})`;
    box.querySelector('[data-step="-1"]').disabled = at === 0;
    box.querySelector('[data-step="1"]').disabled = at === set.length - 1;
  }
  box.addEventListener("click", (event) => {
    if (event.target === box || event.target.closest("[data-close]")) box.close();
    const step = event.target.closest("[data-step]");
    if (step) show(at + Number(step.dataset.step));
  });
  box.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { event.preventDefault(); show(at + move); }
  });
  return { open(pictures, index) { set = pictures; show(index); box.showModal(); } };
})();

function round(value) {
  return typeof value === "number" ? String(Math.round(value)) : String(value);
}

function callWords(call) {
  const label = call.label ? `“${call.label}” ` : "";
  const on = call.index ? `on image ${call.index}` : "";
  const has = (...names) => names.every((name) => name in call);
  let points = null, kind = String(call.tool || "").toLowerCase();
  if (has("x1", "y1", "x2", "y2")) points = [call.x1, call.y1, call.x2, call.y2];
  else if (Array.isArray(call.bbox_2d)) { points = call.bbox_2d; kind = kind || "box"; }
  else if (has("start_point_2d", "end_point_2d")) { points = [].concat(call.start_point_2d, call.end_point_2d); kind = kind || "line"; }
  if (!points || points.length !== 4) return JSON.stringify(call);
  const line = kind.includes("line") || kind.includes("path");
  const [a, b, c, d] = points.map(round);
  return `${line ? "Line" : "Box"} ${label}${on}: (${a}, ${b}) ${line ? "→" : "to"} (${c}, ${d})`;
}

function said(text) {
  const end = text.indexOf("</think>");
  const think = end < 0 ? "" : text.slice(0, end).replace("<think>", "").trim();
  const rest = (end < 0 ? text : text.slice(end + "</think>".length)).trim();
  const action = (rest.match(/Action:[ \t]*([A-Za-z ]+)/) || [])[1];
  const answer = (rest.match(/<answer>([\s\S]*?)(?:<\/answer>|$)/) || [])[1];
  return { think, rest, action: action && action.trim(), answer: answer === undefined ? null : answer.trim() };
}

/* What a turn says: its thought, action, drawings or answer, the error that followed; and the text as it was written. */
function turnBody(turn, number) {
  const { think, rest, action, answer } = said(turn.text);
  const known = action || answer !== null;
  return el("div", {}, el("h3", {}, `Turn ${number}`),
    think ? el("p", {}, think) : null,
    action && answer === null ? el("p", { class: "action" }, action) : null,
    answer !== null ? el("p", { class: "said" }, `Answer: ${answer}`) : null,
    !known && rest ? el("p", {}, rest) : null,
    turn.calls.length ? el("ul", {}, ...turn.calls.map((call) => el("li", {}, callWords(call)))) : null,
    turn.error ? el("p", { class: "fault" }, `Error that the model read: ${turn.error}`) : null,
    el("details", {}, el("summary", {}, "As written"), el("pre", {}, turn.text)));
}
