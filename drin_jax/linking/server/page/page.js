// The page of the linking service. Whatever comes from data goes into the page as text, never as
// HTML. Spans are UTF-16 units inside the page, as a text area counts, and code points outside.

const SIDES = { t: "text", v: "picture" };
const SHOWN = 5; // candidates that the graph shows
const HEAVY = 3e6; // bytes of a picture that is made smaller before it is sent
const LONGEST = 1600; // pixels of its longer side then
const NARROW = 560; // pixels of the graph below which names stand above their vertices

const state = {
  mention: null, // {start, end} of the text area
  found: [], // results of the mentions found in the text as it stands
  result: null,
  picture: { file: null, url: "" }, // that the result was made with
  read: "", // the edge whose numbers are shown
  kb: {},
  entity: null, // the entity being replaced
};

// --- Elements

const $ = (id) => document.getElementById(id);

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  put(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function percent(p) {
  if (p > 0 && p < 0.0005) return "< 0.1 %";
  if (p < 1 && p >= 0.9995) return "> 99.9 %";
  return `${(100 * p).toFixed(1)} %`;
}

const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(2)}`;
const weight = (w) => (w === null ? "no edge" : w.toFixed(2).replace("-", "−"));
const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);

const thousands = (n) => n.toLocaleString("en");
const entities = (n) => (n === 1 ? "1 entity" : `${thousands(n)} entities`);

function shorten(text, most) {
  const points = Array.from(text);
  return points.length > most
    ? `${points
        .slice(0, most - 1)
        .join("")
        .trimEnd()}…`
    : text;
}

// --- Spans

const toPoints = (text, unit) => Array.from(text.slice(0, unit)).length;
const toUnits = (text, point) => Array.from(text).slice(0, point).join("").length;
const spanOf = (text, { start, end }) => [toPoints(text, start), toPoints(text, end)];
const unitsOf = (text, [a, b]) => ({ start: toUnits(text, a), end: toUnits(text, b) });

/** The selection without white space at its ends and with whole characters; null: nothing is left. */
function mentionIn(text, start, end) {
  const low = (unit) => text.charCodeAt(unit) >= 0xdc00 && text.charCodeAt(unit) <= 0xdfff;
  if (low(start)) start -= 1;
  if (low(end)) end += 1;
  const chosen = text.slice(start, end);
  const trimmed = chosen.trim();
  start += chosen.indexOf(trimmed);
  return trimmed ? { start, end: start + trimmed.length } : null;
}

/** Where the mention is after an edit elsewhere in the text; null: the edit was in it. */
function moved(mention, before, after) {
  const most = Math.min(before.length, after.length);
  let same = 0;
  while (same < most && before[same] === after[same]) same += 1;
  let tail = 0;
  while (tail < most - same && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  if (same >= mention.end) return mention;
  if (before.length - tail > mention.start) return null;
  const by = after.length - before.length;
  return { start: mention.start + by, end: mention.end + by };
}

// --- The service

class Failure extends Error {}

async function ask(method, path, body, { token, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service does not answer. Is it running, and is the network up?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Failure(wrong(response, answer));
  return answer;
}

function wrong(response, answer) {
  const told = String(answer.error || response.statusText || "no reason given");
  if (response.status === 429) {
    const wait = response.headers.get("Retry-After");
    return `The service is busy. Try again ${/^\d+$/.test(wait) ? `in ${wait} s` : "in a moment"}.`;
  }
  if (response.status >= 500) return `The service failed (${response.status}): ${told}`;
  return told;
}

/** Runs an action; its failure is one line in `line`. */
async function attempt(line, action) {
  line.textContent = "";
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    line.textContent = error.message;
  }
}

/** Signals of requests of which the next one ends the one before. */
function latest() {
  let last = null;
  return () => {
    last?.abort();
    last = new AbortController();
    return last.signal;
  };
}

/** The action, which does nothing while it already runs. */
function once(action) {
  let running = false;
  return async (...given) => {
    if (running) return;
    running = true;
    await action(...given).finally(() => (running = false));
  };
}

const entityPath = (id) => `entities/${encodeURIComponent(id)}`;
const imagePath = (id, version) => `${entityPath(id)}/image?v=${encodeURIComponent(version ?? "")}`;

// --- A picture to give: chosen, dropped or pasted

function pictureField(root, what, changed = () => {}) {
  let file = null;
  let url = "";
  const input = el("input", {
    type: "file",
    accept: "image/*",
    id: `${root.id}-file`,
    class: "visually-hidden",
  });
  const label = el("label", { for: input.id, class: "choose" });
  const thumb = el("img", { alt: "", hidden: true });
  const remove = el("button", { type: "button", hidden: true }, "Remove the picture");
  const line = el("p", { class: "error", role: "alert" });

  function set(chosen) {
    const odd = chosen && !chosen.type.startsWith("image/");
    line.textContent = odd ? `${chosen.name} is not a picture.` : "";
    if (odd) return;
    file = chosen;
    URL.revokeObjectURL(url);
    url = file ? URL.createObjectURL(file) : "";
    thumb.hidden = remove.hidden = !file;
    if (file) thumb.src = url;
    else thumb.removeAttribute("src");
    thumb.alt = file ? `The picture: ${file.name || "pasted"}` : "";
    label.textContent = file ? "Another picture" : `Choose ${what}`;
    label.append(file ? "" : el("small", {}, "or drop or paste one"));
    input.value = "";
    changed();
  }

  input.addEventListener("change", () => input.files.length && set(input.files[0]));
  remove.addEventListener("click", () => {
    set(null);
    input.focus();
  });
  root.append(thumb, input, label, remove, line);
  takeDrops(root, set);
  set(null);
  const data = async () => (file ? base64(await lighter(file)) : null);
  return { set, base64: data, file: () => file };
}

function takeDrops(root, set) {
  for (const kind of ["dragenter", "dragover"])
    root.addEventListener(kind, () => root.classList.add("over"));
  for (const kind of ["dragleave", "drop"])
    root.addEventListener(kind, () => root.classList.remove("over"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    if (event.dataTransfer.files.length) set(event.dataTransfer.files[0]);
  });
}

/** A heavy picture made smaller; encoders look at far fewer pixels still. */
async function lighter(file) {
  if (file.size <= HEAVY) return file;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return file;
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", { width: bitmap.width * scale, height: bitmap.height * scale });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Failure("The picture cannot be read; choose it again."));
    reader.readAsDataURL(file);
  });
}

/** Files dropped beside the fields go into the text's picture, and never replace the page. */
function takeStrays() {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    picture.set(file);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    ($("edit").contains(document.activeElement) ? portrait : picture).set(file);
  });
}

// --- The text and the mention in it

let written = "";

function drawText() {
  const text = $("text").value;
  const spans = state.found.filter((one) => one.span).map((one) => unitsOf(text, one.span));
  const marks = spans.map((span) => ({ ...span, kind: "found" }));
  if (state.mention) marks.push({ ...state.mention, kind: "chosen" });
  const ends = [0, text.length, ...marks.flatMap(({ start, end }) => [start, end])];
  const cuts = [...new Set(ends)].sort((a, b) => a - b);
  const pieces = cuts.slice(1).map((end, i) => {
    const kinds = marks.filter((m) => m.start <= cuts[i] && m.end >= end).map((m) => m.kind);
    const piece = text.slice(cuts[i], end);
    return kinds.length ? el("mark", { class: [...new Set(kinds)].join(" ") }, piece) : piece;
  });
  $("mirror").replaceChildren(...pieces, "\u200b");
}

function drawMention() {
  const { mention } = state;
  const told = mention ? `Mention: “${$("text").value.slice(mention.start, mention.end)}”` : "";
  $("mention").textContent = told || "No mention is selected.";
  drawText();
  drawFound();
}

function drawFound() {
  const text = $("text").value;
  const buttons = state.found.map((one) => {
    const chosen = state.mention && one.span && sameSpan(unitsOf(text, one.span), state.mention);
    const meant = one.is_nil || !one.candidates.length ? "none of them" : one.candidates[0].name;
    const press = () => {
      choose(one);
      reveal();
    };
    const attributes = { type: "button", "aria-pressed": String(Boolean(chosen)), click: press };
    return el(
      "button",
      attributes,
      el("b", {}, one.mention),
      el("i", { "aria-hidden": "true" }, " → "),
      el("span", {}, meant),
    );
  });
  const at = [...$("found").children].indexOf(document.activeElement);
  $("found").replaceChildren(...buttons);
  $("found").hidden = !buttons.length;
  buttons[at]?.focus();
}

const sameSpan = (a, b) => a.start === b.start && a.end === b.end;

function setMention(mention) {
  if (state.mention && mention && sameSpan(state.mention, mention)) return;
  state.mention = mention;
  drawMention();
}

function choose(one) {
  setMention(one.span ? unitsOf($("text").value, one.span) : null);
  answer(one, picture.file());
}

function setText(text, span) {
  $("text").value = written = text;
  state.found = [];
  state.mention = span ? unitsOf(text, span) : null;
  drawMention();
}

function edited() {
  const text = $("text").value;
  state.mention = state.mention && moved(state.mention, written, text);
  state.found = [];
  written = text;
  drawMention();
}

function selected() {
  const area = $("text");
  if (document.activeElement !== area || area.selectionStart === area.selectionEnd) return;
  const mention = mentionIn(area.value, area.selectionStart, area.selectionEnd);
  if (mention) setMention(mention);
}

/** A click into a found mention chooses it. */
function pointed() {
  const { value, selectionStart: at, selectionEnd } = $("text");
  if (at !== selectionEnd) return;
  const hit = state.found.find((one) => {
    const span = one.span && unitsOf(value, one.span);
    return span && span.start <= at && at <= span.end;
  });
  if (hit) choose(hit);
}

// --- Asking

const ASKING = "Asking the service.";
const nextQuestion = latest();

function question(action) {
  return attempt($("asked-error"), async () => {
    const signal = nextQuestion();
    $("answer").setAttribute("aria-busy", "true");
    $("said").textContent = ASKING;
    try {
      await action(signal);
    } finally {
      if (!signal.aborted) $("answer").setAttribute("aria-busy", "false");
      if (!signal.aborted && $("said").textContent === ASKING) $("said").textContent = "";
    }
  });
}

async function body() {
  const text = $("text").value;
  if (!text.trim()) {
    $("text").focus();
    throw new Failure("There is no text yet: write or paste one.");
  }
  return { text, image: await picture.base64(), k: Number($("k").value), explain: true };
}

const link = () =>
  question(async (signal) => {
    const { mention } = state;
    const file = picture.file();
    const asked = await body();
    if (!mention) {
      $("text").focus();
      throw new Failure("No mention is selected: select it in the text, or press “Find mentions”.");
    }
    asked.span = spanOf(asked.text, mention);
    answer(await ask("POST", "link", asked, { signal }), file);
    reveal();
  });

const annotate = () =>
  question(async (signal) => {
    const asked = await body();
    const { mentions } = await ask("POST", "annotate", asked, { signal });
    if (asked.text !== $("text").value) return;
    state.found = mentions;
    drawMention();
    if (!mentions.length) throw new Failure("No mention was found: select one in the text.");
    choose(mentions[0]);
    $("said").textContent = `Mentions found: ${mentions.length}. ${sentence(mentions[0])}`;
    $("found").firstElementChild.focus();
  });

/** On a narrow screen the answer is below what was asked. */
function reveal() {
  if ($("answer").getBoundingClientRect().top < innerHeight * 0.7) return;
  $("answer").scrollIntoView({ block: "start" });
}

// --- The answer

/** A candidate's name, with its id where another one is called the same. */
function named(one, { candidates }) {
  const same = candidates.filter((other) => other.name === one.name);
  return same.length > 1 ? `${one.name} (${one.id})` : one.name;
}

function sentence(result) {
  const first = result.candidates[0];
  if (result.is_nil || !first)
    return `“${result.mention}” means none of them, ${percent(result.nil_probability)}.`;
  return `“${result.mention}” means ${named(first, result)}, ${percent(first.probability)}.`;
}

function answer(result, file) {
  state.result = result;
  keepPicture(file);
  $("blank").hidden = true;
  $("answer-title").textContent = `“${result.mention}” means`;
  $("said").textContent = sentence(result);
  const told = new Map((result.explanation?.candidates ?? []).map((one) => [one.id, one]));
  const most = strongest([...told.values()]);
  const rows = result.candidates.map((one) => {
    const why =
      told.has(one.id) && reasonsOf(told.get(one.id), named(one, result), one.rank === 1, most);
    return candidateRow(one, why || null, result.kb);
  });
  rows.splice(result.is_nil ? 0 : rows.length, 0, nilRow(result));
  rows[0].classList.add("best");
  $("candidates").replaceChildren(...rows);
  drawLead(result);
  $("made-by").textContent = `Model ${result.model} · knowledge base ${result.kb}`;
  $("again").hidden = true;
  drawWhy();
}

function keepPicture(file) {
  if (state.picture.file === file) return;
  URL.revokeObjectURL(state.picture.url);
  state.picture = { file, url: file ? URL.createObjectURL(file) : "" };
}

function drawLead(result) {
  const { candidates, explanation, is_nil: nil } = result;
  const gains = Object.entries(explanation?.gains ?? {}).sort((a, b) => b[1] - a[1]);
  const best = gains.filter(([, gain]) => gain >= 0.005).slice(0, 3);
  $("lead").hidden = nil || !best.length || candidates.length < 2;
  if ($("lead").hidden) return;
  const [first, second] = candidates.map((one) => named(one, result));
  const parts = best.map(([name, gain]) => `${name} ${signed(gain)}`);
  $("lead").textContent = `What puts ${first} before ${second}: ${parts.join(", ")}.`;
}

function probabilityBar(p) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
  bar.firstChild.style.width = `${100 * p}%`;
  return el("p", { class: "probability" }, bar, el("data", { value: p }, percent(p)));
}

function portraitOf({ id, name, has_image: has }, version) {
  const initial = Array.from(name)[0] ?? "";
  const blank = el("span", { class: "portrait", "aria-hidden": "true" }, initial);
  if (!has) return blank;
  const image = el("img", {
    class: "portrait",
    alt: "",
    src: imagePath(id, version),
    loading: "lazy",
  });
  image.addEventListener("error", () => image.replaceWith(blank));
  return image;
}

/** The largest contribution of all candidates: their bars have one scale. */
const strongest = (explained) =>
  Math.max(1e-9, ...explained.flatMap((one) => Object.values(one.contributions)).map(Math.abs));

function candidateRow(one, why, version) {
  return el(
    "li",
    { class: "candidate", "data-id": one.id },
    portraitOf(one, version),
    el(
      "div",
      {},
      el("h3", {}, one.name, " ", el("code", {}, one.id)),
      el("p", {}, one.description),
      probabilityBar(one.probability),
      why,
    ),
  );
}

function nilRow({ nil_probability: p }) {
  return el(
    "li",
    { class: "candidate nil" },
    el("span", { class: "portrait", "aria-hidden": "true" }, "∅"),
    el(
      "div",
      {},
      el("h3", {}, "None of them"),
      el("p", {}, "This knowledge base has no such entity."),
      probabilityBar(p),
      p === 0
        ? el("p", { class: "quiet" }, "This model was calibrated without such mentions.")
        : null,
    ),
  );
}

/** Relation, what it knows in words, and what it adds; most first. */
function reasonsOf({ reasons, contributions }, name, open, most) {
  const relations = [...new Set([...Object.keys(contributions), ...Object.keys(reasons)])];
  if (!relations.length) return null;
  const value = (relation) => contributions[relation] ?? 0;
  relations.sort((a, b) => value(b) - value(a));
  const rows = relations.map((relation) => {
    const bar = el("span", { class: "diverging", "aria-hidden": "true" }, el("i"));
    bar.classList.toggle("against", value(relation) < 0);
    bar.firstChild.style.width = `${(50 * Math.abs(value(relation))) / most}%`;
    const number = relation in contributions ? signed(value(relation)) : "";
    const words = el("span", { class: "words" }, reasons[relation] ?? "nothing is known");
    return el(
      "li",
      {},
      el("b", {}, relation),
      words,
      bar,
      el("data", { value: value(relation) }, number),
    );
  });
  const summary = el("summary", {}, "Why", el("span", { class: "visually-hidden" }, ` ${name}`));
  return el("details", { class: "reasons", open }, summary, el("ol", {}, ...rows));
}

// --- The graph

/** The shown candidates with what is known of their edges. */
function shownCandidates(result) {
  const { candidates, explanation } = result;
  const told = new Map(explanation.candidates.map((one) => [one.id, one]));
  return candidates.slice(0, SHOWN).map((one) => {
    const { edges = null, contributions = {} } = told.get(one.id) ?? {};
    const evidence = sum(Object.values(contributions));
    return { ...one, named: named(one, result), edges, contributions, evidence };
  });
}

const hasEvidence = (shown) => shown.some((one) => Object.keys(one.contributions).length);

function drawWhy() {
  const { result } = state;
  const shown = result.explanation ? shownCandidates(result) : [];
  const edges = shown.some((one) => one.edges);
  $("why").hidden = !edges && !hasEvidence(shown);
  if ($("why").hidden) return;
  $("layers").hidden = !edges;
  $("layer").max = edges ? result.explanation.layers : 0;
  $("layer").value = Math.max(0, result.explanation.layers - 1);
  const few =
    result.candidates.length > shown.length ? `The first ${shown.length} candidates. ` : "";
  $("why-told").textContent =
    few +
    (edges
      ? "A line is an edge between a vertex of the mention and one of a candidate, as thick as its weight."
      : "This model has no graph of texts and pictures; it decides by evidence alone.") +
    " Point at a line, or walk along them with the arrow keys, to read its numbers.";
  drawLegend(edges, hasEvidence(shown));
  drawLayer();
}

function drawLegend(edges, evidence) {
  const { relations } = state.result.explanation;
  const kinds = edges ? relations.map((kind) => [kind, edgeName(kind)]) : [];
  if (evidence) kinds.push(["evidence", "evidence: all that its relations add"]);
  kinds.push(["below", "dashed: less than zero"]);
  const items = kinds.map(([kind, name]) =>
    el(
      "li",
      {},
      svg(
        "svg",
        { viewBox: "0 0 28 8", class: "key", "aria-hidden": "true" },
        svg("path", { d: "M1 4H27", class: kind }),
      ),
      name,
    ),
  );
  $("legend").replaceChildren(...items);
}

const edgeName = (kind) => `${SIDES[kind[0]]} to ${SIDES[kind[1]]}`;

function layerName(layer, layers) {
  if (layer === 0) return "from frozen features";
  return `after layer ${layer} of ${layers}`;
}

function drawLayer() {
  const { layers } = state.result.explanation;
  const layer = Number($("layer").value);
  $("layer-name").textContent = layerName(layer, layers);
  $("layer").setAttribute("aria-valuetext", layerName(layer, layers));
  const unread = layer === layers && layers > 0;
  $("layer-note").textContent = unread
    ? "The score is read before these: they come after the last layer."
    : layer === 0
      ? "What a graph with static edges would keep."
      : "";
  drawGraph(layer);
  drawNumbers(layer);
}

/** Every edge to draw: {one, kind, value, told}. */
function edgesOf(shown, layer, { layers, relations }) {
  return shown.flatMap((one) => {
    const own = relations.flatMap((kind, i) => {
      const value = one.edges?.[layer]?.[i] ?? null;
      if (value === null) return [];
      const course = one.edges.map((weights) => weight(weights[i])).join(" → ");
      const steps = layers ? ` · layers 0–${layers}: ${course}` : "";
      return [
        { one, kind, value, told: `${one.named}, ${edgeName(kind)}: ${weight(value)}${steps}` },
      ];
    });
    const parts = Object.entries(one.contributions).sort((a, b) => b[1] - a[1]);
    if (!parts.length) return own;
    const list = parts.map(([name, value]) => `${name} ${signed(value)}`).join(", ");
    const told = `${one.named}, evidence: ${signed(one.evidence)} · ${list}`;
    return [{ one, kind: "evidence", value: one.evidence, told }, ...own];
  });
}

/** Where everything is, in pixels. */
function plan(width, shown) {
  const narrow = width < NARROW;
  const row = narrow ? 96 : 84;
  const height = row * Math.max(shown.length, 2) + 8;
  const left = narrow ? 46 : Math.min(190, width * 0.2);
  const right = narrow ? width - 30 : width - Math.min(300, width * 0.36);
  const middle = (i) => 4 + row * (i + 0.5) + (narrow ? 10 : 0);
  const apart = Math.min(height / 3.4, 90);
  const y = { t: height / 2 - apart, v: height / 2 + apart, evidence: height / 2 };
  return {
    narrow,
    width,
    height,
    left,
    right,
    middle,
    y,
    off: { t: -19, v: 19, evidence: 0 },
  };
}

function drawGraph(layer) {
  const { result } = state;
  const shown = shownCandidates(result);
  const width = $("graph").clientWidth || 320;
  const at = plan(width, shown);
  const edges = edgesOf(shown, layer, result.explanation);
  const most = {
    edge: Math.max(1, ...shown.flatMap((one) => (one.edges ?? []).flat()).map(Math.abs)),
    evidence: Math.max(1e-9, ...shown.map((one) => Math.abs(one.evidence))),
  };
  const graph = svg("svg", {
    viewBox: `0 0 ${at.width} ${at.height}`,
    width: at.width,
    height: at.height,
    role: "group",
    "aria-label": `Edges between “${result.mention}” and its candidates`,
  });
  graph.append(
    ...edges.map((edge) => edgeLine(edge, shown.indexOf(edge.one), at, most)),
    ...mentionVertices(result, at, shown),
    ...shown.flatMap((one, i) => candidateVertices(one, i, at, shown)),
  );
  walkable(graph);
  replaceGraph(graph);
}

/** Lines begin as thick as they were; the edge whose numbers are shown stays the same one. */
function replaceGraph(graph) {
  const edges = (of) => [...of.querySelectorAll(".edge")].map((edge) => [edge.dataset.edge, edge]);
  const former = new Map(edges($("graph")));
  const held = former.get(state.read) === document.activeElement;
  const widths = edges(graph).map(([name, { firstChild: line }]) => {
    const width = line.style.strokeWidth;
    line.style.strokeWidth = former.get(name)?.firstChild.style.strokeWidth ?? width;
    return () => (line.style.strokeWidth = width);
  });
  $("graph").replaceChildren(graph);
  graph.getBoundingClientRect(); // so that the browser sees a change
  for (const widen of widths) widen();
  const read = new Map(edges(graph)).get(state.read);
  $("readout").textContent = read?.getAttribute("aria-label") ?? "";
  if (held) read?.focus();
}

function edgeLine({ one, kind, value, told }, i, at, most) {
  const evidence = kind === "evidence";
  const [from, to] = evidence ? ["evidence", "evidence"] : kind;
  const [x0, y0] = [at.left, at.y[from]];
  const [x1, y1] = [at.right - (evidence ? 18 : 16), at.middle(i) + at.off[to]];
  const bend = (x1 - x0) * 0.45;
  const d = `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
  const line = svg("path", { d, class: `line ${kind}`, fill: "none" });
  line.classList.toggle("below", value < 0);
  const share = Math.abs(value) / (evidence ? most.evidence : most.edge);
  line.style.strokeWidth = `${Math.max(0.4, share * (at.narrow ? 7 : 10)).toFixed(2)}px`;
  const name = `${kind} ${one.id}`;
  const read = () => {
    state.read = name;
    $("readout").textContent = told;
  };
  return svg(
    "g",
    {
      class: "edge",
      role: "img",
      "aria-label": told,
      "data-edge": name,
      "data-weight": value,
      tabindex: -1,
      pointerenter: read,
      focus: read,
    },
    line,
    svg("path", { d, class: "reach" }),
  );
}

