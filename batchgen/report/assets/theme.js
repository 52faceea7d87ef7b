// Runs before the page is drawn, so that a theme that was chosen earlier does not flash.
(() => {
  "use strict";
  let theme = "";
  try { theme = localStorage.getItem("batchgen-theme") ?? ""; } catch { /* the browser keeps nothing for files */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
