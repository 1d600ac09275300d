// Loaded before anything is painted, so that a chosen theme never flashes.
"use strict";
try {
  const theme = localStorage.getItem("stagebeam.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* storage may be forbidden; the system's theme is used */ }