/** One stop of the tabulator key, and the arrow keys from edge to edge. */
function walkable(graph) {
  const edges = [...graph.querySelectorAll(".edge")];
  edges[0]?.setAttribute("tabindex", 0);
  graph.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const i = edges.indexOf(document.activeElement);
    if (!step || i < 0) return;
    event.preventDefault();
    const next = edges[(i + step + edges.length) % edges.length];
    next.focus();
  });
  for (const edge of edges)
    edge.addEventListener("focus", () => {
      for (const other of edges) other.setAttribute("tabindex", other === edge ? 0 : -1);
    });
}

function mentionVertices({ mention }, at, shown) {
  const edges = shown.some((one) => one.edges);
  const label = (side, text) =>
    at.narrow
      ? svg("text", { x: 2, y: at.y[side] - 24, class: "vertex-name" }, shorten(text, 12))
      : svg(
          "text",
          { x: at.left - 42, y: at.y[side] + 4, class: "vertex-name end" },
          shorten(text, 20),
        );
  const { url } = state.picture;
  const drawn = [];
  if (edges) {
    drawn.push(textVertex(at.left - 16, at.y.t), label("t", `“${mention}”`));
    drawn.push(pictureVertex(at.left - 16, at.y.v, url));
    drawn.push(label("v", url ? "its picture" : "no picture"));
  }
  if (hasEvidence(shown)) {
    drawn.push(diamond(at.left, at.y.evidence));
    drawn.push(label("evidence", edges ? "evidence" : `“${mention}”`));
  }
  return drawn;
}

