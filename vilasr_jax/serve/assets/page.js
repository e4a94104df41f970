"use strict";
/* Sends questions to the server's chat completions API, and shows the conversation as it streams. */
const $ = (id) => document.getElementById(id);
const MAX_BYTES = 16 * 1024 * 1024;
const state = { image: null, known: null, model: "", running: null };

function showFault(fault) {
  $("fault").textContent = fault || "";
  $("fault").hidden = !fault;
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

function showImage(url, words, known) {
  state.image = url;
  state.known = known || null;
  $("preview").src = url;
  $("preview").alt = words;
  $("preview").hidden = false;
  $("hint").textContent = words;
  showFault();
}

function takeFile(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) return showFault(`${file.name || "That"} isn't an image.`);
  if (file.size > MAX_BYTES) return showFault(`${file.name} is larger than 16 MiB; shrink it first.`);
  const reader = new FileReader();
  reader.addEventListener("load", () => showImage(reader.result, file.name || "Pasted image"));
  reader.addEventListener("error", () => showFault(`${file.name} can't be read.`));
  reader.readAsDataURL(file);
}

function takeSample(sample, number) {
  showImage(sample.image, `Sample ${number}`, sample.answer);
  $("question").value = sample.question;
  $("options").value = (sample.options || []).join(", ");
}

async function load() {
  try {
    const models = await (await call("/v1/models")).json();
    state.model = models.data[0].id;
    $("model").textContent = state.model;
    const { samples } = await (await call("/samples")).json();
    $("samples").hidden = !samples.length;
    document.querySelector(".samples").replaceChildren(...samples.map((sample, i) =>
      el("button", { type: "button", title: sample.question, "aria-label": `Sample ${i + 1}: ${sample.question}`,
        onclick: () => takeSample(sample, i + 1) }, el("img", { src: sample.image, alt: "", loading: "lazy" }))));
    showFault();
  } catch (error) {
    showFault(error.message);
  }
}

/* One turn on the page: text as it streams, then what was drawn, and the error that the model read. */
function turnNode(number) {
  const text = el("pre", { class: "writing" });
  const body = el("div", {}, el("h3", {}, `Turn ${number}`), text);
  const node = el("li", { class: "turn" }, body);
  $("turns").append(node);
  return {
    write(piece) { text.append(piece); },
    end(turn, images) {
      text.textContent = turn.text.trim();
      text.classList.remove("writing");
      if (turn.error) body.append(el("p", { class: "fault" }, `Error that the model read: ${turn.error}`));
      if (images.length) node.append(el("div", { class: "pics" }, ...images.map((image) => figure(image.image_url.url,
        `Image ${image.index}, drawn in turn ${number}`))));
    },
  };
}

function figure(url, words) {
  return el("div", { class: "pic" }, el("img", { src: url, alt: words }), words);
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
      { type: "image_url", image_url: { url: state.image } }, { type: "text", text: $("question").value },
    ] }],
  };
}

async function send() {
  if (state.running) return;
  if (!state.image) return showFault("Choose an image first.");
  if (!$("question").value.trim()) { $("question").focus(); return showFault("Write a question first."); }
  if (!state.model) await load();
  showFault();
  state.running = new AbortController();
  $("ask").disabled = true;
  $("stop").disabled = false;
  $("turns").replaceChildren(el("li", { class: "turn" },
    el("div", {}, el("h3", {}, "Question"), el("p", { class: "question" }, $("question").value)),
    el("div", { class: "pics" }, figure(state.image, "The image"))));
  $("status").textContent = "Waiting for the model …";
  let turn = null, count = 0;
  try {
    const reply = await call("/v1/chat/completions", { method: "POST", body: JSON.stringify(request()), signal: state.running.signal });
    for await (const event of events(reply)) {
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices[0].delta;
      if (delta.content) {
        if (!turn) { turn = turnNode(++count); $("status").textContent = `Turn ${count}: the model is writing …`; }
        turn.write(delta.content);
      }
      if (delta.turn) {
        (turn || turnNode(++count)).end(delta.turn, delta.images);
        turn = null;
      }
      if (event.choices[0].finish_reason) {
        $("turns").append(verdict(delta.answer, delta.stop_reason));
        $("status").textContent = `Finished after ${count} turn${count === 1 ? "" : "s"}.`;
      }
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    $("status").textContent = stopped ? "Stopped." : "The conversation broke off.";
    if (!stopped) showFault(error.message);
  } finally {
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
$("file").addEventListener("change", (event) => takeFile(event.target.files[0]));
$("token").addEventListener("change", load);
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => takeFile([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});

load();
