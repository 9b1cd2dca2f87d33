// The controls: keys, buttons, wheel, slider and probability curve. All of them change `shown`.
// Follows image.js, which declares `study` and `shown`.
const main = document.querySelector("main");

// The line under the image.
function describe() {
  const { z } = shown;
  const parts = [`slice <b>${z}</b> of 0–${study.slices - 1}`, `z = ${(z * study.millimetres[0]).toFixed(1)} mm`];
  for (const hop of hops) parts.push(`${named(hop)} p = <b>${study.probs[hop][z].toFixed(3)}</b>`);
  const label = study.labels ? study.labels[z] : -1;
  if (label >= 0) parts.push(label ? "labelled PE" : "labelled no PE");
  if (study.errors.includes(z)) parts.push(`<b>${label ? "false negative" : "false positive"}</b>`);
  if (shown.hop && !(z in study.maps[shown.hop])) parts.push("attribution not computed here");
  $("state").innerHTML = parts.join(" · ");
}

function show() {
  $("slice").value = shown.z;
  $("slice").setAttribute("aria-valuetext", `slice ${shown.z}`);
  for (const end of ["x1", "x2"]) cursor.setAttribute(end, shown.z + 0.5);
  for (const refresh of refreshes) refresh();
  describe();
  draw();
}
function go(z) {
  shown.z = Math.min(Math.max(z, 0), study.slices - 1);
  show();
}
function goToError(step) {
  const around = step > 0 ? study.errors : [...study.errors].reverse();
  if (!around.length) return;
  go(around.find((z) => step * (z - shown.z) > 0) ?? around[0]); // after the last one: the first
}
function toggleAttribution(hop) {
  shown.hop = shown.hop === hop ? null : hop;
  show();
}
function toggleOutline(name) {
  if (!shown.outlines.delete(name)) shown.outlines.add(name);
  show();
}

// Buttons, and the keys that do the same.
const refreshes = [];
function group(...buttons) {
  const span = document.createElement("span");
  for (const { text, act, pressed, enabled = true } of buttons) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.disabled = !enabled;
    button.onclick = act;
    if (pressed) refreshes.push(() => button.setAttribute("aria-pressed", pressed()));
    span.append(button);
  }
  if (buttons.length) $("tools").append(span);
}
const setWindow = (k) => { shown.window = k; show(); };
group(...study.windows.map(({ name }, k) => (
  { text: `${name} (${k + 1})`, act: () => setWindow(k), pressed: () => shown.window === k })));
group(...outlines.map((name) => (
  { text: `${name} (${name[0]})`, act: () => toggleOutline(name), pressed: () => shown.outlines.has(name) })));
group(...explained.map((hop, k) => ({
  text: `attribution ${named(hop)}${k === explained.length - 1 ? " (a)" : ""}`,
  act: () => toggleAttribution(hop),
  pressed: () => shown.hop === hop,
})));
const some = study.errors.length > 0;
group({ text: "previous error (p)", act: () => goToError(-1), enabled: some },
  { text: "next error (n)", act: () => goToError(1), enabled: some });
const keys = {
  ArrowUp: () => go(shown.z + 1), ArrowRight: () => go(shown.z + 1),
  ArrowDown: () => go(shown.z - 1), ArrowLeft: () => go(shown.z - 1),
  PageUp: () => go(shown.z + 10), PageDown: () => go(shown.z - 10),
  Home: () => go(0), End: () => go(study.slices - 1),
  n: () => goToError(1), p: () => goToError(-1),
  ...Object.fromEntries(study.windows.map((_, k) => [k + 1, () => setWindow(k)])),
  ...Object.fromEntries(outlines.map((name) => [name[0], () => toggleOutline(name)])),
};
if (explained.length) keys.a = () => toggleAttribution(shown.hop || explained.at(-1));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
// In another page, the wheel scrolls that page until the viewer is clicked.
const alone = window.parent === window;
$("stage").addEventListener("wheel", (event) => {
  if (!alone && !document.hasFocus()) return;
  event.preventDefault();
  if (event.deltaY) go(shown.z - Math.sign(event.deltaY));
}, { passive: false });
$("stage").addEventListener("pointerdown", () => main.focus());
$("slice").addEventListener("input", (event) => go(Number(event.target.value)));

// The curve: x in slices, y from 1 down to 0.
const svg = document.querySelector("#curve svg");
function add(kind, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  svg.append(element);
  return element;
}
const n = study.slices;
svg.setAttribute("viewBox", `0 -0.03 ${n} 1.06`);
(study.labels || []).forEach((label, z) => {
  if (label === 1) add("rect", { class: "truth", x: z, y: 0, width: 1, height: 1 });
});
const stroke = (hop) => `var(--${hop}, var(--text))`;
const DASHES = ["none", "7 2", "7 2 2 2", "3 2"]; // hops differ without colour too
const line = (hop) => `stroke: ${stroke(hop)}; stroke-dasharray: ${DASHES[hops.indexOf(hop) % 4]}`;
for (const hop of hops) {
  const points = study.probs[hop].map((p, z) => `${z + 0.5},${1 - p}`).join(" ");
  add("polyline", { points, style: line(hop), "data-hop": hop });
  if (hop in study.deltas) {
    const y = 1 - study.deltas[hop];
    add("line", { class: "delta", x1: 0, x2: n, y1: y, y2: y, style: `stroke: ${stroke(hop)}` });
  }
}
const tick = (z, kind, y1, y2) => add("line", { class: kind, x1: z + 0.5, x2: z + 0.5, y1, y2 });
for (const z of study.errors) tick(z, "error", -0.03, 0.06);
for (const z of new Set(explained.flatMap((hop) => Object.keys(study.maps[hop])))) {
  tick(Number(z), "explained", 0.96, 1.03);
}
const cursor = tick(shown.z, "cursor", -0.03, 1.03);
const point = (event) => {
  const { left, width } = svg.getBoundingClientRect();
  go(Math.floor(((event.clientX - left) / width) * n));
};
$("curve").addEventListener("pointerdown", (event) => {
  main.focus();
  $("curve").setPointerCapture(event.pointerId);
  point(event);
});
$("curve").addEventListener("pointermove", (event) => { if (event.buttons) point(event); });

// Texts.
main.setAttribute("aria-label", `Slice viewer: ${study.title}`);
document.querySelector("h1").textContent = study.title;
$("facts").textContent = study.facts;
$("slice").max = study.slices - 1;
for (const hop of hops) {
  const span = document.createElement("span");
  span.innerHTML = `<svg viewBox="0 0 22 6"><line x2="22" y1="3" y2="3" style="${line(hop)}"/></svg>`;
  span.append(named(hop));
  $("legend").append(span);
}
const signs = [];
if ((study.labels || []).includes(1)) signs.push(["var(--truth)", "slices with PE (truth)"]);
if (some) signs.push(["var(--wrong)", "misclassified slice"]);
for (const [background, text] of signs) {
  const [span, sign] = [document.createElement("span"), document.createElement("i")];
  sign.style.background = background;
  span.append(sign, text);
  $("legend").append(span);
}
const notes = [];
if (Object.keys(study.deltas).length) notes.push("dotted: delta of the vote");
if (explained.length) notes.push(`ticks below: slices with attribution (${study.caption})`);
$("legend").append(notes.join("; "));
$("keys").textContent = "Click, then: arrows or wheel scroll (up is towards the head), Page ±10, "
  + "Home and End; 1 2 3 windows; n and p errors; letters in brackets toggle.";
new ResizeObserver(draw).observe($("stage"));
show();
