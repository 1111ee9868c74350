// Questions whose answer turned, right to wrong and back. Questions and answers become text nodes and nothing else.

function flip(one, names) {
  const line = (label, text, kind) => make("div", {class: "pv-flip-line " + kind}, make("dt", {}, label), make("dd", {}, text || "(nothing)"));
  return make("li", {}, make("p", {class: "pv-flip-question"}, one.question),
    make("dl", {}, line("Right answer", one.answer, ""), line(names.before, one.before, one.right_now ? "bad" : "good"), line(names.after, one.after, one.right_now ? "good" : "bad")));
}

onValue((value) => {
  const lists = value.lists.map(({title, count: total, flips}) => make("section", {},
    make("h4", {}, title + ": " + total),
    make("ul", {class: "pv-flips", tabindex: "0", "aria-label": "Questions"}, ...flips.map((one) => flip(one, value))),
    total > flips.length ? make("p", {class: "pv-quiet"}, "The first " + flips.length + " are shown.") : ""));
  element.replaceChildren(make("div", {class: "pv-flip-lists"}, ...lists));
});
