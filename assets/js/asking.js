// Asks the models on /present: sends the prompt, draws the answers as they come. A closed page stops the models.
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const whole = (rest + part.value).split("\n");
    rest = whole.pop();
    yield* whole;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const [form, prompt, go, stop, state, asked, box] = ["asking", "asking-prompt", "asking-go", "asking-stop", "asking-state", "asking-asked", "asking-answers"].map((id) => document.getElementById(id));
  if (!form) return;
  const props = {value: ""};
  let redraw, running = null, last = null;
  answerCards(box, props, (_, run) => { redraw = run; });

  const show = (round) => { last = round; props.value = JSON.stringify(round); redraw(); };
  const element = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const say = (words) => state.replaceChildren(...words ? [element("p", {class: "pv-note", role: "alert"}, words)] : []);

  // Of what the server says of the wait, its words alone.
  function wait(html) {
    const said = new DOMParser().parseFromString(html, "text/html"), text = (tag) => said.querySelector(tag)?.textContent || "";
    const head = element("h3", {}, element("span", {class: "pv-spin"}), text("h3"));
    state.replaceChildren(...html ? [element("div", {class: "pv-state pv-loading", role: "status"}, head, element("p", {}, text("p")))] : []);
  }

  async function ask() {
    const {run} = form.dataset, wanted = {run, prompt: prompt.value, blind: "blind" in form.dataset, chat: "chat" in form.dataset};
    const sent = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(wanted), signal: running.signal};
    const reply = await fetch(location.pathname.replace(/\/$/, "") + "/answers", sent);
    if (!reply.ok) return say((await reply.text()) || "The workbench refused the prompt (" + reply.status + ").");
    for await (const line of lines(reply.body)) {
      const now = JSON.parse(line), round = JSON.parse(now.round);
      wait(now.state);
      if (!round.cards.length) continue;
      asked.textContent = "“" + wanted.prompt.trim() + "”";  // the field may hold the next one by then
      show(round);
    }
    if (!last?.done) say("The answers ended too early: ask again.");
  }

  // What a blind round has so far would tell who is who: it is thrown away.
  function stopped() {
    say("Stopped.");
    if (last && !last.blind) show({...last, done: true});
    else box.querySelector(".pv-answers")?.replaceChildren();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    if (!prompt.value.trim()) return say("Type a prompt first.");
    running = new AbortController();
    last = null;
    say("");
    [go.disabled, stop.disabled] = [true, false];
    try { await ask(); }
    catch (error) { if (running.signal.aborted) stopped(); else say("The workbench cannot be reached, or went away: " + error.message); }
    [go.disabled, stop.disabled] = [false, true];
    running = null;
  });
  stop.addEventListener("click", () => running?.abort());
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
});
