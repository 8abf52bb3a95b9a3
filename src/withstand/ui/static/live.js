"use strict";
// Everything works without this: it only refreshes what is marked and asks before it acts.

const EVERY = 10000;

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm || event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// Somebody who fills in a form, or has marked text, must not lose it.
function busy(section) {
  const held = document.activeElement;
  const marked = window.getSelection();
  const edited = [...section.querySelectorAll("input, textarea")].some(
    (field) => field.type !== "hidden" && field.value !== field.defaultValue,
  );
  return (
    edited ||
    (held !== document.body && section.contains(held)) ||
    (marked && !marked.isCollapsed && section.contains(marked.anchorNode))
  );
}

async function refresh() {
  const sections = document.querySelectorAll("[data-live][id]");
  if (document.hidden || sections.length === 0) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { "x-live": "1" }, redirect: "error" });
  } catch {
    return;
  }
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const found = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const section of sections) {
    const fresh = found.getElementById(section.id);
    if (fresh && !busy(section) && fresh.innerHTML !== section.innerHTML) {
      section.replaceWith(document.adoptNode(fresh));
    }
  }
}

if (document.querySelector("[data-live]")) setInterval(refresh, EVERY);
