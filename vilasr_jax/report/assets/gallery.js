/* The conversations: a filtered list on one side, one conversation turn by turn on the other. */
const gallery = (() => {
  const PAGE = 60;
  const all = DATA.conversations;
  const byQuestion = new Map();
  all.forEach((conv, index) => {
    conv.index = index;
    if (!byQuestion.has(conv.id)) byQuestion.set(conv.id, []);
    byQuestion.get(conv.id).push(conv);
  });

  const drawn = (key, words, set) => picture(IMAGES[key], words, set);

  function verdict(conv) {
    const said = conv.prediction === null ? "no answer" : `answered ${conv.prediction}`;
    return el("span", { class: `verdict ${conv.correct ? "right" : "wrong"}` },
      conv.correct ? `✓ Right: ${said}` : `✗ Wrong: ${said}, right is ${conv.answer}`);
  }

  function turnView(turn, number, set, counter) {
    const pics = turn.images.map((key) => drawn(key, `Image ${++counter.value}, after turn ${number}`, set));
    return el("li", { class: "turn" }, turnBody(turn, number), pics.length ? el("div", { class: "pics" }, ...pics) : null);
  }

  function questionView(conv, set) {
    const given = conv.images.map((key, i) => drawn(key, `Image ${i + 1}, given`, set));
    return el("div", { class: "turn" }, el("div", {}, el("h3", {}, "Question"), el("p", { class: "question" }, conv.question),
      given.length ? null : el("p", { class: "meta" }, "The pictures of this conversation were not saved.")),
      given.length ? el("div", { class: "pics" }, ...given) : null);
  }

  function turnsView(conv, set) {
    const counter = { value: conv.images.length };
    return el("ol", { class: "turns" }, ...conv.turns.map((turn, i) => turnView(turn, i + 1, set, counter)));
  }

  function metaWords(conv) {
    const reward = Object.entries(conv.reward).map(([name, value]) => `${name} ${number(value)}`).join(", ");
    return [stageLabel(conv.stage), plural(conv.turns.length, "turn"), plural(conv.drawings, "drawing"),
      plural(conv.corrected, "correction"), conv.stop && `ended by ${conv.stop.replace(/_/g, " ")}`,
      reward && `reward: ${reward}`].filter(Boolean).join(" · ");
  }

  function oneView(conv) {
    const set = [];
    return el("article", { "aria-label": `Conversation ${conv.id}` },
      el("header", {}, verdict(conv), el("p", { class: "meta" }, metaWords(conv))),
      questionView(conv, set), turnsView(conv, set));
  }

  function compareView(conv) {
    const others = byQuestion.get(conv.id);
    const shown = others.find((other) => other.images.length) || conv;
    return el("article", { "aria-label": `Question ${conv.id} at each stage` }, questionView(shown, []),
      el("div", { class: "compare", tabindex: 0, role: "region", "aria-label": "One column for each stage" },
        ...others.map((other) => el("section", {}, el("h3", { class: "stage" }, stageLabel(other.stage)),
          el("div", {}, verdict(other)), el("p", { class: "meta" }, metaWords(other).split(" · ").slice(1).join(" · ")),
          turnsView(other, other.images.map((key, i) => ({ url: IMAGES[key], words: `Image ${i + 1}, given` })))))));
  }

  /* The strip under the headline: a right, long and undisturbed conversation of the last stage, a corrected one if it can be. */
  function strip() {
    const able = all.filter((c) => c.correct && c.images.length && c.turns.some((t) => t.images.length));
    const score = (c) => (MAIN.includes(c.stage) ? (3 - MAIN.indexOf(c.stage)) * 1000 : 0) + (c.corrected ? 1 : 0)
      + 2 * Math.min(c.turns.length, 6) - 2 * Math.max(0, c.turns.length - 6) - 10 * c.turns.filter((t) => t.error).length;
    const best = able.reduce((a, b) => (a && score(a) >= score(b) ? a : b), null);
    if (!best) return;
    const set = [], steps = best.images.map((key) => drawn(key, "Given", set));
    best.turns.forEach((turn, i) => turn.images.forEach((key) => steps.push(drawn(key, `Drawn in turn ${i + 1}`, set))));
    document.getElementById("strip").append(el("figure", { class: "strip" },
      el("ol", {}, ...steps.map((step) => el("li", {}, step)),
        el("li", { class: "end" }, "Answer", el("strong", {}, String(best.prediction)), "which is right")),
      el("figcaption", {}, best.question)));
  }

  const state = { shown: [], at: 0, limit: PAGE, compare: false };
  const view = el("div", { class: "conv" }), list = el("ul", { class: "list", "aria-label": "Conversations" });
  const browse = el("div", { class: "browse" }, list, view);
  const count = el("span", { "aria-live": "polite" });
  const notice = el("p", { class: "notice", role: "status" });
  const back = el("button", { type: "button", onclick: () => go(state.at - 1) }, "← Previous");
  const next = el("button", { type: "button", onclick: () => go(state.at + 1) }, "Next →");
  const download = el("button", { type: "button", onclick: () => save() }, "Export list");
  const compare = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    state.compare = !state.compare;
    compare.setAttribute("aria-pressed", String(state.compare));
    browse.classList.toggle("wide", state.compare);
    showConversation();
  } }, "Compare stages");

  function choice(key, label, options, test, first = "") {
    const select = el("select", { onchange: filter }, ...options.map(([value, words]) => el("option", { value, selected: value === first }, words)));
    return { key, first, select, node: el("label", {}, label, select),
      passes: (conv) => select.value === "" || test(conv, select.value) };
  }

  /* The same question in the nearest trained stage before, if it was put there. */
  const TRAINED = ["untrained", "cold_start", "reflect", "rl"];
  function before(conv) {
    const at = TRAINED.indexOf(conv.stage);
    const earlier = byQuestion.get(conv.id).filter((c) => TRAINED.includes(c.stage) && TRAINED.indexOf(c.stage) < at);
    return earlier.reduce((a, b) => (a && TRAINED.indexOf(a.stage) > TRAINED.indexOf(b.stage) ? a : b), null);
  }
  function changed(conv, now) {
    const old = before(conv);
    return old !== null && conv.correct === now && old.correct !== now;
  }
  const OUTCOMES = { right: (c) => c.correct, wrong: (c) => !c.correct, lost: (c) => changed(c, false), gained: (c) => changed(c, true) };

  const present = (get) => [...new Set(all.map(get))];
  const families = present((c) => c.family).filter(Boolean).sort();
  const turnCounts = present((c) => c.turns.length).sort((a, b) => a - b);
  const search = el("input", { type: "search", placeholder: "in questions and turns", oninput: filter });
  const MAIN = ["rl", "reflect", "cold_start"];
  const newest = DATA.live && all.length && all[0].stage.includes("@") ? all[0].stage : "";  // saved while training
  const filters = [
    choice("stage", "Stage", [["", "All stages"], ...Object.entries(DATA.stages).filter(([s]) => all.some((c) => c.stage === s))],
      (c, value) => c.stage === value, newest || MAIN.find((stage) => all.some((c) => c.stage === stage))),
    choice("outcome", "Outcome", [["", "Right and wrong"], ["right", "Right"], ["wrong", "Wrong"],
      ["lost", "Right before, wrong now"], ["gained", "Wrong before, right now"]], (c, v) => OUTCOMES[v](c)),
    choice("corrections", "Corrections", [["", "Any"], ["yes", "With a correction"], ["no", "Without"]], (c, v) => (c.corrected > 0) === (v === "yes")),
    choice("turns", "Turns", [["", "Any number"], ...turnCounts.map((n) => [String(n), plural(n, "turn")])], (c, v) => c.turns.length === +v),
    choice("errors", "Errors", [["", "Any"], ["yes", "With an error"], ["no", "Without"]], (c, v) => c.turns.some((t) => t.error) === (v === "yes")),
    ...(families.length > 1 ? [choice("family", "Family", [["", "All"], ...families.map((f) => [f, f])], (c, v) => c.family === v)] : []),
  ];

  /* The address of what is shown: "#stage=rl&outcome=wrong&conversation=ID"; only what differs from the page as it opens. */
  let restoring = true;  // until the address that the page was opened with is read
  function writeAddress() {
    if (restoring) return;
    const words = new URLSearchParams();
    for (const one of filters) if (one.select.value !== (one.first || "")) words.set(one.key, one.select.value);
    if (search.value.trim()) words.set("find", search.value.trim());
    const conv = state.shown[state.at];
    if (conv && state.at > 0) { words.set("conversation", conv.id); words.set("of", conv.stage); }
    if (state.compare) words.set("compare", "yes");
    const address = words.toString();
    history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
  }

  function readAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    const isView = [...words.values()].some((value) => value);  // else it is a link to a part of the page
    restoring = true;
    if (isView) restore(words);
    restoring = false;
    if (isView) writeAddress();
  }

  function restore(words) {
    const keys = [...filters.map((one) => one.key), "find", "conversation", "of", "compare"];
    const unknown = [...words].filter(([key]) => !keys.includes(key));
    for (const one of filters) {
      const value = words.get(one.key) ?? one.first ?? "", known = [...one.select.options].some((option) => option.value === value);
      one.select.value = known ? value : one.first || "";
      if (!known) unknown.push([one.key, value]);
    }
    search.value = words.get("find") || "";
    if (state.compare !== (words.get("compare") === "yes")) compare.click();
    filter();
    const id = words.get("conversation");
    const at = state.shown.findIndex((c) => c.id === id && (!words.has("of") || c.stage === words.get("of")));
    go(at);
    if (id !== null && at < 0) unknown.push(["conversation", id]);
    const named = unknown.map(([key, value]) => `${key}=${value}`.slice(0, 60)).slice(0, 5).join(", ");
    notice.textContent = named && `The address names what is not in this list: ${named}.`;
    const isReload = performance.getEntriesByType("navigation").some((one) => one.type === "reload");
    if (!isReload) document.getElementById("conversations").scrollIntoView();  // else where the reader was
  }

  /* The filtered list as a file: one JSON object a line, without pictures. */
  function save() {
    const lines = state.shown.map((c) => JSON.stringify({ id: c.id, stage: c.stage, question: c.question, answer: c.answer,
      prediction: c.prediction, correct: c.correct, corrected: c.corrected, reward: c.reward, stop_reason: c.stop,
      turns: c.turns.map((turn) => ({ text: turn.text, calls: turn.calls, error: turn.error })) }));
    const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
    el("a", { href: url, download: "conversations.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function filter() {
    const current = state.shown[state.at], words = search.value.trim().toLowerCase();
    state.shown = all.filter((conv) => filters.every((one) => one.passes(conv)) && (!words
      || conv.question.toLowerCase().includes(words) || conv.id.toLowerCase().includes(words)
      || conv.turns.some((turn) => turn.text.toLowerCase().includes(words))));
    state.at = Math.max(0, state.shown.indexOf(current));
    state.limit = Math.max(PAGE, state.at + 1);
    notice.textContent = "";
    showList();
    showConversation();
  }

  function row(conv, at) {
    const keys = conv.images.concat(...conv.turns.map((turn) => turn.images));
    return el("li", {}, el("button", { type: "button", "aria-current": String(at === state.at), onclick: () => go(at) },
      keys.length ? el("img", { src: IMAGES[keys[keys.length - 1]], alt: "", loading: "lazy", decoding: "async" })
        : el("span", { class: "blank" }),
      el("span", { class: "name" }, `${conv.correct ? "✓" : "✗"} ${conv.id}`),
      el("span", { class: "sub" }, rowWords(conv))));
  }

  function rowWords(conv) {
    const corrected = conv.corrected ? ", corrected" : "";
    return `${plural(conv.turns.length, "turn")}${corrected} · ${stageLabel(conv.stage)}`;
  }

  function showList() {
    const rows = state.shown.slice(0, state.limit).map(row);
    if (state.shown.length > state.limit) rows.push(el("li", {}, el("button", { type: "button", class: "more",
      onclick: () => { state.limit += PAGE; showList(); } }, `Show more (${state.shown.length - state.limit} left)`)));
    list.replaceChildren(...rows);
  }

  function showConversation() {
    const conv = state.shown[state.at];
    count.textContent = conv ? `${state.at + 1} of ${plural(state.shown.length, "conversation")}` : "No conversation fits these filters.";
    back.disabled = !conv || state.at === 0;
    next.disabled = !conv || state.at === state.shown.length - 1;
    const others = conv ? byQuestion.get(conv.id).length : 0;
    compare.disabled = others < 2;
    compare.textContent = others < 2 ? "Compare stages" : `Compare ${others} stages`;
    const shown = conv ? [state.compare && others > 1 ? compareView(conv) : oneView(conv)] : [];
    view.replaceChildren(...shown);
    download.disabled = !conv;
    writeAddress();
  }

  function go(at) {
    if (at < 0 || at >= state.shown.length) return;
    const before = list.children[state.at];
    state.at = at;
    if (at >= state.limit) { state.limit = at + PAGE; showList(); }
    before?.firstChild.setAttribute("aria-current", "false");
    const now = list.children[at].firstChild;
    now.setAttribute("aria-current", "true");
    const top = now.parentNode.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 70) list.scrollTop = top - 80;
    showConversation();
  }

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    if (event.target.closest("input, select, textarea, dialog, .compare, summary")) return;
    if (event.key === "ArrowLeft") go(state.at - 1);
    else if (event.key === "ArrowRight") go(state.at + 1);
    else return;
    event.preventDefault();
  });

  if (all.length) {
    document.getElementById("gallery").replaceChildren(
      el("div", { class: "filters" }, ...filters.map((one) => one.node), el("label", {}, "Find", search)),
      notice, el("div", { class: "status" }, count, compare, download, back, next, el("span", { class: "keys" }, "or the arrow keys ← →")),
      browse);
    strip();
    filter();
    readAddress();
    addEventListener("hashchange", readAddress);
  }
})();