function candidateVertices(one, i, at, shown) {
  const y = at.middle(i);
  const url = one.has_image ? imagePath(one.id, state.result.kb) : "";
  const name = at.narrow
    ? svg("text", { x: at.width - 4, y: y - 42, class: "vertex-name end" }, shorten(one.named, 30))
    : svg("text", { x: at.right + 28, y: y - 2, class: "vertex-name" }, shorten(one.name, 28));
  const number = svg(
    "text",
    { x: at.right + 28, y: y + 17, class: "vertex-number" },
    `${percent(one.probability)} · ${shorten(one.id, 20)}`,
  );
  const drawn = one.edges
    ? [textVertex(at.right, y + at.off.t), pictureVertex(at.right, y + at.off.v, url)]
    : [];
  if (hasEvidence(shown)) drawn.push(diamond(at.right - 18, y));
  return [...drawn, name, ...(at.narrow ? [] : [number])];
}

const diamond = (x, y) => svg("path", { d: `M${x - 5} ${y}l5 -5 5 5 -5 5Z`, class: "vertex full" });

const textVertex = (x, y) =>
  svg(
    "g",
    { class: "vertex" },
    svg("rect", { x: x - 16, y: y - 14, width: 32, height: 28, rx: 3 }),
    ...[-6, 0, 6].map((dy) => svg("path", { d: `M${x - 9} ${y + dy}h${dy === 6 ? 11 : 18}` })),
  );

