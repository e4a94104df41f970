"use strict";
/* Sends questions to the server's chat completions API, and shows the conversation as it streams. */
const $ = (id) => document.getElementById(id);
const PIXELS = 4e6;  // of an image that is sent; a model sees fewer
const narrow = matchMedia("(max-width: 760px)");  // where the conversation is below the form, as in page.css
const state = { images: [], limits: { images: 1, pixels: PIXELS, bytes: 2 ** 24 }, known: null, model: "", running: null,
  follow: false, reading: Promise.resolve() };

function showFault(fault) {
  $("fault").textContent = fault || "";
  $("fault").hidden = !fault;
  if (fault) $("fault").scrollIntoView({ block: "nearest", behavior: "instant" });
}

function headers() {
  const token = $("token").value;
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

/* The reply of the server, or an Error with its own words. */
async function call(path, init) {
  let reply;
  try {
    reply = await fetch(path, { ...init, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server can't be reached. Is it still running?");
  }
  if (reply.ok) return reply;
  let words = `The server refused (${reply.status}).`;
  try { words = (await reply.json()).error.message; } catch (error) { /* it sent no reason */ }
  if (reply.status === 401) { $("secret").hidden = false; $("token").focus(); }
  throw new Error(words);
}

/* The images of the next question, each with a button that removes it. */
function showImages(images, known) {
  state.images = images;
  state.known = known === undefined ? null : known;
  $("chosen").replaceChildren(...images.map((image, i) => el("li", {}, el("img", { src: image.url, alt: image.name }),
    el("button", { type: "button", "aria-label": `Remove ${image.name}`, onclick: () => showImages(images.filter((one) => one !== image)) }, "×"))));
  const most = state.limits.images, more = most > 1 ? `, up to ${most}` : "";
  $("hint").textContent = images.length ? (most > 1 ? `${plural(images.length, "image")}${more}: add another` : "Choose another image")
    : `Choose ${most > 1 ? "images" : "an image"}${more}, drop or paste ${most > 1 ? "them" : "it"} here`;
}

function asDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error(`${file.name} can't be read.`)));
    reader.readAsDataURL(file);
  });
}

/* The file as a data URL; a large photo is shrunk, to what the server accepts and a phone can send. */
async function readImage(file) {
  const bytes = 0.7 * state.limits.bytes / state.limits.images, most = Math.min(PIXELS, state.limits.pixels);
  let bitmap = null;
  try { bitmap = await createImageBitmap(file); } catch (error) { /* the server may know the format */ }
  if (!bitmap) {
    if (file.size > bytes) throw new Error(`${file.name} is no image that this browser can shrink, and too large to send.`);
    return asDataUrl(file);
  }
  const { width, height } = bitmap, canvas = document.createElement("canvas");
  let scale = Math.min(1, Math.sqrt(most / (width * height))), url = scale === 1 && file.size <= bytes ? await asDataUrl(file) : "";
  for (; !url || url.length > 4 / 3 * bytes + 100; scale *= 0.7) {
    canvas.width = Math.max(1, Math.floor(scale * width));
    canvas.height = Math.max(1, Math.floor(scale * height));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    url = canvas.toDataURL("image/jpeg", 0.92);
  }
  bitmap.close();
  return url;
}

function takeFiles(files) {
  state.reading = state.reading.then(() => addFiles(files));
  return state.reading;
}

async function addFiles(files) {
  const most = state.limits.images;
  let images = most === 1 ? [] : state.images;
  try {
    for (const file of files) {
      if (!file.type.startsWith("image/")) throw new Error(`${file.name || "That"} isn't an image.`);
      if (images.length === most) throw new Error(`At most ${plural(most, "image")} ${most === 1 ? "is" : "are"} sent with a question; remove one first.`);
      images = [...images, { url: await readImage(file), name: file.name || "Pasted image" }];
    }
    showFault();
  } catch (error) {
    showFault(error.message);
  }
  if (images !== state.images && images.length) showImages(images);
}

function takeSample(sample, number) {
  showImages([{ url: sample.image, name: `Sample ${number}` }], sample.answer);
  showFault();
  $("question").value = sample.question;
  $("options").value = (sample.options || []).join(", ");
}

async function load() {
  try {
    const models = await (await call("/v1/models")).json();
    state.model = models.data[0].id;
    $("model").textContent = state.model;
    const { samples, limits } = await (await call("/samples")).json();
    state.limits = limits;
    showImages(state.images, state.known);
    $("samples").hidden = !samples.length;
    document.querySelector(".samples").replaceChildren(...samples.map((sample, i) =>
      el("button", { type: "button", title: sample.question, "aria-label": `Sample ${i + 1}: ${sample.question}`,
        onclick: () => takeSample(sample, i + 1) }, el("img", { src: sample.image, alt: "", loading: "lazy" }))));
    showFault();
  } catch (error) {
    showFault(error.message);
  }
}

