// The button that fills the screen, on Compare and on /present. Where a browser refuses, the page alone does: the class
// `pv-full` of its root is the state. Escape leaves it, which a browser that fills the screen sees to itself.
function fullScreenButton(name) {
  const root = document.documentElement, button = document.createElement("button");
  const set = (on) => {
    root.classList.toggle("pv-full", on);
    button.textContent = on ? "Leave full screen" : "Full screen";
  };
  const leave = () => {
    set(false);
    if (document.fullscreenElement) document.exitFullscreen();
  };
  const enter = () => {
    set(true);
    if (document.fullscreenEnabled) root.requestFullscreen().catch(() => {});  // refused: the page's own state stays
  };
  const changed = () => set(Boolean(document.fullscreenElement));
  const pressed = (event) => {
    const listing = event.target.closest("[aria-expanded=true]");  // there Escape closes a list
    if (event.key === "Escape" && !listing && root.classList.contains("pv-full")) leave();
  };
  button.type = "button";
  button.className = name;
  button.onclick = () => root.classList.contains("pv-full") ? leave() : enter();
  document.addEventListener("fullscreenchange", changed);
  document.addEventListener("keydown", pressed);
  set(false);
  const gone = () => {
    document.removeEventListener("fullscreenchange", changed);
    document.removeEventListener("keydown", pressed);
  };
  return {button, leave, gone};
}
