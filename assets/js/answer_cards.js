// The models' answers side by side. In a blind round names, speeds and marks stay away until somebody voted;
// the tally of votes lives in this browser's localStorage.

const NAMES = "ABCDEFGH", TALLY = "pv-votes";
let round = null, voted = null;

function tally() {
  try { return JSON.parse(localStorage.getItem(TALLY)) || {}; } catch { return {}; }
}

function vote(winner) {
  const votes = tally();
  for (const card of round.cards) {
    const own = votes[card.key] ||= {title: card.title, won: 0, asked: 0};
    own.title = card.title;
    own.asked += 1;
    if (winner === card.key) own.won += 1;
  }
  localStorage.setItem(TALLY, JSON.stringify(votes));
  voted = winner;
  draw();
}

function speed(card) {
  const words = card.tokens_per_second === null || !card.text ? [] : [card.tokens_per_second.toFixed(1) + " tokens/s"];
  return [...words, ...(card.note ? [card.note] : [])].join(" · ");
}

function nothing(card) {
  if (!round.done) return "…";
  if (card.state === "waiting") return "Not asked.";
  return card.note || card.tokens_per_second !== null ? "The model ended its answer at once." : "No answer kept for this prompt: press Answer.";
}

// What the models wrote becomes text nodes and nothing else.
function answer(card, hidden) {
  const body = make("div", {class: "pv-answer-text", tabindex: "0", role: "group", "aria-label": "Answer"});
  if (card.state === "failed" && (!hidden || round.done)) body.append(make("p", {class: "pv-answer-error", role: "alert"}, card.error));
  else if (!card.text) body.append(make("p", {class: "pv-quiet"}, nothing(card)));
  else for (const [text, differs] of card.stretches) body.append(differs && !hidden ? make("mark", {}, text) : text);
  return body;
}

function copyButton(card) {
  const button = make("button", {type: "button", class: "pv-copy", title: "Copy this answer", onclick: async () => {
    try { await navigator.clipboard.writeText(card.text); button.textContent = "Copied"; } catch { button.textContent = "Cannot copy"; }
  }}, "Copy");
  return card.text ? button : "";
}

function drawCard(card, index, hidden) {
  const head = hidden ? [make("h3", {}, "Model " + NAMES[index])] : [make("h3", {}, round.blind ? NAMES[index] + " was " + card.title : card.title), make("p", {class: "pv-quiet pv-mono"}, card.detail)];
  const foot = hidden ? [] : [make("span", {class: "pv-quiet pv-speed"}, speed(card)), copyButton(card)];
  const pick = hidden && round.done ? [make("button", {type: "button", class: "pv-vote", onclick: () => vote(card.key)}, NAMES[index] + " is better")] : [];
  const won = voted !== null && voted === card.key;
  return make("section", {class: "pv-answer " + card.state + (won ? " won" : ""), "aria-label": hidden ? "Model " + NAMES[index] : card.title},
    ...head, answer(card, hidden), make("div", {class: "pv-answer-foot"}, ...foot, ...pick));
}

// Where a share lies with 95 % confidence (Wilson), in percent.
function between(won, asked) {
  const z = 1.96, p = won / asked, scale = 1 + z * z / asked, middle = p + z * z / (2 * asked);
  const half = z * Math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked));
  return [middle - half, middle + half].map((end) => Math.round(100 * end / scale)).join(" to ");
}

function tallyLine() {
  const votes = Object.values(tally());
  if (!votes.length) return "";
  const text = votes.map((own) => own.title + " " + own.won + " of " + own.asked + " (" + between(own.won, own.asked) + " %)").join(", ");
  return make("p", {class: "pv-tally"}, "Blind votes in this browser, in brackets where the share lies with 95 % confidence: " + text + ". ",
    make("button", {type: "button", class: "pv-copy", onclick: () => { localStorage.removeItem(TALLY); draw(); }}, "Forget them"));
}

function draw() {
  if (!round) return;
  const hidden = round.blind && voted === null;
  const cards = round.cards.map((card, index) => drawCard(card, index, hidden));
  const even = hidden && round.done ? make("button", {type: "button", class: "pv-vote", onclick: () => vote("")}, "No difference") : "";
  const marks = !hidden && round.done && round.cards.some((card) => card.stretches.some(([, differs]) => differs));
  element.replaceChildren(
    make("div", {class: "pv-answers", style: "--columns:" + Math.max(1, cards.length), "aria-live": "polite"}, ...cards),
    make("div", {class: "pv-answer-line"}, even, marks ? make("p", {class: "pv-quiet"}, make("mark", {}, "marked"), " words are not in the answer of " + round.against) : "", round.blind ? tallyLine() : ""));
}

onValue((value) => {
  if (!value.blind || !value.done) voted = null;
  round = value;
  draw();
});
