"use strict";
/* What the parts of the report's page read. */
const DATA = JSON.parse(document.getElementById("data").textContent);
const IMAGES = JSON.parse(document.getElementById("images").textContent);

function stageLabel(stage) {
  return DATA.stages[stage] || stage;
}