/* One turn on the page: text as it streams; when it has ended, its words as in the report, and what was drawn. */
function turnNode(number, set) {
  const text = el("pre", { class: "writing" });
  const node = el("li", { class: "turn" }, el("div", {}, el("h3", {}, `Turn ${number}`), text));
  $("turns").append(node);
  return {
    write(piece) { text.append(piece); },
    end(turn, images) {
      const pics = images.map((image) => picture(image.image_url.url, `Image ${image.index}, drawn in turn ${number}`, set));
      node.replaceChildren(turnBody(turn, number), ...(pics.length ? [el("div", { class: "pics" }, ...pics)] : []));
    },
  };
}

/* Keeps the end of the conversation in view while it grows, unless the reader has scrolled away from it. */
function follow() {
  if (state.follow) $("turns").lastElementChild.scrollIntoView({ block: "end", behavior: "instant" });
}

function isAtEnd() {
  return $("turns").getBoundingClientRect().bottom - innerHeight < 120;
}

function verdict(answer, reason) {
  if (answer === null) return el("li", {}, el("span", { class: "verdict wrong" }, `No answer (${reason.replace(/_/g, " ")})`));
  const known = state.known;
  if (known === null) return el("li", {}, el("span", { class: "verdict right" }, `Answer: ${answer}`));
  const right = answer.trim().toLowerCase() === String(known).trim().toLowerCase();
  return el("li", {}, el("span", { class: `verdict ${right ? "right" : "wrong"}` },
    right ? `✓ Answer: ${answer}, which is right` : `✗ Answer: ${answer}, right is ${known}`));
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function request() {
  const options = $("options").value.split(",").map((word) => word.trim()).filter(Boolean);
  return {
    model: state.model, stream: true, options,
    temperature: Number($("temperature").value) || 0, seed: Math.floor(Number($("seed").value)) || 0,
    messages: [{ role: "user", content: [
      ...state.images.map((image) => ({ type: "image_url", image_url: { url: image.url } })), { type: "text", text: $("question").value },
    ] }],
  };
}

async function send() {
  if (state.running) return;
  await state.reading;
  if (!state.images.length) return showFault("Choose an image first.");
  if (!$("question").value.trim()) { $("question").focus(); return showFault("Write a question first."); }
  if (!state.model) await load();
  showFault();
  state.running = new AbortController();
  $("ask").disabled = true;
  $("stop").disabled = false;
  const set = [], given = state.images.map((image, i) => picture(image.url, state.images.length > 1 ? `Image ${i + 1}` : "The image", set));
  $("turns").replaceChildren(el("li", { class: "turn" },
    el("div", {}, el("h3", {}, "Question"), el("p", { class: "question" }, $("question").value)),
    el("div", { class: "pics" }, ...given)));
  $("status").textContent = "Waiting for the model …";
  $("again").hidden = true;
  document.body.classList.add("running");
  state.follow = true;
  if (narrow.matches) $("conversation").scrollIntoView({ block: "start", behavior: "instant" });
  let turn = null, count = 0;
  try {
    const reply = await call("/v1/chat/completions", { method: "POST", body: JSON.stringify(request()), signal: state.running.signal });
    for await (const event of events(reply)) {
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices[0].delta;
      if (delta.content) {
        if (!turn) { turn = turnNode(++count, set); $("status").textContent = `Turn ${count}: the model is writing …`; }
        turn.write(delta.content);
      }
      if (delta.turn) {
        (turn || turnNode(++count, set)).end(delta.turn, delta.images);
        turn = null;
      }
      if (event.choices[0].finish_reason) {
        if (delta.answer !== null) [...document.querySelectorAll("#turns .said")].pop()?.remove();  // the verdict says it
        $("turns").append(verdict(delta.answer, delta.stop_reason));
        $("status").textContent = `Finished after ${count} turn${count === 1 ? "" : "s"}.`;
      }
      if (count) follow();
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    $("status").textContent = stopped ? "Stopped." : "The conversation broke off.";
    document.body.classList.remove("running");
    if (!stopped) showFault(error.message);
  } finally {
    document.body.classList.remove("running");
    $("again").hidden = false;
    document.querySelectorAll(".writing").forEach((node) => node.classList.remove("writing"));
    state.running = null;
    $("ask").disabled = false;
    $("stop").disabled = true;
  }
}

function stop() {
  if (state.running) state.running.abort();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("stop").addEventListener("click", stop);
$("again").addEventListener("click", () => { $("question").scrollIntoView({ block: "center" }); $("question").focus({ preventScroll: true }); });
$("file").addEventListener("change", async (event) => { await takeFiles([...event.target.files]); event.target.value = ""; });
for (const kind of ["wheel", "touchmove", "keydown"]) {
  document.addEventListener(kind, () => requestAnimationFrame(() => { state.follow = isAtEnd(); }), { passive: true });
}
$("token").addEventListener("change", load);
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  takeFiles([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => takeFiles([...event.clipboardData.files].filter((file) => file.type.startsWith("image/"))));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});

load();
