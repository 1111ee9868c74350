// `<button data-copy="…">` copies that text, and says for a moment whether it could.
const SHOWN_MS = 1500;

element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button || button.dataset.label) return;
  button.dataset.label = button.textContent;
  try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "Copied"; }
  catch { button.textContent = "Cannot copy"; }
  setTimeout(() => { button.textContent = button.dataset.label; delete button.dataset.label; }, SHOWN_MS);
});