function pictureVertex(x, y, url) {
  const frame = svg("rect", { x: x - 16, y: y - 14, width: 32, height: 28, rx: 3 });
  if (!url) return svg("g", { class: "vertex missing" }, frame);
  const image = svg("image", {
    x: x - 15,
    y: y - 13,
    width: 30,
    height: 26,
    href: url,
    preserveAspectRatio: "xMidYMid slice",
  });
  return svg("g", { class: "vertex" }, frame, image);
}

function drawNumbers(layer) {
  const shown = shownCandidates(state.result);
  const edges = shown.some((one) => one.edges);
  const kinds = edges ? state.result.explanation.relations : [];
  const parts = [...new Set(shown.flatMap((one) => Object.keys(one.contributions)))];
  const head = ["Candidate", ...kinds, ...parts].map((name) => el("th", { scope: "col" }, name));
  const rows = shown.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, one.named),
      ...kinds.map((_, i) =>
        el("td", {}, weight(one.edges?.[layer]?.[i] ?? null).replace("no edge", "–")),
      ),
      ...parts.map((part) =>
        el("td", {}, part in one.contributions ? signed(one.contributions[part]) : "–"),
      ),
    ),
  );
  const weights = `Weights ${layerName(layer, state.result.explanation.layers)}`;
  const evidence = "what each relation of the evidence adds";
  const told = [...(edges ? [weights] : []), ...(parts.length ? [evidence] : [])].join(", and ");
  $("numbers").replaceChildren(
    el("caption", {}, told),
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...rows),
  );
}

