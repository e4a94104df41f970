/* Curves: a small figure for each metric of a stage; a training and a validation series are in one, and those of
   another run where the page was written with one. */
const charts = (() => {
  const WIDTH = 330, HEIGHT = 150, LEFT = 42, BOTTOM = 20, TOP = 8;
  const FIRST = ["loss", "reward", "accuracy", "format", "drew", "drawing", "corrected", "turns", "length", "tokens"];
  const SECOND = /^(?:val|valid|validation|eval|test)[/_.]|[/_.](?:val|valid|validation)$/;

  function rank(name) {
    const at = FIRST.findIndex((word) => name.includes(word));
    return at < 0 ? FIRST.length : at;
  }

  const TITLES = {
    reward: "Reward", accuracy: "Accuracy", format: "Reward for the format", drawing: "Reward for the drawings",
    drew: "Conversations with a drawing", drawings: "Drawings per conversation",
    corrected: "Conversations with a correction", errors: "Errors per conversation",
    cut_off: "Conversations cut off by a limit", response_tokens: "Sampled tokens per conversation",
    equal_groups: "Groups with equal rewards",
    "drawing/turns": "Turns per conversation", "drawing/drawings": "Drawn images per conversation",
    "drawing/corrections": "Corrections per conversation", "drawing/repeats": "Repeated drawings per conversation",
    "drawing/invalid": "Turns with an error per conversation", "drawing/box_iou": "Overlap with the right boxes (IoU)",
    "drawing/lines_drawn": "Fraction of the right lines drawn", "drawing/line_distance": "Distance from the right lines in pixels",
    clipped_high: "Tokens clipped at the upper limit", clipped_low: "Tokens clipped at the lower limit",
    dual_clipped: "Tokens clipped by the dual clip", importance: "Importance weight", entropy: "Entropy",
    kl: "KL divergence from before the update", ref_kl: "KL divergence from the reference model",
    rollout_kl: "KL divergence of sampling from training",
    grad_norm: "Gradient norm", skipped: "Skipped updates", useful_tokens: "Fraction of tokens without padding",
    tokens_per_second: "Training tokens per second", sampled_tokens_per_second: "Sampled tokens per second",
    mfu: "Model FLOPs utilisation", sampling_seconds: "Seconds of sampling per step", update_seconds: "Seconds of updates per step",
  };
  const CALLS = "drawing/calls/";

  /* Plain words for a metric: those above, of calls the tool's name, else its own with spaces. */
  function title(name) {
    const own = name.replace(/^train[/_.]/, "");
    if (own.startsWith(CALLS)) return `Calls of ${spaced(own.slice(CALLS.length), true)} per conversation`;
    return Object.hasOwn(TITLES, own) ? TITLES[own] : spaced(own);
  }

  function spaced(name, all = false) {
    const words = name.split(/[/_.]+/).filter(Boolean);
    return words.map((word, i) => (all || !i ? word.charAt(0).toUpperCase() + word.slice(1) : word)).join(" ");
  }

  function panels(curves, others) {
    const grouped = new Map();
    for (const [other, named] of [[false, curves], [true, others]]) {
      for (const [name, points] of Object.entries(named)) {
        const second = SECOND.test(name);
        const key = name.replace(SECOND, "").replace(/^train[/_.]/, "");
        if (!grouped.has(key)) grouped.set(key, []);
        grouped.get(key).push({ name, points, second, other });
      }
    }
    const out = [...grouped].map(([key, series]) => ({ key, series: series.sort((a, b) => a.other - b.other || a.second - b.second) }));
    return out.sort((a, b) => rank(a.key) - rank(b.key) || a.key.localeCompare(b.key));
  }

  const look = { log: false, smoothing: 0 };

  /* Exponential moving average, its start not biased towards 0. */
  function smooth(points) {
    let sum = 0, weight = 0;
    return points.map(([step, value]) => {
      sum = look.smoothing * sum + (1 - look.smoothing) * value;
      weight = look.smoothing * weight + (1 - look.smoothing);
      return [step, sum / weight];
    });
  }

  function draw({ key, series: recorded }) {
    const series = recorded.map((one) => ({ ...one, points: smooth(one.points) }));
    const all = series.flatMap((one) => one.points);
    const steps = all.map((p) => p[0]), values = all.map((p) => p[1]);
    const x0 = Math.min(...steps), x1 = Math.max(...steps);
    const log = look.log && values.every((value) => value > 0);
    let y0 = Math.min(...values), y1 = Math.max(...values);
    if (!log && y0 > 0 && y0 < y1 * 0.6) y0 = 0;
    if (y0 === y1) [y0, y1] = log ? [y0 / 2, y1 * 2] : [Math.min(0, y0), Math.max(0, y1) || 1];
    const scale = log ? Math.log : (value) => value;
    const x = (step) => LEFT + ((step - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - 6);
    const y = (value) => TOP + (1 - (scale(value) - scale(y0)) / (scale(y1) - scale(y0))) * (HEIGHT - TOP - BOTTOM);
    const output = el("output", {}, last(series));
    const heading = series.every((one) => one.second) ? `${title(key)}, validation` : title(key);
    const cursor = el("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    const svg = el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0,
      "aria-label": `${heading}, steps ${number(x0)} to ${number(x1)}. ${last(series)}` },
      ...[y0, y1].flatMap((value) => [
        el("line", { class: "axis", x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) }),
        el("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
      ]),
      el("text", { x: LEFT, y: HEIGHT - 4 }, number(x0)),
      el("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, `step ${number(x1)}`),
      cursor);
    for (const one of series) {
      const extra = (one.second ? " second" : "") + (one.other ? " other" : "");
      const d = one.points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
      svg.append(el("path", { class: `raw${extra}`, d }));
      if (one.points.length < 30)
        for (const p of one.points) svg.append(el("circle", { class: `dot${extra}`, cx: x(p[0]), cy: y(p[1]), r: 2.6 }));
    }
    const marks = [...new Set(steps)].sort((a, b) => a - b);
    let at = -1;
    function show(index) {
      at = Math.max(0, Math.min(marks.length - 1, index));
      const step = marks[at];
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      cursor.setAttribute("visibility", "visible");
      const said = series.map((one) => ({ one, p: one.points.find((p) => p[0] === step) })).filter((s) => s.p);
      output.textContent = `step ${number(step)}: ` + said.map((s) => word(series, s.one) + number(s.p[1])).join(", ");
    }
    function hide() {
      at = -1;
      cursor.setAttribute("visibility", "hidden");
      output.textContent = last(series);
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const step = x0 + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - 6) * (x1 - x0);
      let best = 0;
      marks.forEach((mark, i) => { if (Math.abs(mark - step) < Math.abs(marks[best] - step)) best = i; });
      show(best);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      show(at < 0 ? (move > 0 ? 0 : marks.length - 1) : at + move);
    });
    const own = series.filter((one) => !one.other);
    const words = own.length > 1 ? ["Solid: training. Dashed: "
      + own.slice(1).map((one) => (one.second ? "validation" : title(one.name))).join(", ") + "."] : [];
    if (own.length < series.length) words.push(`Grey: ${DATA.other.name}.`);
    if (look.log && !log) words.push("Not all values are above 0: linear scale.");
    const legend = words.length ? el("p", { class: "legend" }, words.join(" ")) : null;
    return el("figure", { class: "chart" }, el("figcaption", {}, el("span", {}, heading), output), svg, legend);
  }

  function word(series, one) {
    if (one.other) return `${DATA.other.name}${one.second ? " validation" : ""} `;
    return series.length > 1 ? `${one.second ? "validation" : "training"} ` : "";
  }

  function last(series) {
    return "last " + series.map((one) => word(series, one) + number(one.points[one.points.length - 1][1])).join(", ");
  }

  const root = document.getElementById("curves");
  const opened = new Set();  // stages whose other curves are shown
  const others = DATA.other ? DATA.other.curves : {};
  const stages = Object.keys(DATA.stages).filter((stage) => DATA.curves[stage] || others[stage]);

  function stageView(stage) {
    const all = panels(DATA.curves[stage] || {}, others[stage] || {});
    const main = all.filter((panel) => rank(panel.key) < FIRST.length).slice(0, 9);
    const rest = all.filter((panel) => !main.includes(panel));
    const more = el("details", { class: "more" }, el("summary", {}, plural(rest.length, "more curve")));
    more.addEventListener("toggle", () => {
      opened[more.open ? "add" : "delete"](stage);
      if (more.open && more.children.length === 1) more.append(el("div", { class: "grid" }, ...rest.map(draw)));
    });
    more.open = opened.has(stage);
    return el("div", { class: "stagecurves" }, el("h3", {}, stageLabel(stage)),
      el("div", { class: "grid" }, ...main.map(draw)), rest.length ? more : null);
  }

  const drawn = el("div");
  function show() { drawn.replaceChildren(...stages.map(stageView)); }
  const log = el("input", { type: "checkbox", onchange: () => { look.log = log.checked; show(); } });
  const slider = el("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0,
    oninput: () => { look.smoothing = Number(slider.value); show(); } });
  if (stages.length) {
    root.replaceChildren(el("div", { class: "look" }, el("label", {}, log, "Log scale"), el("label", {}, "Smoothing", slider)), drawn);
    show();
  }
})();
