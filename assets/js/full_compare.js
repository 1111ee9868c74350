// Compare in full screen; going to another tab leaves it.
const {button, leave, gone} = fullScreenButton("pv-tool");
element.replaceChildren(button);
const seen = new ResizeObserver(() => { if (!button.offsetWidth && document.documentElement.classList.contains("pv-full")) leave(); });
seen.observe(button);
onGone(() => { seen.disconnect(); gone(); });
