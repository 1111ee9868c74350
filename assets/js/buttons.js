// Buttons inside HTML written in Python: `<button data-do="pick" data-focus="…">` triggers that event with its dataset.
const events = ["pick", "discard"];

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button && events.includes(button.dataset.do)) trigger(button.dataset.do, {...button.dataset});
});