// --- The knowledge base

async function readBase() {
  const kb = (state.kb = await ask("GET", "kb"));
  $("about").textContent =
    `A mention in a text, with a picture or without, linked to “${kb.name}”, a knowledge base of ${entities(kb.entities)}.`;
  $("base-size").textContent = `${kb.name} · ${entities(kb.entities)} · ${kb.version}`;
  $("edit").hidden = !kb.writable;
  $("read-only").hidden = Boolean(kb.writable);
  drawExamples(kb.examples ?? []);
}

function drawExamples(examples) {
  const items = examples.map(({ title, text, span }) => {
    const take = () => {
      setText(text, span);
      $("text").focus({ preventScroll: true });
    };
    return el("li", {}, el("button", { type: "button", click: take }, title));
  });
  $("examples").lastElementChild.replaceChildren(...items);
  $("examples").hidden = !items.length;
}

const nextSearch = latest();

const search = () =>
  attempt($("search-error"), async () => {
    const name = $("search-name").value.trim();
    const path = `entities?${new URLSearchParams({ name, k: 10 })}`;
    const { entities: found } = await ask("GET", path, undefined, { signal: nextSearch() });
    const none = `No entity is called “${name}” or the like.`;
    $("search-told").textContent = found.length ? entities(found.length) : none;
    $("hits").replaceChildren(...found.map(hit));
  });

