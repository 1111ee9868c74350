// Turns the slides: buttons, arrow keys outside of texts, and the number in the address; fills the screen. The theme is
// the visitor's.
const wanted = localStorage.getItem("pv-theme");
const dark = wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.add("turning", dark ? "dark" : "light");

document.addEventListener("DOMContentLoaded", () => {
  const slides = [...document.querySelectorAll(".slide")], last = slides.length;
  const step = {ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1, Home: -Infinity, End: Infinity};
  const at = () => Math.min(last, Math.max(1, Number(location.hash.slice(1)) || 1));
  const show = () => {
    const now = at();
    slides.forEach((slide, index) => { slide.hidden = index + 1 !== now; });
    window.scrollTo(0, 0);
    if (last < 2) return;
    document.getElementById("place").textContent = now + " / " + last;
    for (const [id, target] of [["back", now - 1], ["on", now + 1]]) {
      const link = document.getElementById(id);
      link.href = "#" + Math.min(last, Math.max(1, target));
      link.setAttribute("aria-disabled", target < 1 || target > last);
    }
  };
  document.addEventListener("keydown", (event) => {
    const pressing = event.key === " " && event.target.closest("summary, a, button");
    const typing = event.target.closest("textarea, .pv-answer-text");
    if (!(event.key in step) || pressing || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    history.replaceState(null, "", "#" + Math.min(last, Math.max(1, at() + step[event.key])));
    show();
  });
  const nav = document.querySelector("nav");
  if (nav && document.fullscreenEnabled) {
    const {button} = fullScreenButton("");
    button.id = "full";
    nav.append(button);
  }
  window.addEventListener("hashchange", show);
  show();
});
