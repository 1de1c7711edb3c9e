// The page at "/": reads the languages, sends one record, shows what comes back.
"use strict";

const at = (id) => document.getElementById(id);
const [form, from, to, text, output] = ["form", "from", "to", "text", "output"].map(at);
const REMEMBERED = "dragoman.pair";
const KEY = "dragoman.key";
const FIRST_PAIR = ["en", "ja"];
const LANGUAGES_RETRY_MS = 3000;

class Locked extends Error {}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) || FIRST_PAIR;
  } catch {
    return FIRST_PAIR;
  }
}

function remember() {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify([from.value, to.value]));
  } catch {
    // A browser that keeps nothing starts with the first pair again.
  }
}

// The key typed into this tab, where the server asks for one. A browser that keeps nothing has it
// until the page is left.
let typed = "";

function key() {
  try {
    return sessionStorage.getItem(KEY) || typed;
  } catch {
    return typed;
  }
}

function keepKey(text) {
  typed = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // As above.
  }
}

// The body of an answer, or an Error whose message a person can act on.
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server cannot be reached. Check that it runs, then try again.");
  }
  if (answer.status === 401) {
    at("door").hidden = false;
    at("key").focus();
    throw new Locked(key() ? "The server does not know this API key." : "The server asks for an API key.");
  }
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new Error(`The server answered with status ${answer.status} and nothing readable.`);
  }
  if (!answer.ok && !body.result) throw new Error(body.detail || `Status ${answer.status}.`);
  return body;
}

function fill(select, languages, chosen, otherwise) {
  select.replaceChildren(...languages.map(({ code, name }) => new Option(name, code)));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = Math.min(otherwise, languages.length - 1);
  select.disabled = false;
}

async function readLanguages() {
  try {
    const { languages } = await ask("languages");
    languages.sort((a, b) => a.name.localeCompare(b.name));
    const [first, second] = remembered();
    fill(from, languages, first, 0);
    fill(to, languages, second, 1);
    at("go").disabled = false;
    at("error").textContent = "";
  } catch (error) {
    at("error").textContent = error.message;
    if (!(error instanceof Locked)) setTimeout(readLanguages, LANGUAGES_RETRY_MS);
  }
}

function count() {
  at("count").textContent = `${[...text.value].length.toLocaleString("en")} of 10,000 characters`;
}

async function translate() {
  const began = performance.now();
  at("error").textContent = "";
  at("timing").textContent = "Translating…";
  at("copy").hidden = true;
  at("go").disabled = true;
  output.value = "";
  output.lang = to.value;
  const records = [{ id: 1, text: text.value }];
  const body = JSON.stringify({ payload: { fromLang: from.value, records, toLang: to.value } });
  try {
    const headers = { "Content-Type": "application/json" };
    const { result } = await ask("translation", { method: "POST", headers, body });
    if (result[0].error) throw new Error(result[0].error.detail);
    output.value = result[0].text;
    at("timing").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    at("copy").hidden = !navigator.clipboard;
  } catch (error) {
    at("error").textContent = error.message;
    at("timing").textContent = "";
  } finally {
    at("go").disabled = false;
  }
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value.trim());
  at("key").value = "";
  at("door").hidden = true;
  readLanguages();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!text.value.trim()) {
    at("error").textContent = "Type some text first.";
    text.focus();
    return;
  }
  if (from.value === to.value) {
    at("error").textContent = "Choose two different languages.";
    to.focus();
    return;
  }
  translate();
});

text.addEventListener("input", count);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(at("go"));
});

for (const select of [from, to]) select.addEventListener("change", remember);

at("swap").addEventListener("click", () => {
  [from.value, to.value] = [to.value, from.value];
  if (output.value) [text.value, output.value] = [output.value, ""];
  remember();
  count();
});

at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(output.value);
  at("timing").textContent = "Copied";
});

count();
readLanguages();