function hit(one) {
  const click = () => changeEntity(one.id);
  const change = el(
    "button",
    { type: "button", "aria-label": `Change ${one.name}`, click },
    "Change",
  );
  return el(
    "li",
    { "data-id": one.id },
    portraitOf(one, state.kb.version),
    el(
      "div",
      {},
      el("b", {}, one.name),
      " ",
      el("code", {}, one.id),
      el("p", {}, one.description ?? ""),
    ),
    state.kb.writable ? el("div", { class: "row" }, change, removeButton(one)) : null,
  );
}

/** Removes at the second press; looking away takes the first one back. */
function removeButton(one) {
  const calm = () => {
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove ${one.name}`);
    button.classList.remove("grave");
  };
  const press = () => {
    if (button.classList.contains("grave")) return removeEntity(one);
    button.textContent = "Really remove";
    button.setAttribute("aria-label", `Really remove ${one.name}`);
    button.classList.add("grave");
  };
  const button = el("button", { type: "button", click: press, blur: calm });
  calm();
  return button;
}

const removeEntity = once((one) =>
  attempt($("edit-error"), async () => {
    await ask("DELETE", entityPath(one.id), undefined, { token: token() });
    $("hits")
      .querySelector(`[data-id="${CSS.escape(one.id)}"]`)
      ?.remove();
    await changed(`${one.name} (${one.id}) is removed.`);
  }),
);

const changeEntity = (id) =>
  attempt($("edit-error"), async () => {
    const one = await ask("GET", entityPath(id));
    fill(one);
    $("name").focus();
    const own = one.has_image ? await ownPicture(id) : null;
    if (own && state.entity === one) portrait.set(own);
  });

/** The picture an entity has, so that replacing the entity does not lose it. */
async function ownPicture(id) {
  const response = await fetch(imagePath(id, state.kb.version)).catch(() => ({ ok: false }));
  if (!response.ok)
    throw new Failure("Its picture cannot be read; to replace the entity loses it.");
  return new File([await response.blob()], id, { type: response.headers.get("Content-Type") });
}

function fill(one) {
  state.entity = one;
  $("id").value = one?.id ?? "";
  $("id").readOnly = Boolean(one);
  $("name").value = one?.name ?? "";
  $("aliases").value = (one?.aliases ?? []).join("\n");
  $("description").value = one?.description ?? "";
  portrait.set(null);
  $("edit-title").textContent = one ? `Change ${one.name}` : "Add an entity";
  $("save").textContent = one ? "Replace" : "Add";
  $("fresh").hidden = !one;
}

const token = () => $("token").value.trim();

const save = once(() =>
  attempt($("edit-error"), async () => {
    $("edit-told").textContent = "";
    const { id = $("id").value.trim(), type, popularity } = state.entity ?? {};
    const entity = {
      type,
      popularity,
      name: $("name").value.trim(),
      aliases: $("aliases")
        .value.split("\n")
        .map((line) => line.trim())
        .filter(Boolean),
      description: $("description").value.trim(),
    };
    const image = await portrait.base64();
    if (image) entity.image = image;
    const replaced = Boolean(state.entity);
    const added = { entities: [{ id, ...entity }], update: false };
    if (replaced) await ask("PUT", entityPath(id), entity, { token: token() });
    else await ask("POST", "entities", added, { token: token() });
    fill(null);
    await changed(`${entity.name} (${id}) is ${replaced ? "replaced" : "added"}.`);
  }),
);

async function changed(told) {
  $("edit-told").textContent = told;
  $("again").hidden = !state.mention;
  $("edit-told").focus({ preventScroll: true });
  state.found = [];
  drawMention();
  await readBase();
}

// --- Start

const picture = pictureField($("picture"), "a picture", () => {
  state.found = [];
  drawMention();
});
const portrait = pictureField($("portrait"), "its picture");

function submitting(action) {
  return (event) => {
    event.preventDefault();
    action();
  };
}

function listen() {
  $("text").addEventListener("input", edited);
  $("text").addEventListener("click", pointed);
  $("text").addEventListener("select", selected);
  document.addEventListener("selectionchange", selected);
  $("link").addEventListener("click", link);
  $("annotate").addEventListener("click", annotate);
  $("again").addEventListener("click", link);
  $("layer").addEventListener("input", drawLayer);
  $("search").addEventListener("submit", submitting(search));
  $("edit").addEventListener("submit", submitting(save));
  $("fresh").addEventListener("click", () => {
    fill(null);
    $("id").focus();
  });
  document.addEventListener("keydown", (event) => {
    const pressed = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (pressed && !$("base").contains(event.target)) submitting(link)(event);
  });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if ($("why").hidden || contentRect.width === width) return;
    width = contentRect.width;
    drawGraph(Number($("layer").value));
  }).observe($("graph"));
  takeStrays();
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) $("link").querySelector("kbd").textContent = "⌘ ⏎";
listen();
drawMention();
attempt($("asked-error"), readBase);
